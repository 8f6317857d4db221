//! Compares our server on the wire with stock libp2p-kad on sled, and with an echo, a server on the same transports
//! that only returns prepared answers and so shows the limit. All have 213 peers in the routing table and 100,000 keys
//! of three providers each.
//!
//! ```text
//! cargo bench --bench wire                     everything: some twelve minutes
//! cargo bench --bench wire -- --quick          the same in short rounds
//! cargo bench --bench wire -- get add limit    parts: get, find, miss, add, limit, streams, stall, idle, many, fair
//! cargo bench --bench wire -- --beside FILE    another build of dhtstore in place of libp2p-kad: shows a change
//! ```
//!
//! Each server is a process of its own, so that its CPU is known; it shares the machine with the generator. Runs are
//! short and alternate between the servers. Figures are medians, and ratios are medians of the ratios of rounds.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a benchmark ends with the first error")]
#![allow(clippy::disallowed_methods, reason = "measures time")]

mod servers;

use dhtstore_testkit::load::{
    Fleet, Load, Outcome, Plan,
    requests::Op,
    turns::{self, HEADER, in_turns, median, ratio, row},
};
use servers::{CONNECTIONS, Fixture, PROVIDERS, SETTINGS, STREAMS, Server, TABLE, Yamux};
use std::time::Duration;

const KEYS: u64 = 100_000;
/// Requests a second to a store that stalls: with these stalls libp2p-kad can do some 8,000.
const STALLED_RATE: f64 = 2000.0;
/// Announcements a second that the server on the slow disk gets in addition to those requests.
const SLOW_DISK_RATE: f64 = 500.0;

struct Bench {
    fixture: Fixture,
    rounds: usize,
    length: Duration,
}

#[tokio::main]
async fn main() {
    servers::serve_if_asked().await;
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let quick = args.iter().any(|arg| arg == "--quick");
    let beside = args.iter().position(|arg| arg == "--beside").and_then(|at| args.get(at + 1));
    let parts: Vec<&str> =
        args.iter().filter(|arg| !arg.starts_with("--") && Some(*arg) != beside).map(String::as_str).collect();
    let wanted = |part: &str| parts.is_empty() || parts.contains(&part);

    println!("{TABLE} peers in the table, {KEYS} keys of {PROVIDERS} providers, settings {SETTINGS:?}");
    let (rounds, length) = if quick { (3, Duration::from_secs(1)) } else { (7, Duration::from_secs(2)) };
    let bench = Bench { fixture: Fixture::new(), rounds, length };
    let ours = bench.fixture.ours().await;
    let stock = match beside {
        Some(program) => bench.fixture.another(program.as_ref()).await,
        None => bench.fixture.stock(false).await,
    };
    bench.fill(&ours).await;
    bench.fill(&stock).await;
    println!("\n{HEADER}");
    for (part, op) in [("get", Op::Hit), ("miss", Op::Miss), ("find", Op::FindNode)] {
        if wanted(part) {
            bench.compare(op.name(), op, &ours, &stock, false).await;
        }
        if wanted(part) && part == "get" {
            bench.compare("GET hit, QUIC", op, &ours, &stock, true).await;
        }
    }
    if wanted("limit") {
        for quic in [false, true] {
            for op in [Op::Hit, Op::Miss, Op::FindNode] {
                bench.limit(op, &ours, quic).await;
            }
        }
    }
    if wanted("idle") {
        bench.unloaded(&ours, &stock).await;
    }
    if wanted("streams") {
        bench.streams(&ours, &stock).await;
    }
    if wanted("many") {
        bench.many(&ours, &stock).await;
    }
    if wanted("fair") {
        bench.fair(&ours, &stock).await;
    }
    // Last, since it leaves tens of millions of records.
    if wanted("add") {
        for op in [Op::AddConfirmed, Op::Add] {
            for quic in [false, true] {
                bench.limit(op, &ours, quic).await;
            }
        }
        bench.compare(Op::Add.name(), Op::Add, &ours, &stock, false).await;
    }
    drop((ours, stock));
    if wanted("stall") {
        bench.stalled().await;
    }
}

impl Bench {
    async fn fleet(&self, server: &Server, connections: usize, quic: bool) -> Fleet {
        Fleet::connect(server.at(quic), 0, connections, Some(server.process())).await
    }

