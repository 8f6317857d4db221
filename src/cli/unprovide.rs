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
The DHT has no message that removes a record, so other servers serve theirs until the ttl ends.

Examples:
  dhtstore unprovide bafy…
  dhtstore provided --format ids | dhtstore unprovide -      stop announcing all")]
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
        "the CIDs are no longer announced; other servers keep their records until the ttl ends (by default 12h on \
         dhtstore, 48h on the public network)",
    );
    output::print_object(&report, args.format.resolve(context))
}
