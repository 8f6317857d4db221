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
          dhtstore connect 12D3Koo…      looks up the addresses of the peer")]
pub struct Args {
    /// Multiaddr of the peer, best with `/p2p/ID` so that no other peer is accepted; or a peer id alone
    address: String,
    #[command(flatten)]
    format: FormatArg,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let address = match (parse_peer_id(&args.address), parse_multiaddr(&args.address)) {
        (Ok(peer), _) => format!("/p2p/{peer}"),
        (_, Ok(addr)) => addr.to_string(),
        (_, Err(error)) => {
            return Err(CliError::data(format_args!(
                "cannot connect to {}: it is neither a peer id nor a multiaddr ({error}); write it like \
                 /ip4/192.0.2.7/tcp/4001/p2p/12D3Koo…",
                args.address
            )));
        }
    };
    let request = Request::Connect { address };
    let peer: Peer = Server::connect(context).await?.ask(&request, |_| Ok(())).await?;
    output::print_object(&peer, args.format.resolve(context))
}
