//! `dhtstore dump`

use super::{
    Context,
    ask::Server,
    error::{CliError, Result},
    output::{Format, FormatArg, Rows, Schema},
};
use crate::{
    clock::{Clock, SystemClock, UnixTime},
    control::{
        protocol::{Counted, Request},
        service::inspect::{Counter, table_name},
    },
    provide::cids,
    store::{
        self, data_dir,
        dump::{Filter, Row, Table},
    },
};
use clap::ValueEnum;
use libp2p::PeerId;

/// Damaged rows that are reported one by one; the others are counted.
const DAMAGED_SHOWN_MAX: u64 = 20;

/// Arguments of `dhtstore dump`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Times are RFC 3339 (2026-01-31T12:00:00Z), Unix seconds, or a duration ago (2h). CIDs are shown as CIDv1 raw, since a
record keeps the multihash and not the codec. A stopped node's directory is left as it is: a copy is read.
Exit 65: some rows were damaged; the others were printed.

Examples:
  dhtstore dump providers | head
  dhtstore dump providers --cid bafy…
  dhtstore dump --count
  dhtstore dump provided --format ids > my-cids.txt")]
pub struct Args {
    /// What to print; `all`, the default, is all of them
    #[arg(value_name = "TABLE", value_parser = ["providers", "values", "provided", "peers", "routing", "meta", "all"])]
    tables: Vec<String>,
    /// Only rows of this CID, by its multihash
    #[arg(long)]
    cid: Option<String>,
    /// Only rows of this peer
    #[arg(long)]
    peer: Option<String>,
    /// Only what was received (announced, heard) then or later
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what was received before
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Also records past their ttl that are not collected yet
    #[arg(long)]
    expired: bool,
    /// Stop after so many rows
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Only how many rows there are, by table
    #[arg(long)]
    count: bool,
    /// Node stopped: open the database itself in place of a copy. Quicker, but recovery may write to it
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
        return Err(CliError::try_again("--in-place needs a stopped node, and the server is running; stop it first"));
    }
    if args.count {
        return count(server, filter, args.in_place, Rows::stdout(format, COUNTED), context).await;
    }
    let first = filter.tables.first().map_or(Table::Providers.name(), |table| table.name());
    let mut rows = Rows::stdout(format, schema(first, format)).bulk();
    let mut damaged = Damaged::default();
    let mut each = |row: Row| {
        if let Row::Damaged { place, error } = &row {
            damaged.report(place, error, context);
            return Ok(());
        }
        rows.switch(schema(table_name(&row), format))?;
        rows.push(&row)
    };
    match server {
        Some(mut server) => {
            context.notice("from the running server");
            server.rows(&Request::Dump { filter, count: false }, each).await?;
        }
        None => stopped(context, filter, args.in_place, &mut each).await?,
    }
    rows.finish()?;
    damaged.outcome()
}

async fn count(
    server: Option<Server>,
    filter: Filter,
    in_place: bool,
    mut rows: Rows,
    context: &Context,
) -> Result<()> {
    let mut damaged = Damaged::default();
    match server {
        Some(mut server) => {
            context.notice("from the running server");
            let each = |counted: Counted| {
                if counted.table == "damaged" {
                    damaged.0 = counted.rows;
                }
                rows.push(&counted)
            };
            server.rows(&Request::Dump { filter, count: true }, each).await?;
        }
        None => {
            let mut counter = Counter::new(&filter);
            let each = |row: Row| {
                if let Row::Damaged { place, error } = &row {
                    damaged.report(place, error, context);
                }
                counter.take(&row);
                Ok(())
            };
            stopped(context, filter, in_place, each).await?;
            for counted in counter.rows() {
                rows.push(&counted)?;
            }
        }
    }
    rows.finish()?;
    damaged.outcome()
}

/// Reads a stopped node's directory. Exit 66 without a database, 75 when a process has it and does not answer.
pub(super) async fn stopped(
    context: &Context,
    filter: Filter,
    in_place: bool,
    mut each: impl FnMut(Row) -> Result<()>,
) -> Result<()> {
    let config = context.config()?;
    let dir = &config.data_dir;
    if !store::is_data_dir(dir) {
        return Err(CliError::no_database(&[dir]));
    }
    if data_dir::is_locked(dir) {
        return Err(CliError::try_again(format_args!(
            "{} is in use by a process that does not answer on {}; is it starting or stopping? try again",
            dir.display(),
            config.control_socket().display()
        )));
    }
    context.notice(match in_place {
        true => "no server is running: opening the database in place",
        false => "no server is running: reading a copy of the database",
    });
    let now = SystemClock::new().wall();
    let mut failure = None;
    // The iteration blocks, and the rows go to a writer that is not shared between threads.
    let outcome = tokio::task::block_in_place(|| {
        store::dump::stopped(dir, in_place, config.store_settings(), now, &filter, &mut |row| match each(row) {
            Ok(()) => true,
            Err(error) => {
                failure = Some(error);
                false
            }
        })
    });
    match failure {
        Some(failure) => Err(failure),
        None => Ok(outcome?),
    }
}

/// Rows that could not be read.
#[derive(Debug, Default)]
pub(super) struct Damaged(u64);

impl Damaged {
    pub(super) fn report(&mut self, place: &str, error: &str, context: &Context) {
        self.0 += 1;
        if self.0 <= DAMAGED_SHOWN_MAX {
            context.notice(format_args!("damaged: {place}: {error}"));
        }
    }

    /// Exit 65 if there were any.
    pub(super) fn outcome(self) -> Result<()> {
        match self.0 {
            0 => Ok(()),
            n => Err(CliError::data(format_args!(
                "{n} rows are damaged; the others were printed; `dhtstore run` sets damage aside and recovers what it can"
            ))),
        }
    }
}

fn filter(args: &Args) -> Result<Filter> {
    let tables =
        args.tables.iter().filter(|table| *table != "all").filter_map(|table| Table::from_str(table, true).ok());
    let all = args.tables.iter().any(|table| table == "all");
    let peer = args.peer.as_deref().map(|text| match text.parse::<PeerId>() {
        Ok(peer) => Ok(peer.to_string()),
        Err(error) => Err(CliError::data(format_args!("--peer {text}: not a peer id: {error}"))),
    });
    let now = SystemClock::new().wall();
    let time = |flag: &str, text: &Option<String>| {
        let time = text.as_deref().map(|text| moment(text, now));
        time.transpose().map_err(|reason| CliError::usage(format_args!("{flag}: {reason}")))
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

/// A CID as it is stored in a filter. Exit 65 if it is none.
pub(super) fn check_cid(text: &str) -> Result<String> {
    cids::parse(text).map(|cid| cid.to_string()).map_err(|error| CliError::data(format_args!("{text}: {error}")))
}

/// A time as people write it, in Unix seconds.
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
        Err(_) => Err(format!("{text} is no time; write 2026-01-31T12:00:00Z, or a duration ago like 2h")),
    }
}

const COUNTED: Schema = Schema { columns: &["table", "rows"], id: "table" };

/// Columns of a table by its name in NDJSON. CSV is for programs and has all of them; a terminal is only so wide.
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
