//! `dhtstore stat`

mod limits;
mod plan;

use super::{
    Context,
    ask::Server,
    dump,
    error::{CliError, Result},
    output::{self, human_bytes, human_duration},
};
use crate::{
    clock::{Clock, SystemClock, UnixTime},
    control::protocol::{JobStat, Request, Stat, StoreStat},
    store,
};
use plan::Plan;
use serde::Serialize;
use std::{fmt::Write, time::Duration};

/// Output format of the figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum StatFormat {
    /// For people. Default on a terminal
    Table,
    /// One JSON object on one line. Default in a pipe
    #[value(alias = "ndjson")]
    Json,
    /// The jobs, as comma-separated values
    Csv,
}

/// Arguments of `dhtstore stat`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  dhtstore stat
  dhtstore stat --format json | jq .store.records
  dhtstore stat --format json | jq '.store.limits[] | .limit, .now, .max'
  dhtstore stat --stopped            figures of a stopped node
  dhtstore stat --plan 1500 48h      machine needed for the public DHT")]
pub struct Args {
    /// Print the memory, disk and replay time that RATE announcements a second with this TTL need; asks no server
    #[arg(long, num_args = 2, value_names = ["RATE", "TTL"])]
    plan: Option<Vec<String>>,
    /// Print the figures of a stopped node, from a copy of its databases, which takes a while
    #[arg(long, conflicts_with = "plan")]
    stopped: bool,
    /// Output format [default: table on a terminal, json in a pipe]
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
    if args.stopped {
        return stopped(&args, context).await;
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

/// Figures of a stopped node. A running node reports these fields and more.
#[derive(Serialize)]
struct Stopped {
    /// Version of this program, which may differ from that of the node.
    version: &'static str,
    store: StoreStat,
}

async fn stopped(args: &Args, context: &Context) -> Result<()> {
    if Server::connect_if_running(context).await?.is_some() {
        return Err(CliError::try_again("cannot use --stopped: the server is running; leave out --stopped"));
    }
    let config = context.config()?;
    dump::not_in_use(config)?;
    context.notice("reading a copy of the database");
    let (dir, settings) = (config.data_dir.clone(), config.store_settings());
    let now = SystemClock::new().wall();
    let stat = tokio::task::spawn_blocking(move || store::stat_stopped(&dir, settings, now));
    let store = StoreStat::from(stat.await.map_err(CliError::other)??);
    match args.format {
        Some(StatFormat::Table) => output::print(text_of_stopped(&store)),
        None if context.stdout_is_terminal => output::print(text_of_stopped(&store)),
        Some(StatFormat::Csv) => {
            Err(CliError::usage("cannot print jobs as csv: a stopped node has none; leave out --format csv"))
        }
        _ => output::print_object(&Stopped { version: env!("CARGO_PKG_VERSION"), store }, output::Format::Ndjson),
    }
}

/// Appends a line with a name and a value.
fn line(out: &mut String, name: &str, value: impl std::fmt::Display) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{name:<14}{value}");
}

/// Returns the lines that running and stopped nodes share.
fn text_of_store(store: &StoreStat) -> String {
    let mut out = String::new();
    let mut put = |name: &str, value: String| line(&mut out, name, value);
    put("Records", format!("{} of {} CIDs, from {} peers", store.records, store.keys, store.peers));
    put("Values", format!("{}, {}", store.values, human_bytes(store.values_bytes)));
    if let (Some(oldest), Some(newest)) = (store.oldest, store.newest) {
        put("Received", format!("{} to {}", UnixTime(oldest), UnixTime(newest)));
    }
    if store.replayed < 1.0 {
        put("Replay", format!("{:.0} % of the log", store.replayed * 100.0));
    }
    if let Some(reason) = &store.gc_paused {
        put("GC waits", reason.clone());
    }
    put(
        "On disk",
        format!(
            "records {}, node {}, exports {}",
            human_bytes(store.records_bytes_on_disk),
            human_bytes(store.node_bytes_on_disk),
            human_bytes(store.exports_bytes_on_disk)
        ),
    );
    for (name, value) in limits::lines(store) {
        put(name, value);
    }
    out
}

fn text_of_stopped(store: &StoreStat) -> String {
    let mut out = text_of_store(store);
    line(&mut out, "Own CIDs", store.provided);
    out + &notes(store)
}

fn notes(store: &StoreStat) -> String {
    let mut out = String::new();
    store.notes.iter().for_each(|note| line(&mut out, "Note", note));
    out
}

fn text(stat: &Stat) -> String {
    let store = &stat.store;
    let mut out = String::new();
    let mut put = |name: &str, value: String| line(&mut out, name, value);
    put("Peer id", stat.peer.clone());
    put("Profile", stat.profile.clone());
    put("Mode", format!("{}: {}", stat.mode, stat.mode_why));
    put("Up", format!("{}, version {}", human_duration(Duration::from_secs(stat.uptime_s)), stat.version));
    for address in &stat.listening {
        put("Listening", address.clone());
    }
    let load = &stat.load;
    put(
        "Connections",
        format!(
            "{} of {}, {} inbound handshakes under way",
            stat.connections, stat.connections_max, load.pending_handshakes
        ),
    );
    put("Open streams", format!("{}, {} half read or unwritten", load.inbound_streams, human_bytes(load.read_bytes)));
    for peer in &stat.bootstrap {
        let fares = match (&peer.error, peer.answers) {
            (Some(error), _) => error.as_str(),
            (None, Some(true)) => "answers",
            (None, _) => "not asked yet",
        };
        line(&mut out, "Bootstrap", format_args!("{}: {fares}", peer.addresses.join(", ")));
    }
    out += &text_of_store(store);
    let own = &stat.reprovide;
    let mut announcing = format!("{}, {} due, {} announced since start", store.provided, own.due, own.announced);
    if own.sweeping {
        announcing += ", sweep under way";
    }
    if own.offline && own.due > 0 {
        announcing += ", no servers known";
    }
    line(&mut out, "Own CIDs", announcing);
    if let Some(since) = own.behind_since {
        line(&mut out, "Behind since", UnixTime(since));
    }
    for table in &stat.tables {
        let buckets: Vec<String> = table.buckets.iter().map(|(cpl, peers)| format!("{cpl}:{peers}")).collect();
        let buckets = if buckets.is_empty() { String::new() } else { format!("; by cpl {}", buckets.join(" ")) };
        line(&mut out, &format!("Table {}", table.dht), format_args!("{} peers{buckets}", table.peers));
    }
    out += &notes(store);
    for (name, count) in stat.network.iter().chain(&store.counters).filter(|&(_, &count)| count > 0) {
        line(&mut out, "Counter", format_args!("{name} {count}"));
    }
    out.push('\n');
    out
}

/// A job, for people.
#[derive(Serialize)]
struct JobLine<'j> {
    job: &'j str,
    last_run: &'j str,
    took: String,
    what_it_did: String,
    next_run: &'j str,
}

fn jobs(jobs: &[JobStat]) -> Result<()> {
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
