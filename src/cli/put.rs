//! `dhtstore put`

use super::{
    Context,
    ask::{Item, Server},
    error::{CliError, Code, Result, ResultExt},
    get,
    output::{self, FormatArg},
};
use crate::{
    clock::{Clock, SystemClock},
    control::protocol::{Got, Placed, Request, ValueRow},
    kad::{
        cids,
        peer_id::parse_peer_id,
        values::{
            self, MAX_VALUE,
            ipns::{self, Entry},
            key_text,
        },
    },
    transport::identity,
};
use multibase::Base;
use serde::Serialize;
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

/// Arguments of `dhtstore put`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Checks the record, then sends it to the closest servers and stores it on this node. Servers drop it after 48 h, or \
when its validity ends: put it again before that.

With --ipns, this node's identity signs a new record, and its name, /ipns/PEER, then points at PATH. The sequence \
number is one above the highest that this node has found, stored or ever published, even if that record has expired.

Examples:
  dhtstore put --ipns /ipfs/bafy…       point this node's own name at content
  dhtstore get --raw /ipns/k51… | dhtstore put /ipns/k51… -       keep another node's name alive")]
pub struct Args {
    /// /ipns/NAME (k51…, 12D3…, Qm…) or /pk/PEER
    #[arg(requires = "file")]
    key: Option<String>,
    /// File with the record; `-` is stdin
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Sign and put a record that points this node's own name at PATH
    #[arg(long, value_name = "PATH", conflicts_with = "key", value_parser = path)]
    ipns: Option<String>,
    /// How long the record is valid
    #[arg(long, value_name = "TIME", default_value = "48h", requires = "ipns", value_parser = duration)]
    lifetime: Duration,
    /// How long resolvers may cache the record
    #[arg(long, value_name = "TIME", default_value = "1h", requires = "ipns", value_parser = duration)]
    ttl: Duration,
    /// Sequence number, above that of the previous record [default: one above the highest found]
    #[arg(long, value_name = "N", requires = "ipns")]
    sequence: Option<u64>,
    #[command(flatten)]
    format: FormatArg,
}

/// Result, for stdout.
#[derive(Debug, Serialize)]
struct Report {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    /// Servers that it was sent to.
    sent: u64,
    /// How many of those servers hold it.
    confirmed: u64,
    stored_here: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("must be above zero".into()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; write one like 48h or 90m")),
    }
}

fn path(text: &str) -> Result<String, String> {
    match text.starts_with("/ipfs/") || text.starts_with("/ipns/") {
        true => Ok(text.to_owned()),
        false => Err("a path starts with /ipfs/ or /ipns/; write it like /ipfs/bafy…".into()),
    }
}

