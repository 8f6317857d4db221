//! Loads a server of the DHT over the network. Each connection has its own identity, and several streams with requests.
//!
//! ```text
//! connection   one TCP or QUIC connection, whose streams are negotiated by hand
//! requests     the keys to ask for and announce, all derived from numbers
//! worker       one stream: sends requests, reads answers, measures latencies
//! histogram    latencies
//! turns        runs against several servers in turn
//! ```
//!
//! It does without libp2p-swarm, so that the generator takes little CPU from the server on the same machine.

pub mod connection;
mod histogram;
pub mod requests;
pub mod turns;
mod worker;

use crate::process::Process;
use connection::Connection;
use futures::{StreamExt, future::join_all, stream};
pub use histogram::Histogram;
use libp2p::Multiaddr;
use requests::{Op, Requests};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
pub use worker::Tally;
use worker::{MEASURING, Pace, Phase, STOPPING, Worker};

/// Handshakes made at the same time.
const DIALS: usize = 64;

/// Time from the first request until measuring begins.
const WARM_UP: Duration = Duration::from_millis(300);

/// Number of the next run. It gives each run of ADD_PROVIDER its own keys.
static RUNS: AtomicU64 = AtomicU64::new(1);

/// The requests that a fleet sends on its streams.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The kind of request.
    pub op: Op,
    /// Streams on each connection.
    pub streams: usize,
    /// When the next request is sent.
    pub pace: Load,
    /// How long to measure.
    pub length: Duration,
    /// Count of keys that the server holds: the numbers below this.
    pub keys: u64,
}

/// When the next request is sent.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// As soon as an answer arrives, with a fixed count of requests under way on each stream.
    Closed {
        /// Requests under way on each stream.
        depth: usize,
    },
    /// At a fixed rate, whether answers arrive or not.
    Open {
        /// Requests a second, on all streams together.
        rate: f64,
    },
}

/// The outcome of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The counts of all streams. Streams that could not be opened count as errors.
    pub seen: Tally,
    /// How long the run was measured, in seconds.
    pub seconds: f64,
    /// CPU seconds of the server's process.
    pub cpu: Option<f64>,
    /// Bytes that the server's process has written to the disk.
    pub written: Option<f64>,
    /// CPU seconds of this process, the generator.
    pub own_cpu: f64,
}

impl Outcome {
    /// Returns the requests a second.
    pub fn rate(&self) -> f64 {
        self.seen.requests as f64 / self.seconds
    }

    /// Returns the server's CPU time for a request, in microseconds.
    pub fn cpu_us(&self) -> f64 {
        self.cpu.map_or(f64::NAN, |cpu| cpu * 1e6 / self.seen.requests as f64)
    }

    /// Returns the generator's CPU time for a request, in microseconds.
    pub fn own_cpu_us(&self) -> f64 {
        self.own_cpu * 1e6 / self.seen.requests as f64
    }

    /// Returns the mean size of an answer, in bytes.
    pub fn answer_bytes(&self) -> f64 {
        self.seen.received as f64 / self.seen.answers as f64
    }

    /// Returns means over the decoded answers: providers, their addresses, closer peers.
    pub fn means(&self) -> (f64, f64, f64) {
        let of = |n: u64| n as f64 / self.seen.decoded.max(1) as f64;
        (of(self.seen.providers), of(self.seen.provider_addrs), of(self.seen.closer))
    }
}

/// Connections to one server.
pub struct Fleet {
    connections: Vec<Arc<Connection>>,
    /// The server's process, if it runs on this machine.
    pub server: Option<Process>,
    /// Connections that failed.
    pub refused: usize,
}

impl Fleet {
    /// Opens `count` connections, with the identities number `first`, `first + 1`, …
    pub async fn connect(target: &Multiaddr, first: u64, count: usize, server: Option<Process>) -> Self {
        let made: Vec<Option<Connection>> = stream::iter(0..count as u64)
            .map(|n| Connection::open(target.clone(), first + n))
            .buffered(DIALS)
            .collect()
            .await;
        let connections: Vec<Arc<Connection>> = made.into_iter().flatten().map(Arc::new).collect();
        Self { refused: count - connections.len(), connections, server }
    }

