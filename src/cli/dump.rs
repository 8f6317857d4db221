//! `dhtstore dump`

use super::{
    Context,
    ask::{Item, Server},
    error::{CliError, Result},
    output::{Format, FormatArg, Rows, Schema},
};
use crate::kad::peer_id::parse_peer_id;
use crate::{
    clock::{Clock, SystemClock, UnixTime},
    config::Config,
    control::protocol::{DumpEvent, Request},
    kad::cids,
    store::{
        self, data_dir,
        dump::{self, End, Filter, Header, Row, Summary, Table, Told, Want},
    },
    transport::identity,
};
use serde::Serialize;

/// Damaged rows that are reported one by one; further ones are counted.
const DAMAGED_SHOWN_MAX: u64 = 20;

/// Arguments of `dhtstore dump`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The node may run or be stopped; of a stopped node a copy of the database is read, and the directory stays unchanged.
A TIME is RFC 3339 (2026-01-31T12:00:00Z), Unix seconds, or a duration before now (2h).
CIDs are shown as CIDv1 raw, because a record keeps the multihash but not the codec.
NDJSON begins with a header and ends with a line of counts; `dhtstore load` reads it (docs/dump.md).
Exit 65: some rows were damaged; the others were printed.

Examples:
  dhtstore dump providers | head
  dhtstore dump providers --cid bafy…
  dhtstore dump --count
  dhtstore dump --hash                          compare with the hash on another node
  dhtstore dump > all.ndjson                    load it elsewhere with `dhtstore load`
  dhtstore dump provided --format ids > my-cids.txt")]
pub struct Args {
    /// Tables to print [default: all]
    #[arg(value_name = "TABLE", value_parser = ["providers", "values", "provided", "peers", "routing", "meta", "all"])]
    tables: Vec<String>,
    /// Print only rows of this CID (its multihash counts)
    #[arg(long)]
    cid: Option<String>,
    /// Print only rows of this peer
    #[arg(long)]
    peer: Option<String>,
    /// Print only rows received (announced, heard) at TIME or later
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Print only rows received (announced, heard) before TIME
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Include records past their ttl that are not collected yet
    #[arg(long)]
    expired: bool,
    /// Stop after N rows
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print only the number of rows of each table
    #[arg(long)]
    count: bool,
    /// Print only the number of rows of each table and their hash, which does not depend on their order (docs/dump.md)
    #[arg(long, conflicts_with_all = ["count", "expired"])]
    hash: bool,
    /// Open the database of a stopped node itself, without a copy: quicker, but recovery may write to it
    #[arg(long)]
    in_place: bool,
    #[command(flatten)]
    format: FormatArg,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let filter = filter(&args)?;
    let format = args.format.resolve(context);
    let server = Server::connect_if_running(context).await?;
    if args.in_place && server.is_some() {
        return Err(CliError::try_again(
            "cannot open the database in place: the server is running; stop it, or leave out --in-place",
        ));
    }
    let mut damaged = Damaged::default();
    if args.count || args.hash {
        let what = if args.hash { What::Hash } else { What::Count };
        let each = |piece: Piece<'_>| {
            damaged.look(&piece, context);
            Ok(())
        };
        let summary = tell(context, server, filter, what, args.in_place, each).await?;
        figures(&summary, format)?;
        return damaged.outcome();
    }
    let first = filter.tables.first().map_or(Table::Providers.name(), |table| table.name());
    let mut rows = Rows::stdout(format, schema(first, format)).bulk();
    let is_ndjson = format == Format::Ndjson;
    let each = |piece: Piece<'_>| {
        damaged.look(&piece, context);
        match piece {
            Piece::Header(header) if is_ndjson => rows.push(&header),
            Piece::Rows(lines) if is_ndjson => rows.push_ndjson(lines),
            Piece::Rows(lines) => dump::read_rows(lines).try_for_each(|row| {
                rows.switch(schema(row.table().name(), format))?;
                rows.push(&row)
            }),
            Piece::Header(_) | Piece::Damaged { .. } => Ok(()),
        }
    };
    let summary = tell(context, server, filter, What::Rows, args.in_place, each).await?;
    if is_ndjson {
        rows.push(&End::new(&summary))?;
    }
    rows.finish()?;
    damaged.outcome()
}

/// The count of one table, and its hash if wanted.
#[derive(Debug, Serialize)]
struct Counted<'a> {
    table: &'a str,
    rows: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<&'a str>,
}

