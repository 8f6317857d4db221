//! `dhtstore get`

use super::{
    Context,
    ask::{Item, Server},
    error::{CliError, Result},
    output::{FormatArg, Rows, Schema},
};
use crate::{
    control::protocol::{Event, Got, Request, ValueRow},
    kad::values::key_text,
};
use std::io::Write;

const IPNS: Schema = Schema { columns: &["key", "value", "sequence", "validity", "ttl_s"], id: "value" };
const PUBLIC_KEY: Schema = Schema { columns: &["key", "record"], id: "record" };

/// Arguments of `dhtstore get`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Asks the closest servers and shows the best of their records: of IPNS records, the one with the highest sequence \
number. Then sends that record to those of the closest servers that hold a worse one or none. -v shows every step on stderr.
Exit 1: no server has a valid record.

Examples:
  dhtstore get /ipns/k51…
  dhtstore get /ipns/12D3… --format ids     print where the name points
  dhtstore get --raw /ipns/k51… > record    save it for `dhtstore put`")]
pub struct Args {
    /// /ipns/NAME (k51…, 12D3…, Qm…) or /pk/PEER
    key: String,
    /// Stop once N servers hold the same best IPNS record [default: 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    quorum: Option<u16>,
    /// Show only what this node stores
    #[arg(long, conflicts_with = "quorum")]
    local: bool,
    /// Print only the bytes of the record
    #[arg(long, conflicts_with = "format")]
    raw: bool,
    #[command(flatten)]
    format: FormatArg,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let key =
        key_text::parse(&args.key).map_err(|error| CliError::data(format_args!("cannot get {}: {error}", args.key)))?;
    let schema = if key.starts_with(crate::kad::values::ipns::PREFIX) { IPNS } else { PUBLIC_KEY };
    let mut rows = Rows::stdout(args.format.resolve(context), schema);
    let each = |item: Item<'_>| match item {
        Item::Row(row) if args.raw => print_raw(&row.parse()?),
        Item::Row(row) => {
            rows.push(&row.parse::<ValueRow>()?)?;
            rows.flush()
        }
        Item::Event(event) => tell(event.parse()?, context),
    };
    let request = Request::GetValue { key: args.key.clone(), quorum: args.quorum.map(usize::from), local: args.local };
    let got: Got = Server::connect(context).await?.ask(&request, each).await?;
    rows.finish()?;
    if !got.found {
        return Err(CliError::other(match args.local {
            true => format!(
                "cannot find a value of {}: this node stores none; leave out --local to ask other servers",
                args.key
            ),
            false => format!(
                "cannot find a value of {}: no server holds a valid one; servers drop a name 48 h after it was last \
                 put, so its owner must put it again",
                args.key
            ),
        }));
    }
    if got.stale > 0 && context.verbose() {
        context.notice(format_args!(
            "* corrected {} of {} servers that had a worse value or none",
            got.corrected, got.stale
        ));
    }
    Ok(())
}

/// Returns the bytes of a record.
pub(super) fn bytes(value: &ValueRow) -> Result<Vec<u8>> {
    let decoded = multibase::decode(&value.record);
    decoded.map(|(_, bytes)| bytes).map_err(|error| {
        CliError::other(format_args!("cannot parse the server's reply: {error}; is it a different version?"))
    })
}

fn print_raw(value: &ValueRow) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(&bytes(value)?)?;
    Ok(out.flush()?)
}

/// Prints a step of getting or putting a value on stderr, with `-v`.
pub(super) fn tell(event: Event, context: &Context) -> Result<()> {
    if context.verbose() {
        match event {
            Event::Answered { dht, peer, closer, took_ms, .. } => {
                context.notice(format_args!("* {dht}: {peer} names {closer} closer peers ({took_ms} ms)"));
            }
            Event::Value { dht, peer, held } => context.notice(format_args!("* {dht}: {peer} holds {held}")),
            Event::Put { dht, peer, error: None } => context.notice(format_args!("* {dht}: {peer} stored it")),
            Event::Put { dht, peer, error: Some(error) } => {
                context.notice(format_args!("* {dht}: {peer} did not confirm it: {error}"));
            }
            other => super::findprovs::tell(other, context)?,
        }
    }
    Ok(())
}
