//! Compares our server with that of go-libp2p-kad-dht on leveldb, as Kubo runs it (`tests/interop/dhtserver`). Both
//! have 213 peers in the routing table, and a million records.
//!
//! ```text
//! cargo bench --bench compare                     some seven minutes (more where go's server fills slowly); needs Go
//! cargo bench --bench compare -- --quick          100,000 records, short rounds
//! cargo bench --bench compare -- --steady 600     1,500 announcements a second for ten minutes: bytes written to disk
//! cargo bench --bench compare -- --only get,add   parts: get, miss, find, add, kill
//! ```
//!
//! `DHTSERVER_BIN` names the Go program if it is already built. Each server is a process of its own, and shares the
//! machine with the generator. Runs are short and alternate between the servers; figures are medians.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a benchmark ends with the first error")]
#![allow(clippy::disallowed_methods, reason = "measures time")]

mod servers;

use dhtstore_testkit::load::{
    Fleet, Load, Outcome, Plan,
    requests::Op,
    turns::{HEADER, in_turns, ratio, row},
};
use servers::{CONNECTIONS, Fixture, PROVIDERS, SETTINGS, STREAMS, Server, TABLE};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Announcements a second of the steady run.
const STEADY_RATE: f64 = 1500.0;
/// After this time our server has everything on the disk; then it is killed. go's server keeps up to 255 announcements
/// in memory until more arrive (kad-dht 0.42.2), however long that takes.
const SETTLE: Duration = Duration::from_secs(5);

struct Bench {
    keys: u64,
    rounds: usize,
    length: Duration,
}

#[tokio::main]
async fn main() {
    servers::serve_if_asked().await;
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let quick = args.iter().any(|arg| arg == "--quick");
    let only = value("--only");
    let wanted = |part: &str| only.is_none_or(|only| only.split(',').any(|name| name == part));

    println!("compared with {} on {}, Go {}", version("go-libp2p-kad-dht"), version("go-ds-leveldb"), go_version());
    let fixture = Fixture::new();
    let program = go_server(fixture.dir.path());
    if let Some(seconds) = value("--steady") {
        return steady(&fixture, &program, Duration::from_secs(seconds.parse().unwrap())).await;
    }
    let bench = if quick {
        Bench { keys: 33_334, rounds: 3, length: Duration::from_secs(1) }
    } else {
        Bench { keys: 333_334, rounds: 5, length: Duration::from_secs(2) }
    };
    println!("{TABLE} peers in the table, {} keys of {PROVIDERS} providers, settings {SETTINGS:?}\n", bench.keys);
    let mut ours = fixture.ours().await;
    let mut go = fixture.go(&program).await;
    for server in [&ours, &go] {
        bench.fill(server).await;
    }
    println!("\n{HEADER}");
    for quic in [false, true] {
        for (part, op) in [
            ("get", Op::Hit),
            ("miss", Op::Miss),
            ("find", Op::FindNode),
            ("confirmed", Op::AddConfirmed),
            ("add", Op::Add),
        ] {
            if wanted(part) {
                bench.compare(op, &ours, &go, quic).await;
            }
        }
    }
    let rss = |server: &Server| server.process().rss() / 1e6;
    println!("\nmemory after all that: {:.0} and {:.0} MB", rss(&ours), rss(&go));
    if wanted("kill") {
        println!(
            "\n| after kill -9 and restart | seconds until it serves | keys found | providers | their addresses | table |"
        );
        println!("|---|---|---|---|---|---|");
        for server in [&mut ours, &mut go] {
            bench.kill(server).await;
        }
    }
}

/// Returns the module's version with which `tests/interop` is built.
fn version(module: &str) -> &'static str {
    let mut lines = include_str!("../../tests/interop/go.mod").lines().map(str::trim);
    let line = lines.find(|line| line.split('/').any(|part| part.split(' ').next() == Some(module)));
    line.and_then(|line| line.rsplit('/').next()).unwrap_or("an unknown version")
}

fn go_version() -> String {
    let output = Command::new("go").arg("version").output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).split_whitespace().nth(2).unwrap_or("unknown").to_owned()
}

/// Builds go's server, unless `DHTSERVER_BIN` names it.
fn go_server(dir: &Path) -> PathBuf {
    if let Some(built) = std::env::var_os("DHTSERVER_BIN") {
        return built.into();
    }
    let program = dir.join("dhtserver");
    let module = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop");
    let built = Command::new("go").args(["build", "-o"]).arg(&program).arg("./dhtserver").current_dir(module).status();
    assert!(built.unwrap().success(), "go build");
    program
}

impl Bench {
    async fn fleet(&self, server: &Server, quic: bool) -> Fleet {
        Fleet::connect(server.at(quic), 0, CONNECTIONS, Some(server.process())).await
    }

