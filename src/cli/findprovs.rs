//! `dhtstore findprovs`

use super::{
    Context,
    ask::{Item, Server},
    cid_list::CidArgs,
    dump,
    error::Result,
    output::{self, Format, FormatArg, Rows, Schema},
};
use crate::{
    control::protocol::{Event, Peer, Request},
    store::dump::{Filter, Row, Table},
};
use serde::Serialize;

/// Columns of a peer.
pub(super) const PEER: Schema = Schema { columns: &["peer", "addresses"], id: "peer" };
/// Columns of a peer where several CIDs are looked up.
const PEER_OF_CID: Schema = Schema { columns: &["cid", "peer", "addresses"], id: "peer" };

/// Arguments of `dhtstore findprovs`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
In a pipe, one CID gives one peer id per line, like `ipfs routing findprovs`. Several CIDs give NDJSON, with the CID \
in each row. -v shows every step on stderr.

Examples:
  dhtstore findprovs bafy…
  dhtstore findprovs -n 1 --file cids.txt > found.ndjson")]
pub struct Args {
    #[command(flatten)]
    cids: CidArgs,
    /// Stop after N providers of a CID
    #[arg(short = 'n', long = "num-providers", value_name = "N", default_value_t = 20, value_parser = at_least_one)]
    limit: usize,
    /// Show only what this node stores. For one CID this also works on a stopped node
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    format: FormatArg,
}

/// A provider of one of several CIDs.
#[derive(Debug, Serialize)]
struct ProviderOf<'a> {
    cid: &'a str,
    peer: String,
    addresses: Vec<String>,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(limit) => Ok(limit),
        Err(error) => Err(format!("{error}")),
    }
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let mut list = args.cids.read(context)?;
    if list.len() == 1 && args.cids.file.is_none() {
        return one(args, list.first()?, context).await;
    }
    let mut server = Server::connect(context).await?;
    let mut rows = Rows::stdout(args.format.resolve(context), PEER_OF_CID).bulk();
    let bar = output::progress(context, Some(list.len()), "finding");
    let mut without = 0u64;
    for chunk in list.chunks()? {
        for cid in chunk? {
            let request = Request::FindProviders { cid: cid.clone(), limit: args.limit, local: args.local };
            let found: usize = server
                .ask(&request, |item| match item {
                    Item::Row(row) => {
                        let Peer { peer, addresses } = row.parse()?;
                        rows.push(&ProviderOf { cid: &cid, peer, addresses })
                    }
                    Item::Event(event) => tell(event.parse()?, context),
                })
                .await?;
            without += u64::from(found == 0);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    rows.finish()?;
    if without > 0 {
        context.notice(format_args!("{without} of {} CIDs have no providers", list.len()));
    }
    Ok(())
}

/// Finds the providers of one CID and prints them in the format that `ipfs` users expect.
async fn one(args: Args, cid: String, context: &Context) -> Result<()> {
    let format = args.format.resolve_or(context, Format::Ids);
    let mut rows = Rows::stdout(format, PEER);
    let server =
        if args.local { Server::connect_if_running(context).await? } else { Some(Server::connect(context).await?) };
    match server {
        Some(mut server) => {
            let request = Request::FindProviders { cid, limit: args.limit, local: args.local };
            server.ask::<usize>(&request, |item| show(item, &mut rows, context)).await?;
        }
        None => {
            let filter = Filter {
                tables: vec![Table::Providers],
                cid: Some(cid),
                limit: Some(args.limit as u64),
                ..Filter::default()
            };
            dump::rows(context, None, filter, |row| match row {
                Row::Providers { provider, addresses, .. } => rows.push(&Peer { peer: provider, addresses }),
                _ => Ok(()),
            })
            .await?;
        }
    }
    if rows.finish()? == 0 {
        context.notice("no providers found; `dhtstore diagnose CID` explains why");
    }
    Ok(())
}

/// Prints a row to stdout, and with `-v` an event to stderr.
pub(super) fn show(item: Item<'_>, rows: &mut Rows, context: &Context) -> Result<()> {
    match item {
        Item::Row(row) => {
            rows.push(&row.parse::<Peer>()?)?;
            rows.flush()
        }
        Item::Event(event) => tell(event.parse()?, context),
    }
}

/// Prints a step of a query on stderr, with `-v`.
pub(super) fn tell(event: Event, context: &Context) -> Result<()> {
    if context.verbose() {
        match event {
            Event::Asking { dht, peer } => context.notice(format_args!("* {dht}: asking {peer}")),
            Event::Answered { dht, peer, closer, providers, took_ms } => context.notice(format_args!(
                "* {dht}: {peer} names {closer} closer peers and {providers} providers ({took_ms} ms)"
            )),
            Event::Failed { dht, peer, error } => context.notice(format_args!("* {dht}: {peer}: {error}")),
            Event::Provider { dht, provider, from, .. } => {
                context.notice(format_args!("* {dht}: provider {provider}, named by {from}"));
            }
            // Events of `get` and `put` only.
            Event::Value { .. } | Event::Put { .. } => {}
        }
    }
    Ok(())
}
