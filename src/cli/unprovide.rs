//! `dhtstore unprovide`

use super::{
    Context,
    ask::Server,
    cid_list::CidArgs,
    error::Result,
    output::{self, FormatArg},
};
use crate::control::protocol::{Request, Unprovided};
use serde::Serialize;

/// Arguments of `dhtstore unprovide`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The DHT has no message to take a record back: servers that hold one serve it until its ttl.

Examples:
  dhtstore unprovide bafy…
  dhtstore provided --format ids | dhtstore unprovide -      all of them")]
pub struct Args {
    #[command(flatten)]
    cids: CidArgs,
    #[command(flatten)]
    format: FormatArg,
}

#[derive(Debug, Serialize)]
struct Report {
    cids: u64,
    removed: u64,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let mut list = args.cids.read_for_server(context).await?;
    let mut report = Report { cids: list.len(), removed: 0 };
    let bar = output::progress(context, Some(list.len()), "removing");
    for cids in list.chunks()? {
        let cids = cids?;
        let count = cids.len() as u64;
        let done: Unprovided = Server::connect(context).await?.ask(&Request::Unprovide { cids }, |_| Ok(())).await?;
        report.removed += done.removed;
        bar.inc(count);
    }
    bar.finish_and_clear();
    context.notice(
        "they are announced no longer; records that servers hold already live on until their ttl (12h by default on \
         dhtstore, 48h on the public network)",
    );
    output::print_object(&report, args.format.resolve(context))
}
