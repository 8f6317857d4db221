//! `dhtstore peers`

use super::{
    Context,
    ask::Server,
    error::Result,
    output::{FormatArg, Rows, Schema},
};
use crate::control::protocol::{ConnectedPeer, Request};

const COLUMNS: Schema =
    Schema { columns: &["peer", "address", "inbound", "wan", "lan", "ping_ms", "connected_s", "agent"], id: "peer" };

/// Arguments of `dhtstore peers`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "wan and lan: whether the peer is a server of the public-style and of the local DHT; what this node \
                         is, and why, stands in `dhtstore stat`."
)]
pub struct Args {
    #[command(flatten)]
    format: FormatArg,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let mut rows = Rows::stdout(args.format.resolve(context), COLUMNS);
    Server::connect(context).await?.rows(&Request::Peers, |peer: ConnectedPeer| rows.push(&peer)).await?;
    if rows.finish()? == 0 {
        context.notice("no peer is connected");
    }
    Ok(())
}
