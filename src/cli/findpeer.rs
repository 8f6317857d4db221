//! `dhtstore findpeer`

use super::{
    Context,
    ask::{Item, Server},
    error::{CliError, Result},
    findprovs,
    output::{Format, FormatArg, Rows, Schema},
};
use crate::{
    control::protocol::{Peer, Request},
    kad::peer_id::parse_peer_id,
};
use libp2p::PeerId;
use serde_json::json;

/// Arguments of `dhtstore findpeer`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
In a pipe it prints one address per line, like `ipfs routing findpeer`. Exit 1: no server knows the peer.")]
pub struct Args {
    /// Peer id, in any form (12D3…, Qm…, k51…, bafz…)
    peer: String,
    #[command(flatten)]
    format: FormatArg,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let peer: PeerId = parse_peer_id(&args.peer)
        .map_err(|error| CliError::data(format_args!("cannot find {}: {error}", args.peer)))?;
    let format = args.format.resolve_or(context, Format::Ids);
    let mut rows = Rows::stdout(format, Schema { columns: &["address"], id: "address" });
    let mut found = None;
    let each = |item: Item<'_>| {
        match item {
            Item::Row(row) => found = Some(row.parse::<Peer>()?),
            Item::Event(event) => findprovs::tell(event.parse()?, context)?,
        }
        Ok(())
    };
    let request = Request::FindPeer { peer: peer.to_string() };
    Server::connect(context).await?.ask::<usize>(&request, each).await?;
    let Some(found) = found else {
        return Err(CliError::other(format_args!(
            "cannot find {peer}: no server knows it; check the peer id, and that the peer is online and uses the DHT"
        )));
    };
    for address in &found.addresses {
        rows.push(&json!({ "peer": found.peer, "address": address }))?;
    }
    if rows.finish()? == 0 {
        context.notice("the peer is known, but its addresses are not");
    }
    Ok(())
}