fn figures(summary: &Summary, format: Format) -> Result<()> {
    let columns: &[&str] = if summary.hash.is_some() { &["table", "rows", "hash"] } else { &["table", "rows"] };
    let mut rows = Rows::stdout(format, Schema { columns, id: if summary.hash.is_some() { "hash" } else { "table" } });
    for (table, counted) in &summary.tables {
        rows.push(&Counted { table, rows: counted.rows, hash: counted.hash.as_deref() })?;
    }
    if summary.hash.is_some() {
        rows.push(&Counted { table: "all", rows: summary.rows, hash: summary.hash.as_deref() })?;
    }
    if summary.damaged > 0 {
        rows.push(&Counted { table: "damaged", rows: summary.damaged, hash: None })?;
    }
    rows.finish().map(drop)
}

/// Which result of a dump is wanted: its rows, their count, or their hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    Rows,
    Count,
    Hash,
}

/// A part of a dump.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    Header(Header),
    /// One or more lines of NDJSON; the last may lack its line end.
    Rows(&'a [u8]),
    Damaged {
        place: String,
        error: String,
    },
}

/// Passes the parts of a dump to `each`, from the running server or from a stopped node's directory. Exit 66 without a
/// database, 75 if a process uses it and does not answer.
pub(super) async fn tell(
    context: &Context,
    server: Option<Server>,
    filter: Filter,
    what: What,
    in_place: bool,
    mut each: impl FnMut(Piece<'_>) -> Result<()>,
) -> Result<Summary> {
    let Some(mut server) = server else { return stopped(context, filter, what, in_place, each) };
    context.notice("from the running server");
    let request = Request::Dump { filter, count: what == What::Count, hash: what == What::Hash, lines: true };
    let each = |item: Item<'_>| match item {
        Item::Row(row) => each(Piece::Rows(row.text())),
        Item::Event(event) => match event.parse()? {
            DumpEvent::Header(header) => each(Piece::Header(header)),
            DumpEvent::Damaged { place, error } => each(Piece::Damaged { place, error }),
        },
    };
    server.ask(&request, each).await
}

/// Passes the rows of a dump to `each`, one by one.
pub(super) async fn rows(
    context: &Context,
    server: Option<Server>,
    filter: Filter,
    mut each: impl FnMut(Row) -> Result<()>,
) -> Result<Damaged> {
    let mut damaged = Damaged::default();
    let each = |piece: Piece<'_>| {
        damaged.look(&piece, context);
        match piece {
            Piece::Rows(lines) => dump::read_rows(lines).try_for_each(&mut each),
            Piece::Header(_) | Piece::Damaged { .. } => Ok(()),
        }
    };
    tell(context, server, filter, What::Rows, false, each).await?;
    Ok(damaged)
}

