//! `dhtstore closest`

use super::{
    Context,
    ask::{Item, Server},
    error::{CliError, Result},
    findprovs,
    output::{FormatArg, Rows, Schema},
};
use crate::{
    control::protocol::{Closest, Request},
    kad::cids,
};

const COLUMNS: Schema = Schema { columns: &["dht", "peer", "cpl", "distance", "addresses"], id: "peer" };

/// Arguments of `dhtstore closest`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Lists the servers that should hold a record of the key: in each DHT, the k closest by XOR distance.
cpl is the common prefix length of server and key, in bits.")]
pub struct Args {
    /// A CID, a multihash (base58 or base16), or a peer id
    key: String,
    /// Use only the routing tables from which this node answers other peers; ask no other node
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    format: FormatArg,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    cids::parse_key(&args.key).map_err(|error| CliError::data(format_args!("cannot look up {}: {error}", args.key)))?;
    let mut rows = Rows::stdout(args.format.resolve(context), COLUMNS);
    let each = |item: Item<'_>| match item {
        Item::Row(row) => rows.push(&row.parse::<Closest>()?),
        Item::Event(event) => findprovs::tell(event.parse()?, context),
    };
    Server::connect(context).await?.ask::<usize>(&Request::Closest { key: args.key, local: args.local }, each).await?;
    if rows.finish()? == 0 {
        context
            .notice("this node knows no servers; join a network with `dhtstore connect MULTIADDR`, or set `bootstrap`");
    }
    Ok(())
}
