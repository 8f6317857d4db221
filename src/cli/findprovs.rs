//! `dhtstore findprovs`

use super::{
    Context,
    ask::{Item, Server},
    dump,
    error::{CliError, Result},
    output::{Format, FormatArg, Rows, Schema},
};
use crate::{
    control::protocol::{Peer, Request},
    node::query::Event,
    provide::cids,
    store::dump::{Filter, Row, Table},
};

/// Columns of a peer.
pub(super) const PEER: Schema = Schema { columns: &["peer", "addresses"], id: "peer" };

/// Arguments of `dhtstore findprovs`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Piped, it prints one peer id per line, as `ipfs routing findprovs` does. -v shows every step on stderr.")]
pub struct Args {
    /// The CID
    cid: String,
    /// Stop after so many providers
    #[arg(short = 'n', long = "num-providers", value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Ask this node only: what does it store? Works on a stopped node too
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    format: FormatArg,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let cid = cids::parse(&args.cid).map_err(|error| CliError::data(format_args!("{}: {error}", args.cid)))?;
    let format = args.format.resolve_or(context, Format::Ids);
    let mut rows = Rows::stdout(format, PEER);
    let server =
        if args.local { Server::connect_if_running(context).await? } else { Some(Server::connect(context).await?) };
    match server {
        Some(mut server) => {
            let request = Request::FindProviders { cid: cid.to_string(), limit: args.limit, local: args.local };
            server.ask::<usize>(&request, |item| show(item, &mut rows, context)).await?;
        }
        None => {
            let filter = Filter {
                tables: vec![Table::Providers],
                cid: Some(cid.to_string()),
                limit: Some(args.limit as u64),
                ..Filter::default()
            };
            dump::stopped(context, filter, false, |row| match row {
                Row::Providers { provider, addresses, .. } => rows.push(&Peer { peer: provider, addresses }),
                _ => Ok(()),
            })
            .await?;
        }
    }
    if rows.finish()? == 0 {
        context.notice("no providers found; `dhtstore diagnose` tells why");
    }
    Ok(())
}

/// A row to stdout; an event to stderr if `-v` asks for it.
pub(super) fn show(item: Item<'_>, rows: &mut Rows, context: &Context) -> Result<()> {
    match item {
        Item::Row(row) => {
            rows.push(&row.parse::<Peer>()?)?;
            rows.flush()
        }
        Item::Event(event) => tell(event.parse()?, context),
    }
}

/// A hop of a query on stderr, with `-v`.
pub(super) fn tell(event: Event, context: &Context) -> Result<()> {
    if context.verbose() {
        match event {
            Event::Asking { dht, peer } => context.notice(format_args!("* {dht}: asking {peer}")),
            Event::Answered { dht, peer, closer, providers, took_ms } => context.notice(format_args!(
                "* {dht}: {peer} names {closer} closer peers and {providers} providers ({took_ms} ms)"
            )),
            Event::Failed { dht, peer, error } => context.notice(format_args!("* {dht}: {peer}: {error}")),
            Event::Provider { dht, provider, from, .. } => {
                context.notice(format_args!("* {dht}: provider {provider}, says {from}"));
            }
        }
    }
    Ok(())
}
