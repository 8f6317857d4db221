//! Puts load on any server of the DHT:
//!
//! ```text
//! cargo bench --bench load -- --target /ip4/127.0.0.1/tcp/4001 [--pid PID]
//!     [--op get|miss|find|add|add-confirmed|fill] [--connections 16] [--streams 8] [--depth 1 | --rate 1500]
//!     [--seconds 10]
//!     [--keys 100000] [--providers 3]
//! ```
//!
//! Addresses with `/udp/4001/quic-v1` use QUIC. `fill` announces keys 0 to `--keys`, each by `--providers` of the
//! connections; `get` asks for these keys. `--depth` is a closed loop: that many requests are under way on each stream.
//! `--rate` is an open loop: that many requests a second are sent on all streams together, and latency counts from the
//! time at which each was due (which includes the timer's resolution of 1 ms). `add` sends batches of 64, each followed
//! by a FIND_NODE, whose answer confirms the batch; its latency is that of a batch. `add-confirmed` sends a FIND_NODE
//! after each announcement. `--pid` names the process of the server on this machine; then its CPU per request and the
//! bytes that it writes to disk are printed.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a benchmark ends with the first error")]
#![allow(clippy::disallowed_methods, reason = "measures time")]

use clap::Parser;
use dhtstore_testkit::{
    load::{Fleet, Load, Outcome, Plan, requests::Op},
    process::Process,
};
use libp2p::Multiaddr;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Kind {
    Get,
    Miss,
    Find,
    Add,
    AddConfirmed,
    Fill,
}

#[derive(Parser, Debug)]
struct Args {
    #[arg(long)]
    target: Multiaddr,
    #[arg(long)]
    pid: Option<u32>,
    #[arg(long, value_enum, default_value = "get")]
    op: Kind,
    #[arg(long, default_value_t = 16)]
    connections: usize,
    #[arg(long, default_value_t = 8)]
    streams: usize,
    #[arg(long, default_value_t = 1)]
    depth: usize,
    #[arg(long, conflicts_with = "depth")]
    rate: Option<f64>,
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    #[arg(long, default_value_t = 3)]
    providers: u64,
    /// Added by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() {
    // Each connection takes a file descriptor.
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let args = Args::parse();
    let fleet = Fleet::connect(&args.target, 0, args.connections, args.pid.map(Process)).await;
    println!("{} of {} connections", fleet.connections(), args.connections);
    let op = match args.op {
        Kind::Get => Op::Hit,
        Kind::Miss => Op::Miss,
        Kind::Find => Op::FindNode,
        Kind::Add => Op::Add,
        Kind::AddConfirmed => Op::AddConfirmed,
        Kind::Fill => return show(&fleet.fill(args.keys, args.providers, args.streams).await),
    };
    let pace = args.rate.map_or(Load::Closed { depth: args.depth }, |rate| Load::Open { rate });
    let length = Duration::from_secs_f64(args.seconds);
    show(&fleet.run(Plan { op, streams: args.streams, pace, length, keys: args.keys }).await);
}

fn show(outcome: &Outcome) {
    let (providers, addrs, closer) = outcome.means();
    println!("{} requests in {:.2} s: {:.0}/s", outcome.seen.requests, outcome.seconds, outcome.rate());
    let at = |part| outcome.seen.latency.at(part);
    println!("p50 {:.0} us, p99 {:.0} us, p99.9 {:.0} us, max {:.0} us", at(0.5), at(0.99), at(0.999), at(1.0));
    println!("{} errors", outcome.seen.errors);
    println!(
        "answers: {:.0} bytes, {providers:.2} providers with {addrs:.2} addresses, {closer:.2} closer peers",
        outcome.answer_bytes()
    );
    if outcome.cpu.is_some() {
        let written = outcome.written.unwrap_or_default();
        println!(
            "server: {:.2} us of CPU and {:.0} bytes written a request",
            outcome.cpu_us(),
            written / outcome.seen.requests as f64
        );
    }
    println!("generator: {:.2} us of CPU a request", outcome.own_cpu_us());
}