    async fn fill(&self, server: &Server) {
        let fleet = self.fleet(server, CONNECTIONS, false).await;
        let filled = fleet.fill(KEYS, PROVIDERS, STREAMS).await;
        assert_eq!(
            (filled.seen.requests, filled.seen.errors),
            (KEYS * PROVIDERS, 0),
            "{} accepts every announcement",
            server.name
        );
        println!("{}: filled at {:.0}/s, {:.1} us of CPU each", server.name, filled.rate(), filled.cpu_us());
    }

    fn plan(&self, op: Op, streams: usize, depth: usize) -> Plan {
        Plan { op, streams, pace: Load::Closed { depth }, length: self.length, keys: KEYS }
    }

    async fn compare(&self, what: &str, op: Op, ours: &Server, stock: &Server, quic: bool) {
        let fleets = (self.fleet(ours, CONNECTIONS, quic).await, self.fleet(stock, CONNECTIONS, quic).await);
        let runs = in_turns(&[&fleets.0, &fleets.1], self.rounds, self.plan(op, STREAMS, 1)).await;
        both(what, (ours, &runs[0]), (stock, &runs[1]));
        if op == Op::Hit {
            let means = |n: usize| runs[n][0].means();
            println!("\nproviders, their addresses and closer peers in an answer: {:?} and {:?}\n", means(0), means(1));
        }
    }

    /// Compares our server with an echo of answers of the same size. Over TCP there are two echoes: one on libp2p's
    /// yamux, and one on ours.
    async fn limit(&self, op: Op, ours: &Server, quic: bool) {
        let fleet = self.fleet(ours, CONNECTIONS, quic).await;
        let plan = self.plan(op, STREAMS, 1);
        let sample = fleet.run(Plan { length: Duration::from_millis(500), ..plan }).await;
        let yamuxes: &[Yamux] = if quic { &[Yamux::Libp2p] } else { &[Yamux::Libp2p, Yamux::Ours] };
        let (mut echoes, mut fleets) = (Vec::new(), vec![fleet]);
        for yamux in yamuxes {
            let echo = self.fixture.echo(sample.answer_bytes() as usize, *yamux).await;
            fleets.push(self.fleet(&echo, CONNECTIONS, quic).await);
            echoes.push(echo);
        }
        let runs = in_turns(&fleets.iter().collect::<Vec<_>>(), self.rounds, plan).await;
        let what = format!("{}, {}", op.name(), if quic { "QUIC" } else { "TCP" });
        row(&what, ours.name, &runs[0]);
        for (echo, limit) in echoes.iter().zip(&runs[1..]) {
            row(&what, echo.name, limit);
            println!(
                "| {what} | of that limit | {:.0} % | {:.2} x | | | | | |",
                100.0 * ratio(&runs[0], limit, Outcome::rate),
                ratio(&runs[0], limit, Outcome::cpu_us)
            );
        }
    }

    /// Sends one request after the other on one stream of one connection. An echo shows how much of the time the
    /// machine takes.
    async fn unloaded(&self, ours: &Server, stock: &Server) {
        for quic in [false, true] {
            let (ours_one, stock_one) = (self.fleet(ours, 1, quic).await, self.fleet(stock, 1, quic).await);
            let plan = self.plan(Op::Hit, 1, 1);
            let sample = ours_one.run(Plan { length: Duration::from_millis(500), ..plan }).await;
            let echo = self.fixture.echo(sample.answer_bytes() as usize, Yamux::Libp2p).await;
            let echo_one = self.fleet(&echo, 1, quic).await;
            let runs = in_turns(&[&ours_one, &stock_one, &echo_one], self.rounds, plan).await;
            let what = format!("one GET at a time, {}", if quic { "QUIC" } else { "TCP" });
            both(&what, (ours, &runs[0]), (stock, &runs[1]));
            row(&what, echo.name, &runs[2]);
        }
    }

    /// Opens many streams on one connection.
    async fn streams(&self, ours: &Server, stock: &Server) {
        for streams in [64, 256] {
            let fleets = (self.fleet(ours, 1, false).await, self.fleet(stock, 1, false).await);
            let ours_alone = in_turns(&[&fleets.0], self.rounds, self.plan(Op::Hit, streams, 1)).await;
            // libp2p-kad drops streams over its limit at once, and the generator opens them again: one short run shows
            // it.
            let stock_once = in_turns(&[&fleets.1], 1, self.plan(Op::Hit, streams, 1)).await;
            let what = format!("{streams} streams on one connection");
            row(&what, ours.name, &ours_alone[0]);
            row(&what, stock.name, &stock_once[0]);
        }
    }

