//! `dhtstore connect`

use super::{
    Context,
    ask::Server,
    error::{CliError, Result},
    output::{self, FormatArg},
};
use crate::control::protocol::{Peer, Request};
use libp2p::Multiaddr;

/// Arguments of `dhtstore connect`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: dhtstore connect /ip4/192.0.2.7/tcp/4001/p2p/12D3Koo…")]
pub struct Args {
    /// Where the peer is; best with `/p2p/…`, so that nobody else can answer there
    address: String,
    #[command(flatten)]
    format: FormatArg,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let addr: Multiaddr = args
        .address
        .parse()
        .map_err(|error| CliError::data(format_args!("{}: not a multiaddr: {error}", args.address)))?;
    let request = Request::Connect { address: addr.to_string() };
    let peer: Peer = Server::connect(context).await?.ask(&request, |_| Ok(())).await?;
    output::print_object(&peer, args.format.resolve(context))
}
