//! `dhtstore migrate`

use super::{
    Context,
    ask::Server,
    dump,
    error::{CliError, Result},
    output::{self, FormatArg},
};
use crate::{clock::SystemClock, control::protocol::Request, control::protocol::Stat, store::migration};
use serde::Serialize;

/// Arguments of `dhtstore migrate`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
A start does the same by itself, once own CIDs are exported. A database of a newer program is left untouched: exit 78.

Examples:
  dhtstore migrate --status
  dhtstore migrate --dry-run     on a copy, which needs as much space as the databases, below TMPDIR
  dhtstore migrate")]
pub struct Args {
    /// Only tell the schema of the database, that of this program and the steps between them
    #[arg(long, conflicts_with = "dry_run")]
    status: bool,
    /// Take the steps on a copy and compare what it holds; the directory stays as it is
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    format: FormatArg,
}

/// What is, and what was done.
#[derive(Debug, Serialize)]
struct Report {
    schema: Option<u32>,
    program: u32,
    steps: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    own_cids: Option<u64>,
}

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    let format = args.format.resolve(context);
    let config = context.config()?;
    if let Some(mut server) = Server::connect_if_running(context).await? {
        if !args.status {
            return Err(CliError::try_again(
                "the server is running, and took all steps when it started; stop it first",
            ));
        }
        let stat: Stat = server.ask(&Request::Stat, |_| Ok(())).await?;
        let report = Report {
            schema: Some(stat.store.schema),
            program: migration::SCHEMA,
            steps: Vec::new(),
            outcome: None,
            records: None,
            own_cids: None,
        };
        return output::print_object(&report, format);
    }
    dump::not_in_use(config)?;
    let (dir, settings) = (&config.data_dir, config.store_settings());
    let work = || -> Result<Report> {
        let status = migration::status(dir)?;
        let mut report = Report {
            schema: status.found,
            program: migration::SCHEMA,
            steps: status.steps.iter().map(|step| format!("{step} (migrations/{step}.md)")).collect(),
            outcome: None,
            records: None,
            own_cids: None,
        };
        if args.status {
            return Ok(report);
        }
        let done = match args.dry_run {
            true => migration::dry_run(dir, settings, SystemClock::new())?,
            false => migration::take(dir, settings, SystemClock::new())?,
        };
        report.outcome = Some(match (status.steps.is_empty(), args.dry_run) {
            (true, _) => "nothing is to be done".into(),
            (false, true) => "the steps were taken on a copy; the directory is as it was".into(),
            (false, false) => "done".into(),
        });
        (report.records, report.own_cids) = (Some(done.records), Some(done.own_cids));
        match done.notes.as_slice() {
            [] => Ok(report),
            notes => Err(CliError::data(format_args!(
                "the databases do not say all that they should: {}; see `dhtstore check`",
                notes.join("; ")
            ))),
        }
    };
    let report = tokio::task::block_in_place(work)?;
    output::print_object(&report, format)
}