    /// Returns the count of open connections.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Runs a plan.
    pub async fn run(&self, plan: Plan) -> Outcome {
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let all = (self.connections.len() * plan.streams) as u64;
        let make = |connection: usize, stream: usize| {
            let number = (connection * plan.streams + stream) as u64;
            let pace = match plan.pace {
                Load::Closed { depth } => Pace::Closed { depth },
                Load::Open { rate } => {
                    let every = Duration::from_secs_f64(all as f64 * plan.op.units() as f64 / rate);
                    Pace::Open { every, offset: every.mul_f64(number as f64 / all as f64) }
                }
            };
            (Requests::new(plan.op, plan.keys, run, number, self.connections[connection].identity()), pace)
        };
        self.drive(plan.streams, Some(plan.length), make).await
    }

    /// Announces the keys 0 to `keys`, each from `providers` of the connections, until all are confirmed.
    pub async fn fill(&self, keys: u64, providers: u64, streams: usize) -> Outcome {
        let all = self.connections.len() as u64;
        let make = |connection: usize, stream: usize| {
            let part = (stream as u64, streams as u64);
            let identity = self.connections[connection].identity();
            (Requests::filling(keys, providers, (connection as u64, all), part, identity), Pace::Closed { depth: 2 })
        };
        self.drive(streams, None, make).await
    }

    /// Runs the requests that `make` returns for each stream. With `length`, warms up and then measures for that time.
    /// Without `length`, measures until the requests end.
    async fn drive(
        &self,
        streams: usize,
        length: Option<Duration>,
        make: impl Fn(usize, usize) -> (Requests, Pace),
    ) -> Outcome {
        let phase = Arc::new(Phase::default());
        let mut outcome = Outcome::default();
        let numbers = (0..self.connections.len()).flat_map(|c| (0..streams).map(move |s| (c, s)));
        let opened = stream::iter(numbers).map(|(c, s)| async move { (c, s, self.connections[c].stream().await) });
        let mut workers = Vec::new();
        for (c, s, stream) in opened.buffer_unordered(4 * DIALS).collect::<Vec<_>>().await {
            let (requests, pace) = make(c, s);
            match stream {
                Some(stream) => {
                    workers.push(Worker::new(self.connections[c].clone(), stream, requests, pace, phase.clone()));
                }
                None => outcome.seen.errors += 1,
            }
        }
        if length.is_none() {
            phase.set(MEASURING);
        }
        let (mut start, mut before) = (Instant::now(), self.counters());
        let tasks: Vec<_> = workers.into_iter().map(|worker| tokio::spawn(worker.run(start))).collect();
        if length.is_some() {
            tokio::time::sleep(WARM_UP).await;
            (start, before) = (Instant::now(), self.counters());
            phase.set(MEASURING);
        }
        if let Some(length) = length {
            tokio::time::sleep(length).await;
            // Both calls in immediate succession, so that CPU time and answers cover the same period.
            phase.set(STOPPING);
            self.note(&mut outcome, start, before);
        }
        for tally in join_all(tasks).await {
            outcome.seen.merge(&tally.unwrap());
        }
        if length.is_none() {
            self.note(&mut outcome, start, before);
        }
        outcome
    }

    fn counters(&self) -> (Option<f64>, Option<f64>, f64) {
        let of = |what: fn(&Process) -> f64| self.server.as_ref().map(what);
        (of(Process::cpu_seconds), of(Process::written), Process::this().cpu_seconds())
    }

    fn note(&self, outcome: &mut Outcome, start: Instant, before: (Option<f64>, Option<f64>, f64)) {
        let after = self.counters();
        outcome.seconds = start.elapsed().as_secs_f64();
        outcome.cpu = after.0.zip(before.0).map(|(after, before)| after - before);
        outcome.written = after.1.zip(before.1).map(|(after, before)| after - before);
        outcome.own_cpu = after.2 - before.2;
    }
}
