//! The command line: one file per command.
//!
//! Every command module has `pub struct Args` (clap) and `pub async fn execute(args: Args, context: &Context) -> Result<()>`.
//! Data goes to stdout through [`output`], everything else to stderr; failures are [`error::CliError`]s with an exit code.

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
    /// Options that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Reads `--profile`.
fn profile_parser() -> impl TypedValueParser<Value = Profile> {
    let of = |profile: Profile| {
        PossibleValue::new(profile.name()).help(match profile {
            Profile::Private => "A network of one's own: any address, records for 12 h, no bootstrappers",
            Profile::Amino => {
                "The public DHT: public addresses, records for 48 h (PRV-5), the public bootstrappers, IP diversity (RT-6)"
            }
        })
    };
    PossibleValuesParser::new(Profile::ALL.map(of))
        .map(|name| if name == Profile::Amino.name() { Profile::Amino } else { Profile::Private })
}

const AFTER_HELP: &str = "\
Examples:
  dhtstore run                       start a node with the defaults
  dhtstore init --private            make a private network and tell how Kubo nodes join it
  dhtstore findprovs CID             who provides this content?
  dhtstore diagnose CID              why is it not found?
  dhtstore dump providers | head     what does this node store?

Exit codes: 0 done, 1 other failure, 64 usage, 65 bad data, 66 no such database,
69 server not reachable, 73 cannot create, 75 locked (try again), 78 configuration.";

/// The commands, in the order in which help lists them.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Create the data directory and an identity; optionally a private network, or take over a Kubo node
    Init(init::Args),
    /// Run the node
    Run(run::Args),
    /// Show peer id and addresses
    Id(id::Args),
    /// Check or show the configuration
    Config(config::Args),
    /// Show what the node is doing: records, routing table, jobs, disk
    Stat(stat::Args),
    /// List connected peers
    Peers(peers::Args),
    /// Connect to a peer
    Connect(connect::Args),
    /// Announce CIDs, and keep them announced
    Provide(provide::Args),
    /// Stop announcing CIDs
    Unprovide(unprovide::Args),
    /// List the CIDs that this node keeps announced
    Provided(provided::Args),
    /// Announce own CIDs again, now
    Reprovide(reprovide::Args),
    /// Find who provides a CID
    Findprovs(findprovs::Args),
    /// Find the addresses of a peer
    Findpeer(findpeer::Args),
    /// Get a value: where an IPNS name points, or a public key
    Get(get::Args),
    /// Put a value: an IPNS record, or a public key
    Put(put::Args),
    /// List the servers closest to a key
    Closest(closest::Args),
    /// Tell why a CID is (not) found
    Diagnose(diagnose::Args),
    /// Print what the node stores, running or stopped
    Dump(dump::Args),
    /// Take in what `dump` wrote, running or stopped
    Load(load::Args),
    /// Write all that makes this node what it is into one file, running or stopped
    Backup(backup::Args),
    /// Make a data directory of a backup, on another machine or after a loss
    Restore(restore::Args),
    /// Verify everything that the node stores, and change nothing
    Check(check::Args),
    /// Write the databases of a stopped node anew, to give space back
    Compact(compact::Args),
    /// Bring the database to the schema of this program, or tell what that takes
    Migrate(migrate::Args),
}

impl Command {
    /// Whether this process is the server: it logs at `info`, the others at `warn`.
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

/// Tasks that a thread runs between two looks at the network, and between two at the tasks that wait for any thread. tokio's own (61,
/// and up to 127) serve whoever asked last: of 2,000 connections that all ask at once half got their answers within 10 ms,
/// and one in a hundred waited for 123 to 147. With these it is 15 to 19, and 88 to 105 (`cargo bench --bench wire -- many`).
const EVENT_INTERVAL: u32 = 200;
const GLOBAL_QUEUE_INTERVAL: u32 = 4;

/// How long threads may go on once the command has ended.
const LAST_THREADS: Duration = Duration::from_secs(5);

/// Parses the command line, runs the command, reports its failure. What `main` returns.
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
        .map_err(|e| CliError::other(format_args!("cannot start the runtime: {e}")))
        .and_then(|runtime| {
            let result = runtime.block_on(cli.command.execute(&context));
            // What still blocks a thread has nobody left to wait for it.
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

/// Help and version are what was asked for (0); anything else that clap says is a usage error (64).
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