    async fn many(&self, ours: &Server, stock: &Server) {
        for connections in [200, 2000] {
            let fleets = (self.fleet(ours, connections, false).await, self.fleet(stock, connections, false).await);
            let what = format!("{connections} connections of one stream");
            let runs = in_turns(&[&fleets.0, &fleets.1], self.rounds.min(3), self.plan(Op::Hit, 1, 1)).await;
            both(&what, (ours, &runs[0]), (stock, &runs[1]));
            let rss = |server: &Server| server.process().rss() / 1e6;
            let refused = (fleets.0.refused, fleets.1.refused);
            println!("\nrefused connections {refused:?}, memory {:.0} and {:.0} MB\n", rss(ours), rss(stock));
        }
    }

    /// Runs a polite connection next to one with 24 streams of 16 requests each.
    async fn fair(&self, ours: &Server, stock: &Server) {
        for server in [ours, stock] {
            // The CPU of the server is that for both connections, so it is shown once.
            let greedy = self.fleet(server, 1, false).await;
            let polite = Fleet::connect(&server.tcp, 1, 1, None).await;
            let long = Plan { length: self.length * 4, ..self.plan(Op::Hit, 24, 16) };
            let beside = async {
                tokio::time::sleep(Duration::from_millis(500)).await;
                polite.run(Plan { length: self.length * 3, ..self.plan(Op::Hit, 1, 1) }).await
            };
            let (greedy, polite) = tokio::join!(greedy.run(long), beside);
            row("one greedy connection", server.name, &vec![greedy]);
            row("one request at a time beside it", server.name, &vec![polite]);
        }
    }

    /// Sends requests at the same open-loop rate to four servers: ours as it is, ours on a disk on which each write
    /// takes as long as a stall, ours with threads that stall, and libp2p-kad on a store that stalls.
    async fn stalled(&self) {
        let (ours, slow) = (self.fixture.ours().await, self.fixture.ours_on_slow_disk().await);
        let (stalled, stock) = (self.fixture.stalled().await, self.fixture.stock(true).await);
        let mut fleets = Vec::new();
        for server in [&ours, &slow, &stalled, &stock] {
            self.fill(server).await;
            fleets.push(self.fleet(server, CONNECTIONS, false).await);
        }
        let plan = |op, streams, rate, length| Plan { op, streams, pace: Load::Open { rate }, length, keys: KEYS };
        let gets = plan(Op::Hit, STREAMS, STALLED_RATE, self.length * 3);
        // Keeps the disk busy with writes.
        let adding = self.fleet(&slow, 1, false).await;
        let adds = async {
            loop {
                adding.run(plan(Op::Add, 1, SLOW_DISK_RATE, self.length)).await;
            }
        };
        let fleets: Vec<&Fleet> = fleets.iter().collect();
        let runs = tokio::select! {
            runs = in_turns(&fleets, self.rounds.min(5), gets) => runs,
            () = adds => unreachable!("it goes on for ever"),
        };
        println!("\n{HEADER}");
        row("GET, no stalls", ours.name, &runs[0]);
        row("GET, each write to the disk takes 50 ms", slow.name, &runs[1]);
        row("GET, 50 ms in the thread in one of 1,000", stalled.name, &runs[2]);
        row("GET, 50 ms in the store in one of 1,000", stock.name, &runs[3]);
        let p99 = |run: &Outcome| run.seen.latency.at(0.99);
        println!(
            "\np99 of libp2p-kad is {:.1} times ours on a slow disk, {:.1} times ours with threads that stall",
            ratio(&runs[3], &runs[1], p99),
            ratio(&runs[3], &runs[2], p99)
        );
    }
}

fn both(what: &str, (ours, our): (&Server, &turns::Runs), (stock, their): (&Server, &turns::Runs)) {
    row(what, ours.name, our);
    row(what, stock.name, their);
    let p99 = |run: &Outcome| run.seen.latency.at(0.99);
    let p50 = |run: &Outcome| run.seen.latency.at(0.5);
    println!(
        "| {what} | ratio | {:.2} x | {:.2} x | {:.2} x | {:.2} x | | {:.2} x | |",
        ratio(our, their, Outcome::rate),
        ratio(our, their, Outcome::cpu_us),
        ratio(our, their, p50),
        ratio(our, their, p99),
        median(our, Outcome::answer_bytes) / median(their, Outcome::answer_bytes)
    );
}
