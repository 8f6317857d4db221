//! `dhtstore connect`

use super::{
    Context,
    ask::Server,
    error::{CliError, Result},
    output::{self, FormatArg},
};
use crate::{
    control::protocol::{Peer, Request},
    kad::peer_id::{parse_multiaddr, parse_peer_id},
};

/// Arguments of `dhtstore connect`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples: dhtstore connect /ip4/192.0.2.7/tcp/4001/p2p/12D3Koo…
          dhtstore connect 12D3Koo…      looks up where it is")]
pub struct Args {
    /// Where the peer is; best with `/p2p/…`, so that nobody else can answer there. Or its peer id alone
    address: String,
    #[command(flatten)]
    format: FormatArg,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let address = match (parse_peer_id(&args.address), parse_multiaddr(&args.address)) {
        (Ok(peer), _) => format!("/p2p/{peer}"),
        (_, Ok(addr)) => addr.to_string(),
        (_, Err(error)) => return Err(CliError::data(format_args!("{}: not a multiaddr: {error}", args.address))),
    };
    let request = Request::Connect { address };
    let peer: Peer = Server::connect(context).await?.ask(&request, |_| Ok(())).await?;
    output::print_object(&peer, args.format.resolve(context))
}
