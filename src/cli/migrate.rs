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
The node must be stopped. `dhtstore run` takes the same steps at its start, once own CIDs are exported.
Exit 78: the database is from a newer program; it stays unchanged.

Examples:
  dhtstore migrate --status
  dhtstore migrate --dry-run     needs space for a copy of the databases in TMPDIR
  dhtstore migrate")]
pub struct Args {
    /// Only show the schemas of the database and of this program, and the steps between them
    #[arg(long, conflicts_with = "dry_run")]
    status: bool,
    /// Take the steps on a copy and compare its contents; the data directory stays unchanged
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    format: FormatArg,
}

/// The schemas, the steps and the outcome.
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
                "nothing to migrate: the server is running, and took all steps when it started; to check, use --status",
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
            (true, _) => "nothing to do".into(),
            (false, true) => "the steps were taken on a copy; the data directory is unchanged".into(),
            (false, false) => "done".into(),
        });
        (report.records, report.own_cids) = (Some(done.records), Some(done.own_cids));
        match done.notes.as_slice() {
            [] => Ok(report),
            notes => Err(CliError::data(format_args!(
                "found faults in the databases: {}; run `dhtstore check` for the details",
                notes.join("; ")
            ))),
        }
    };
    let report = tokio::task::block_in_place(work)?;
    output::print_object(&report, format)
}
