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
A key is /ipns/NAME or /pk/PEER. Asks the closest servers and shows the best of their records: of IPNS that with the
highest sequence number. Servers among them that hold a worse one or none are given the best. -v shows every step on
stderr. Exit 1 if nobody has a valid one.

Examples:
  dhtstore get /ipns/k51…
  dhtstore get /ipns/12D3… --format ids     where the name points
  dhtstore get --raw /ipns/k51… > record    what `dhtstore put` takes")]
pub struct Args {
    /// /ipns/NAME (k51…, 12D3…, Qm…) or /pk/PEER
    key: String,
    /// Stop asking when so many servers hold the same best IPNS record [default: 16]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    quorum: Option<u16>,
    /// Ask this node only: what does it store?
    #[arg(long, conflicts_with = "quorum")]
    local: bool,
    /// Print the record's bytes, and nothing else
    #[arg(long, conflicts_with = "format")]
    raw: bool,
    #[command(flatten)]
    format: FormatArg,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let key = key_text::parse(&args.key).map_err(|error| CliError::data(format_args!("{}: {error}", args.key)))?;
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
            true => format!("this node holds no value of {}", args.key),
            false => format!(
                "no server holds a valid value of {}; names are forgotten 48 h after they were last put",
                args.key
            ),
        }));
    }
    if got.stale > 0 && context.verbose() {
        context.notice(format_args!(
            "* {} of {} servers with a worse value or none were corrected",
            got.corrected, got.stale
        ));
    }
    Ok(())
}

/// A record as bytes.
pub(super) fn bytes(value: &ValueRow) -> Result<Vec<u8>> {
    let decoded = multibase::decode(&value.record);
    decoded.map(|(_, bytes)| bytes).map_err(|error| CliError::other(format_args!("the server's answer: {error}")))
}

fn print_raw(value: &ValueRow) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(&bytes(value)?)?;
    Ok(out.flush()?)
}

/// A step of getting or putting on stderr, with `-v`.
pub(super) fn tell(event: Event, context: &Context) -> Result<()> {
    if context.verbose() {
        match event {
            Event::Answered { dht, peer, closer, took_ms, .. } => {
                context.notice(format_args!("* {dht}: {peer} names {closer} closer peers ({took_ms} ms)"));
            }
            Event::Value { dht, peer, held } => context.notice(format_args!("* {dht}: {peer} holds {held}")),
            Event::Put { dht, peer, error: None } => context.notice(format_args!("* {dht}: {peer} has taken it")),
            Event::Put { dht, peer, error: Some(error) } => {
                context.notice(format_args!("* {dht}: {peer} has not confirmed it: {error}"));
            }
            other => super::findprovs::tell(other, context)?,
        }
    }
    Ok(())
}
