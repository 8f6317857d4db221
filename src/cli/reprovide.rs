//! `dhtstore reprovide`

use super::{
    Context,
    error::{CliError, Result},
    output::{self, FormatArg},
    provide,
};
use crate::control::protocol::Which;
use serde::Serialize;

/// Arguments of `dhtstore reprovide`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The server does this by itself: each CID every reprovide.interval. Exit 1 if a CID was confirmed by no server.")]
pub struct Args {
    /// Afterwards ask the closest servers of some CIDs back whether they hold the records
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    format: FormatArg,
}

#[derive(Debug, Serialize)]
struct Report {
    cids: u64,
    announced: u64,
    unconfirmed: u64,
    servers: u64,
    lookups: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified_asked: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified_holding: Option<u64>,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let done = provide::watch(Which::All, context).await?;
    let verified = if args.verify { Some(provide::ask_back(context).await?) } else { None };
    let report = Report {
        cids: done.total,
        announced: done.announced,
        unconfirmed: done.total.saturating_sub(done.announced),
        servers: done.servers,
        lookups: done.lookups,
        verified_asked: verified.map(|(asked, _)| asked),
        verified_holding: verified.map(|(_, holding)| holding),
    };
    output::print_object(&report, args.format.resolve(context))?;
    match report.unconfirmed {
        0 => Ok(()),
        _ if done.offline => {
            Err(CliError::other("no server is known to announce to: `dhtstore connect MULTIADDR`, or set bootstrap"))
        }
        unconfirmed => Err(CliError::other(format_args!(
            "{unconfirmed} CIDs were confirmed by no server; they stay due, see `dhtstore stat`"
        ))),
    }
}