    async fn fill(&self, server: &Server) {
        // With more streams, go's server would leave the last of them without an answer for longer than any client
        // waits.
        let filled = self.fleet(server, false).await.fill(self.keys, PROVIDERS, 1).await;
        assert_eq!(
            (filled.seen.requests, filled.seen.errors),
            (self.keys * PROVIDERS, 0),
            "{} accepts every announcement",
            server.name
        );
        // Servers write to disk with a delay.
        tokio::time::sleep(SETTLE).await;
        println!(
            "{}: serves after {:.3} s; filled at {:.0}/s, {:.1} us of CPU each; {:.0} MB of memory, {:.0} MB of files",
            server.name,
            server.started_in.as_secs_f64(),
            filled.rate(),
            filled.cpu_us(),
            server.process().rss() / 1e6,
            server.files() / 1e6
        );
    }

    async fn compare(&self, op: Op, ours: &Server, go: &Server, quic: bool) {
        let fleets = (self.fleet(ours, quic).await, self.fleet(go, quic).await);
        let pace = Load::Closed { depth: 1 };
        let plan = Plan { op, streams: STREAMS, pace, length: self.length, keys: self.keys };
        let runs = in_turns(&[&fleets.0, &fleets.1], self.rounds, plan).await;
        let what = format!("{}, {}", op.name(), if quic { "QUIC" } else { "TCP" });
        row(&what, ours.name, &runs[0]);
        row(&what, go.name, &runs[1]);
        let of = |figure: fn(&Outcome) -> f64| ratio(&runs[0], &runs[1], figure);
        println!(
            "| {what} | ratio | {:.2} x | {:.2} x | {:.2} x | {:.2} x | | {:.2} x | |",
            of(Outcome::rate),
            of(Outcome::cpu_us),
            of(|run| run.seen.latency.at(0.5)),
            of(|run| run.seen.latency.at(0.99)),
            of(Outcome::answer_bytes)
        );
        if op == Op::Hit && !quic {
            println!(
                "\nproviders, their addresses and closer peers in an answer: {:?} and {:?}\n",
                runs[0][0].means(),
                runs[1][0].means()
            );
        }
    }

    /// Measures what survives a SIGKILL that comes [`SETTLE`] after the last announcement.
    async fn kill(&self, server: &mut Server) {
        tokio::time::sleep(SETTLE).await;
        server.kill();
        server.start_again().await;
        let begun = Instant::now();
        let plan = Plan {
            op: Op::Hit,
            streams: 1,
            pace: Load::Closed { depth: 1 },
            length: Duration::from_secs(2),
            keys: self.keys,
        };
        // The server answers while it replays the log and verifies its table.
        let mut outcome = Outcome::default();
        while begun.elapsed() < Duration::from_secs(15) {
            outcome = self.fleet(server, false).await.run(plan).await;
        }
        let (providers, addrs, closer) = outcome.means();
        println!(
            "| {} | {:.3} | {:.2} % | {providers:.3} of {PROVIDERS} | {addrs:.2} of {} | {closer:.1} of 20 |",
            server.name,
            server.started_in.as_secs_f64(),
            100.0 - 100.0 * outcome.seen.without_provider as f64 / outcome.seen.decoded as f64,
            3 * PROVIDERS
        );
    }
}

/// Announces new records at a steady rate, to both servers at the same time. Measures the bytes that each writes to
/// disk for one record.
async fn steady(fixture: &Fixture, program: &Path, length: Duration) {
    let (ours, go) = (fixture.ours().await, fixture.go(program).await);
    let one = async |server: &Server| {
        let fleet = Fleet::connect(&server.tcp, 0, CONNECTIONS, Some(server.process())).await;
        let before = server.process().written();
        let pace = Load::Open { rate: STEADY_RATE };
        let outcome = fleet.run(Plan { op: Op::Add, streams: 1, pace, length, keys: 0 }).await;
        tokio::time::sleep(SETTLE).await;
        (outcome, server.process().written() - before)
    };
    let (by_ours, by_go) = tokio::join!(one(&ours), one(&go));
    println!(
        "\n| {:.0} s at {STEADY_RATE}/s | records/s | bytes written for each | CPU us for each | files MB | errors |",
        length.as_secs_f64()
    );
    println!("|---|---|---|---|---|---|");
    for (server, (outcome, written)) in [(&ours, &by_ours), (&go, &by_go)] {
        println!(
            "| {} | {:.0} | {:.0} | {:.1} | {:.1} | {} |",
            server.name,
            outcome.rate(),
            written / outcome.seen.requests as f64,
            outcome.cpu_us(),
            server.files() / 1e6,
            outcome.seen.errors
        );
    }
}