/// Refuses a path that cannot be resolved: /ipfs/ needs a CID, /ipns/ the name of a key or a DNS name.
fn resolvable(path: &str) -> Result<()> {
    let refused =
        |why: String| CliError::data(format_args!("cannot point the name at {path}: {why}; nothing was published"));
    let (namespace, rest) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
    let root = rest.split('/').next().unwrap_or_default();
    match namespace {
        "ipfs" => match cids::parse(root) {
            Ok(_) => Ok(()),
            Err(error) => Err(refused(format!("/ipfs/ needs a CID: {error}"))),
        },
        _ if root.contains('.') && root.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) => Ok(()),
        _ => match parse_peer_id(root) {
            Ok(_) => Ok(()),
            Err(error) => Err(refused(format!("/ipns/ needs a name (k51…, 12D3…, example.org): {error}"))),
        },
    }
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let mut server = None;
    let (key, value) = match (&args.ipns, &args.key, &args.file) {
        (Some(path), ..) => {
            resolvable(path)?;
            let server = server.insert(Server::connect(context).await?);
            own(path, &args, server, context).await?
        }
        (None, Some(key), Some(file)) => {
            let bytes =
                key_text::parse(key).map_err(|error| CliError::data(format_args!("cannot put {key}: {error}")))?;
            (bytes, read(file)?)
        }
        _ => {
            return Err(CliError::usage(
                "cannot put: no record is named; give a key and a file (`dhtstore put /ipns/k51… record`), or --ipns \
                 PATH",
            ));
        }
    };
    let now = Duration::from_secs(u64::from(SystemClock::new().wall().0));
    values::validate(&key, &value, now).map_err(|error| {
        CliError::data(format_args!("cannot put the record: {error}; `dhtstore get --raw` saves a valid one"))
    })?;
    let request = Request::PutValue { key: key_text::show(&key), record: multibase::encode(Base::Base64, &value) };
    let each = |item: Item<'_>| match item {
        Item::Event(event) => get::tell(event.parse()?, context),
        Item::Row(_) => Ok(()),
    };
    let mut server = match server {
        Some(server) => server,
        None => Server::connect(context).await?,
    };
    let placed: Placed = server.ask(&request, each).await?;
    if let Some(reason) = &placed.not_stored_here {
        context.notice(format_args!("this node did not store it: {reason}"));
    }
    let record = ipns::Record::decode(&value).ok().filter(|_| key.starts_with(ipns::PREFIX));
    let report = Report {
        key: key_text::show(&key),
        sequence: record.map(|record| record.sequence),
        sent: placed.sent,
        confirmed: placed.confirmed,
        stored_here: placed.not_stored_here.is_none(),
    };
    output::print_object(&report, args.format.resolve(context))?;
    match (placed.sent, placed.confirmed) {
        (0, _) => Err(CliError::other(
            "cannot put the record on other nodes: no server is known; join a network with `dhtstore connect \
             MULTIADDR`, or set `bootstrap`, then put it again",
        )),
        (sent, 0) => Err(CliError::other(format_args!(
            "cannot put the record: none of {sent} servers confirmed it; -v shows why; a server refuses a record if \
             it has a better one, which `dhtstore get` shows"
        ))),
        _ => Ok(()),
    }
}

/// Reads a record, up to one byte more than the limit, so that the validation can report a record that is too large.
fn read(file: &Path) -> Result<Vec<u8>> {
    let mut value = Vec::new();
    let limit = MAX_VALUE as u64 + 1;
    let outcome = if file.as_os_str() == "-" {
        std::io::stdin().lock().take(limit).read_to_end(&mut value)
    } else {
        let file = File::open(file).map_err(|error| CliError::unreadable(file, &error))?;
        file.take(limit).read_to_end(&mut value)
    };
    outcome.context(format_args!("cannot read {}", file.display())).code(Code::Data)?;
    Ok(value)
}

/// Creates a record of this node's own name, with a sequence number above all that are found.
async fn own(path: &str, args: &Args, server: &mut Server, context: &Context) -> Result<(Vec<u8>, Vec<u8>)> {
    let dir = context.data_dir()?;
    let keypair = identity::load(dir)?.ok_or_else(|| CliError::no_database(&[dir]))?;
    let key = ipns::key(&keypair.public().to_peer_id());
    let request = Request::GetValue { key: key_text::show(&key), quorum: None, local: false };
    let mut highest = None;
    let each = |item: Item<'_>| match item {
        Item::Row(row) => {
            highest = row.parse::<ValueRow>()?.sequence;
            Ok(())
        }
        Item::Event(event) => get::tell(event.parse()?, context),
    };
    let got: Got = server.ask(&request, each).await?;
    // The sequence number of an expired record counts too: a server that was offline may still hold an older record,
    // and the new number must be higher than that record's.
    let highest = highest.max(got.kept_sequence);
    let sequence = match (args.sequence, highest) {
        (Some(sequence), Some(highest)) if sequence <= highest => {
            return Err(CliError::data(format_args!(
                "cannot use sequence number {sequence}: it is not above {highest}, the highest that this node has \
                 published or found, so resolvers would keep that record; leave out --sequence"
            )));
        }
        (Some(sequence), _) => sequence,
        (None, highest) => highest.map_or(0, |highest| highest.saturating_add(1)),
    };
    let now = Duration::from_secs(u64::from(SystemClock::new().wall().0));
    let validity = now.saturating_add(args.lifetime);
    let entry = Entry { value: path.as_bytes(), sequence, validity, ttl: args.ttl };
    let record = ipns::create(&keypair, &entry).map_err(CliError::data)?;
    Ok((key, record))
}
