//! The command line: one file per command.
//!
//! Every command module has `pub struct Args` (clap) and
//! `pub async fn execute(args: Args, context: &Context) -> Result<()>`.
//! Data goes to stdout through [`output`], everything else to stderr. Failures are [`error::CliError`]s with an exit
//! code.

pub mod ask;
pub mod backup;
pub mod check;
pub mod cid_list;
pub mod closest;
pub mod compact;
pub mod config;
pub mod connect;
mod context;
pub mod diagnose;
pub mod dump;
pub mod error;
pub mod findpeer;
pub mod findprovs;
pub mod get;
pub mod id;
pub mod init;
pub mod load;
pub mod logging;
pub mod migrate;
pub mod output;
pub mod peers;
pub mod provide;
pub mod provided;
pub mod put;
pub mod reprovide;
pub mod restore;
pub mod run;
pub mod stat;
pub mod unprovide;

pub use context::{Context, Global, LogFormat};

use crate::config::Profile;
use clap::{
    Parser, Subcommand,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use error::{CliError, Code, Result};
use std::{process::ExitCode, time::Duration};

/// A persistent provider-record server for the IPFS Kademlia DHT.
#[derive(Parser, Debug)]
#[command(name = "dhtstore", version, max_term_width = 120, after_help = AFTER_HELP)]
pub struct Cli {
    /// The global options.
    #[command(flatten)]
    pub global: Global,
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// Parses `--profile`.
fn profile_parser() -> impl TypedValueParser<Value = Profile> {
    let of = |profile: Profile| {
        PossibleValue::new(profile.name()).help(match profile {
            Profile::Private => "Your own network: any address, records kept for 12 h, no bootstrap peers",
            Profile::Amino => {
                "The public DHT: public addresses only, records kept for 48 h (PRV-5), the public bootstrap peers, IP \
                 diversity (RT-6)"
            }
        })
    };
    PossibleValuesParser::new(Profile::ALL.map(of))
        .map(|name| if name == Profile::Amino.name() { Profile::Amino } else { Profile::Private })
}

const AFTER_HELP: &str = "\
Examples:
  dhtstore run                       start a node with the defaults
  dhtstore init --private            make a private network; prints how Kubo nodes join it
  dhtstore findprovs CID             find the providers of this content
  dhtstore diagnose CID              explain why it is not found
  dhtstore dump providers | head     print what this node stores

Exit codes: 0 done, 1 other failure, 64 usage, 65 bad data, 66 no such database,
69 server not reachable, 73 cannot create or read, 75 locked (try again), 78 configuration.";

/// The commands, in the order in which help lists them.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Create a data directory with a new or imported identity
    Init(init::Args),
    /// Run the node
    Run(run::Args),
    /// Show the peer id and addresses
    Id(id::Args),
    /// Check or show the configuration
    Config(config::Args),
    /// Show records, routing tables, jobs, limits and disk use
    Stat(stat::Args),
    /// List connected peers
    Peers(peers::Args),
    /// Connect to a peer
    Connect(connect::Args),
    /// Announce CIDs and keep them announced
    Provide(provide::Args),
    /// Stop announcing CIDs
    Unprovide(unprovide::Args),
    /// List the CIDs that this node keeps announced
    Provided(provided::Args),
    /// Announce all own CIDs again now
    Reprovide(reprovide::Args),
    /// Find the providers of a CID
    Findprovs(findprovs::Args),
    /// Find the addresses of a peer
    Findpeer(findpeer::Args),
    /// Get an IPNS record or a public key
    Get(get::Args),
    /// Publish an IPNS record or a public key
    Put(put::Args),
    /// List the servers closest to a key
    Closest(closest::Args),
    /// Explain why a CID is found or not
    Diagnose(diagnose::Args),
    /// Print what the node stores
    Dump(dump::Args),
    /// Load a dump into this node
    Load(load::Args),
    /// Back up this node into one file
    Backup(backup::Args),
    /// Make a data directory from a backup
    Restore(restore::Args),
    /// Verify everything that the node stores
    Check(check::Args),
    /// Rewrite a stopped node's databases to free disk space
    Compact(compact::Args),
    /// Upgrade the databases to this program's schema
    Migrate(migrate::Args),
}

impl Command {
    /// Returns whether this process is the server. The server logs at `info`, other commands at `warn`.
    fn is_server(&self) -> bool {
        matches!(self, Command::Run(_))
    }

    async fn execute(self, context: &Context) -> Result<()> {
        match self {
            Command::Init(args) => init::execute(args, context).await,
            Command::Run(args) => run::execute(args, context).await,
            Command::Id(args) => id::execute(args, context).await,
            Command::Config(args) => config::execute(args, context).await,
            Command::Stat(args) => stat::execute(args, context).await,
            Command::Peers(args) => peers::execute(args, context).await,
            Command::Connect(args) => connect::execute(args, context).await,
            Command::Provide(args) => provide::execute(args, context).await,
            Command::Unprovide(args) => unprovide::execute(args, context).await,
            Command::Provided(args) => provided::execute(args, context).await,
            Command::Reprovide(args) => reprovide::execute(args, context).await,
            Command::Findprovs(args) => findprovs::execute(args, context).await,
            Command::Findpeer(args) => findpeer::execute(args, context).await,
            Command::Get(args) => get::execute(args, context).await,
            Command::Put(args) => put::execute(args, context).await,
            Command::Closest(args) => closest::execute(args, context).await,
            Command::Diagnose(args) => diagnose::execute(args, context).await,
            Command::Dump(args) => dump::execute(args, context).await,
            Command::Load(args) => load::execute(args, context).await,
            Command::Backup(args) => backup::execute(args, context).await,
            Command::Restore(args) => restore::execute(args, context).await,
            Command::Check(args) => check::execute(args, context).await,
            Command::Compact(args) => compact::execute(args, context).await,
            Command::Migrate(args) => migrate::execute(args, context).await,
        }
    }
}

/// Tasks polled between two checks of the I/O driver. With tokio's intervals (61 here, up to 127 for the global queue)
/// a late request is served before earlier ones. Measured with 2,000 connections that all ask at once: with tokio's
/// intervals, half of the answers came within 10 ms, and one in a hundred took 123 to 147 ms. With the two intervals
/// set here, half come within 15 to 19 ms, and one in a hundred takes 88 to 105 ms
/// (`cargo bench --bench wire -- many`).
const EVENT_INTERVAL: u32 = 200;
/// Tasks polled between two checks of the global queue.
const GLOBAL_QUEUE_INTERVAL: u32 = 4;

/// Time that blocking threads have to finish after the command has ended.
const LAST_THREADS: Duration = Duration::from_secs(5);

/// Parses the command line, runs the command and reports its failure. Returns the exit code of the process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let log = logging::init(&cli.global, cli.command.is_server());
    let context = Context::new(cli.global);
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .global_queue_interval(GLOBAL_QUEUE_INTERVAL)
        .build()
        .map_err(|e| {
            CliError::other(format_args!(
                "cannot start worker threads: {e}; raise the limits on processes and memory (`ulimit -u`, `ulimit -v`)"
            ))
        })
        .and_then(|runtime| {
            let result = runtime.block_on(cli.command.execute(&context));
            // Threads that still block after this time are abandoned.
            runtime.shutdown_timeout(LAST_THREADS);
            result
        });
    let (code, last) = match result {
        Ok(()) => (Code::Ok, None),
        Err(error) => (error.code(), (!error.is_closed_pipe()).then(|| format!("error: {error}"))),
    };
    log.end(last);
    code.into()
}

/// Prints what clap says. Help and version exit with 0, a usage error with 64.
fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { Code::Usage.into() } else { Code::Ok.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
