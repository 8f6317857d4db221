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
    after_help = "The columns wan and lan show whether the peer is a server of the WAN DHT (public addresses) and of \
                  the LAN DHT (local addresses). `dhtstore stat` shows the mode of this node itself."
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
        context.notice("no peer is connected; connect one with `dhtstore connect MULTIADDR`");
    }
    Ok(())
}
