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
The server also announces each CID by itself, every reprovide.interval. Exit 1: no server confirmed a CID.")]
pub struct Args {
    /// Then ask the closest servers of some CIDs whether they hold the records
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
        _ if done.offline => Err(CliError::other(
            "cannot announce: no server is known; join a network with `dhtstore connect MULTIADDR`, or set `bootstrap`",
        )),
        unconfirmed => Err(CliError::other(format_args!(
            "cannot announce {unconfirmed} CIDs: no server confirmed them; they are tried again, see `dhtstore stat`"
        ))),
    }
}
