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

use crate::config::{Config, Profile, file::Sources};
use clap::{
    ArgAction, Parser, Subcommand, ValueEnum,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use error::{CliError, Code, Result};
use std::{
    fmt,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::OnceLock,
    time::Duration,
};

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

/// Options that every command takes.
#[derive(clap::Args, Clone, Default, Debug)]
pub struct Global {
    /// Configuration file [default: dhtstore.toml in the data directory, else /etc/dhtstore/dhtstore.toml for root or
    /// ~/.config/dhtstore/dhtstore.toml]
    #[arg(long, global = true, value_name = "FILE", env = "DHTSTORE_CONFIG", help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// Data directory [default: ~/.local/state/dhtstore; /var/lib/dhtstore for root and the service]
    #[arg(long, global = true, value_name = "DIR", env = "DHTSTORE_DATA_DIR", help_heading = "Global options")]
    pub data_dir: Option<PathBuf>,
    /// Change one setting for this run, as `records.ttl=3h`; wins over environment and file; may be repeated
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", help_heading = "Global options")]
    pub set: Vec<String>,
    /// How log lines look on stderr
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t, help_heading = "Global options")]
    pub log_format: LogFormat,
    /// Say more; twice: even more (RUST_LOG has the last word on what is logged)
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
    /// Say less: no notices and progress on stderr; twice: errors only
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "verbose", help_heading = "Global options")]
    pub quiet: u8,
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

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

/// What a command knows of its surroundings. The configuration is loaded when first asked for.
#[derive(Debug)]
pub struct Context {
    /// The global options as given.
    pub global: Global,
    /// Whether stdout is a terminal: decides on the default output format.
    pub stdout_is_terminal: bool,
    /// Whether stderr is a terminal: decides on progress bars and colour.
    pub stderr_is_terminal: bool,
    config: OnceLock<Config>,
}

impl Context {
    /// Surroundings of this process.
    pub fn new(global: Global) -> Self {
        Self {
            global,
            stdout_is_terminal: std::io::stdout().is_terminal(),
            stderr_is_terminal: std::io::stderr().is_terminal(),
            config: OnceLock::new(),
        }
    }

    /// Where settings come from for this command line.
    pub fn sources(&self) -> Sources {
        Sources {
            file: self.global.config.clone(),
            data_dir: self.global.data_dir.clone(),
            set: self.global.set.clone(),
        }
    }

    /// The effective, validated configuration. Exit 78 if it is wrong. Loaded once.
    pub fn config(&self) -> Result<&Config> {
        if let Some(config) = self.config.get() {
            return Ok(config);
        }
        let config = self.sources().load()?;
        Ok(self.config.get_or_init(|| config))
    }

    /// The data directory: flag, else environment, else file, else the platform's.
    pub fn data_dir(&self) -> Result<&Path> {
        Ok(&self.config()?.data_dir)
    }

    /// Tells the user something on stderr that is neither data nor an error; silent with `-q`.
    pub fn notice(&self, text: impl fmt::Display) {
        if self.global.quiet == 0 {
            // If stderr is gone there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// Whether `-v` was given: `findprovs -v` shows every hop.
    pub fn verbose(&self) -> bool {
        self.global.verbose > 0
    }
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
