//! `dhtstore stat`

mod plan;

use super::{
    Context,
    ask::Server,
    error::Result,
    output::{self, human_bytes, human_duration},
};
use crate::{
    clock::UnixTime,
    control::protocol::{Request, Stat},
    schedule::JobStatus,
};
use plan::Plan;
use serde::Serialize;
use std::{fmt::Write, time::Duration};

/// How figures are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum StatFormat {
    /// For people. The default on a terminal.
    Table,
    /// One JSON object on one line. The default when piped.
    #[value(alias = "ndjson")]
    Json,
    /// The jobs as comma-separated values.
    Csv,
}

/// Arguments of `dhtstore stat`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  dhtstore stat
  dhtstore stat --format json | jq .store.records
  dhtstore stat --plan 1500 48h      what the public DHT would take")]
pub struct Args {
    /// Ask no server: print the memory, disk and replay time that so many announcements a second and a ttl take
    #[arg(long, num_args = 2, value_names = ["RATE", "TTL"])]
    plan: Option<Vec<String>>,
    /// Output format [default: table on a terminal, json when piped]
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<StatFormat>,
}

const JOBS: output::Schema =
    output::Schema { columns: &["job", "last", "took_ms", "ok", "outcome", "next", "cron", "interval_s"], id: "job" };

/// Runs the command.
pub async fn execute(args: Args, context: &Context) -> Result<()> {
    if let Some([rate, ttl]) = args.plan.as_deref() {
        let plan = Plan::parse(rate, ttl)?;
        return match args.format {
            Some(StatFormat::Table) => output::print(plan.text()),
            None if context.stdout_is_terminal => output::print(plan.text()),
            Some(StatFormat::Csv) => output::print_object(&plan, output::Format::Csv),
            _ => output::print_object(&plan, output::Format::Ndjson),
        };
    }
    let stat: Stat = Server::connect(context).await?.ask(&Request::Stat, |_| Ok(())).await?;
    let piped = if context.stdout_is_terminal { StatFormat::Table } else { StatFormat::Json };
    match args.format.unwrap_or(piped) {
        StatFormat::Json => output::print_object(&stat, output::Format::Ndjson),
        StatFormat::Csv => {
            let mut rows = output::Rows::stdout(output::Format::Csv, JOBS);
            stat.jobs.iter().try_for_each(|job| rows.push(job))?;
            rows.finish().map(drop)
        }
        StatFormat::Table => {
            output::print(text(&stat))?;
            jobs(&stat.jobs)
        }
    }
}

fn text(stat: &Stat) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name:<14}{value}");
    };
    line("Peer id", stat.peer.clone());
    line("Profile", stat.profile.clone());
    line("Mode", format!("{}: {}", stat.mode.name(), stat.mode_why));
    line("Up", format!("{}, version {}", human_duration(Duration::from_secs(stat.uptime_s)), stat.version));
    for address in &stat.listening {
        line("Listening", address.clone());
    }
    line("Connections", stat.connections.to_string());
    let load = &stat.load;
    line("Open streams", format!("{}, {} half read or unwritten", load.inbound_streams, human_bytes(load.read_bytes)));
    let store = &stat.store;
    line("Records", format!("{} of {} CIDs, from {} peers", store.records, store.keys, store.peers));
    line("Values", format!("{}, {}", store.values, human_bytes(store.values_bytes)));
    if let (Some(oldest), Some(newest)) = (store.oldest, store.newest) {
        line("Received", format!("{} to {}", UnixTime(oldest), UnixTime(newest)));
    }
    if store.replayed < 1.0 {
        line("Replay", format!("{:.0} % of the log", store.replayed * 100.0));
    }
    if let Some(reason) = &store.gc_paused {
        line("GC waits", reason.clone());
    }
    line(
        "On disk",
        format!(
            "records {}, node {}, exports {}",
            human_bytes(store.records_bytes_on_disk),
            human_bytes(store.node_bytes_on_disk),
            human_bytes(store.exports_bytes_on_disk)
        ),
    );
    line("Exported", store.exported_to.map_or("never".into(), |to| format!("records to {}", UnixTime(to))));
    let own = &stat.reprovide;
    let mut announcing = format!("{}, {} due, {} announced since start", store.provided, own.due, own.announced);
    if own.sweeping {
        announcing += ", sweep under way";
    }
    if own.offline && own.due > 0 {
        announcing += ", no servers known";
    }
    line("Own CIDs", announcing);
    if let Some(since) = own.behind_since {
        line("Behind since", UnixTime(since).to_string());
    }
    for table in &stat.tables {
        let buckets: Vec<String> = table.buckets.iter().map(|(cpl, peers)| format!("{cpl}:{peers}")).collect();
        let buckets = if buckets.is_empty() { String::new() } else { format!("; by cpl {}", buckets.join(" ")) };
        line(&format!("Table {}", table.dht), format!("{} peers{buckets}", table.peers));
    }
    for note in &store.notes {
        line("Note", note.clone());
    }
    for (name, count) in stat.network.iter().chain(&store.counters).filter(|&(_, &count)| count > 0) {
        line("Counter", format!("{name} {count}"));
    }
    out.push('\n');
    out
}

/// A job as people read it.
#[derive(Serialize)]
struct JobLine<'j> {
    job: &'j str,
    last_run: &'j str,
    took: String,
    what_it_did: String,
    next_run: &'j str,
}

fn jobs(jobs: &[JobStatus]) -> Result<()> {
    let columns = &["job", "last_run", "took", "what_it_did", "next_run"];
    let mut rows = output::Rows::stdout(output::Format::Table, output::Schema { columns, id: "job" });
    for job in jobs {
        let outcome = job.outcome.clone().unwrap_or_default();
        rows.push(&JobLine {
            job: &job.job,
            last_run: job.last.as_deref().unwrap_or("never"),
            took: job.took_ms.map(|ms| human_duration(Duration::from_millis(ms))).unwrap_or_default(),
            what_it_did: match (job.running, job.ok) {
                (true, _) => "under way".into(),
                (false, Some(false)) => format!("failed: {outcome}"),
                _ => outcome,
            },
            next_run: job.next.as_deref().unwrap_or(""),
        })?;
    }
    rows.finish().map(drop)
}