fn stopped(
    context: &Context,
    filter: Filter,
    what: What,
    in_place: bool,
    mut each: impl FnMut(Piece<'_>) -> Result<()>,
) -> Result<Summary> {
    let config = context.config()?;
    let dir = &config.data_dir;
    not_in_use(config)?;
    context.notice(match in_place {
        true => "no server is running: opening the database in place",
        false => "no server is running: reading a copy of the database",
    });
    // The records must be printed even if the identity is damaged.
    let peer = identity::load(dir).ok().flatten().map(|keypair| keypair.public().to_peer_id().to_string());
    let now = SystemClock::new().wall();
    let from = dump::Stopped { dir, in_place, settings: config.store_settings(), now };
    let want = match what {
        What::Rows => Want::NDJSON,
        What::Count => Want::Count,
        What::Hash => Want::Hash,
    };
    let mut failure = None;
    // The iteration blocks, and the writer of the rows cannot move to another thread.
    let outcome = tokio::task::block_in_place(|| {
        dump::stopped(from, &filter, want, &mut |told| {
            let piece = match told {
                Told::Begin { schema, time } => Piece::Header(Header::new(schema, peer.clone(), time, &filter)),
                Told::Rows { json, .. } => Piece::Rows(json),
                Told::Damaged { place, error } => Piece::Damaged { place, error },
            };
            match each(piece) {
                Ok(()) => true,
                Err(error) => {
                    failure = Some(error);
                    false
                }
            }
        })
    });
    match failure {
        Some(failure) => Err(failure),
        None => Ok(outcome?),
    }
}

/// Checks that the directory has a database and that no process uses it. Exit 66 without a database, 75 if a process
/// uses it and does not answer.
pub(super) fn not_in_use(config: &Config) -> Result<()> {
    let dir = &config.data_dir;
    if !store::is_data_dir(dir) {
        return Err(CliError::no_database(&[dir]));
    }
    if data_dir::is_locked(dir) {
        return Err(CliError::try_again(format_args!(
            "cannot read {}: it is in use by a process that does not answer on {}, perhaps while it starts or stops; \
             try again in a few seconds",
            dir.display(),
            config.control_socket().display()
        )));
    }
    Ok(())
}

/// Count of rows that could not be read.
#[derive(Debug, Default)]
pub(super) struct Damaged(u64);

impl Damaged {
    /// Counts and reports the piece if it is [`Piece::Damaged`].
    pub(super) fn look(&mut self, piece: &Piece<'_>, context: &Context) {
        let Piece::Damaged { place, error } = piece else { return };
        self.0 += 1;
        if self.0 <= DAMAGED_SHOWN_MAX {
            context.notice(format_args!("damaged: {place}: {error}"));
        }
    }

    /// Returns the outcome of the command: exit 65 if any row could not be read.
    pub(super) fn outcome(self) -> Result<()> {
        match self.0 {
            0 => Ok(()),
            n => Err(CliError::data(format_args!(
                "cannot read {n} damaged places of the database; everything else was printed; `dhtstore run` recovers \
                 what it can"
            ))),
        }
    }
}

fn filter(args: &Args) -> Result<Filter> {
    let tables = args.tables.iter().filter_map(|name| Table::ALL.into_iter().find(|table| table.name() == *name));
    let all = args.tables.iter().any(|table| table == "all");
    let peer = args.peer.as_deref().map(|text| match parse_peer_id(text) {
        Ok(peer) => Ok(peer.to_string()),
        Err(error) => Err(CliError::data(format_args!("cannot read --peer {text}: {error}"))),
    });
    let now = SystemClock::new().wall();
    let time = |flag: &str, text: &Option<String>| {
        let time = text.as_deref().map(|text| moment(text, now));
        time.transpose().map_err(|reason| CliError::usage(format_args!("cannot read {flag}: {reason}")))
    };
    Ok(Filter {
        tables: if all { Vec::new() } else { tables.collect() },
        cid: args.cid.as_deref().map(check_cid).transpose()?,
        peer: peer.transpose()?,
        since: time("--since", &args.since)?,
        until: time("--until", &args.until)?,
        expired: args.expired,
        limit: args.limit,
    })
}

/// Returns a CID in the form that a filter has. Exit 65 if `text` is not a CID.
pub(super) fn check_cid(text: &str) -> Result<String> {
    cids::parse(text)
        .map(|cid| cid.to_string())
        .map_err(|error| CliError::data(format_args!("cannot look up {text}: {error}")))
}

/// Parses a time as people write it. Returns Unix seconds.
fn moment(text: &str, now: UnixTime) -> Result<u32, String> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(seconds);
    }
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        let since = time.duration_since(std::time::UNIX_EPOCH).map_err(|_| format!("{text} is before 1970"))?;
        return u32::try_from(since.as_secs()).map_err(|_| format!("{text} is too far in the future"));
    }
    match humantime::parse_duration(text) {
        Ok(ago) => Ok(now.0.saturating_sub(u32::try_from(ago.as_secs()).unwrap_or(u32::MAX))),
        Err(_) => Err(format!("{text} is not a time; write 2026-01-31T12:00:00Z, or a duration before now like 2h")),
    }
}

/// Returns the columns of a table, by its name in NDJSON. CSV, for programs, has all of them; other formats have those
/// that fit a terminal.
pub(super) fn schema(table: &str, format: Format) -> Schema {
    match table {
        "providers" if format == Format::Csv => Schema {
            columns: &["cid", "multihash", "provider", "addresses", "received", "expires", "expires_in_s"],
            id: "cid",
        },
        "provided" if format == Format::Csv => {
            Schema { columns: &["cid", "multihash", "added", "announced", "confirmed"], id: "cid" }
        }
        "values" if format == Format::Csv => {
            Schema { columns: &["key", "bytes", "received", "expires", "expires_in_s", "record"], id: "key" }
        }
        "values" => Schema { columns: &["key", "bytes", "received", "expires_in_s"], id: "key" },
        "providers" => Schema { columns: &["cid", "provider", "addresses", "received", "expires_in_s"], id: "cid" },
        "provided" => Schema { columns: &["cid", "added", "announced", "confirmed"], id: "cid" },
        "peers" => Schema { columns: &["peer", "addresses", "announced", "records"], id: "peer" },
        "routing" => Schema { columns: &["dht", "peer", "addresses", "heard"], id: "peer" },
        _ => Schema { columns: &["name", "value"], id: "name" },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let now = UnixTime(1_000_000);
        assert_eq!(moment("1970-01-02T00:00:00Z", now), Ok(86_400));
        assert_eq!(moment("1970-01-02", now).ok().or(moment("1970-01-02 00:00:00", now).ok()), Some(86_400));
        assert_eq!(moment("2h", now), Ok(1_000_000 - 7200));
        assert_eq!(moment("500", now), Ok(500));
        assert_eq!(moment("9999y", now), Ok(0));
        assert!(moment("yesterday", now).unwrap_err().contains("2h"));
    }
}
