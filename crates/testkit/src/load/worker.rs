//! One stream under load.

use super::{connection::Connection, histogram::Histogram, requests::Requests};
use dhtstore_kad::{
    frame::{self, Header},
    message::Message,
};
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::core::muxing::SubstreamBox;
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::time::{sleep_until, timeout};

/// Time allowed for an answer. After it the answer counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// Most requests under way on a stream at a fixed rate. Further ones wait, and their waiting counts as latency.
const MAX_UNDER_WAY: usize = 256;

/// One of every `DECODED` answers is decoded, which keeps the generator cheap.
const DECODED: u64 = 16;

/// The phase of measuring.
pub const MEASURING: u8 = 1;
/// The phase in which nothing more is sent.
pub const STOPPING: u8 = 2;

/// The phase of a run.
#[derive(Debug, Default)]
pub struct Phase(AtomicU8);

impl Phase {
    /// Begins a phase: [`MEASURING`] or [`STOPPING`].
    pub fn set(&self, phase: u8) {
        self.0.store(phase, Ordering::Relaxed);
    }

    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

/// When this stream sends.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    Closed { depth: usize },
    Open { every: Duration, offset: Duration },
}

/// The counts of a stream while measuring. Errors count at any time.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests answered, or announcements confirmed.
    pub requests: u64,
    /// Time from a request to its answer. For announcements, from a batch to the answer after it.
    pub latency: Histogram,
    /// Streams that broke or were silent for ten seconds, and the requests lost with them.
    pub errors: u64,
    /// Bytes of all answers.
    pub received: u64,
    /// Answers, decoded or not.
    pub answers: u64,
    /// Answers that were decoded, one in sixteen. The counts below are of these.
    pub decoded: u64,
    /// Providers in them.
    pub providers: u64,
    /// Addresses of these providers.
    pub provider_addrs: u64,
    /// Closer peers in them.
    pub closer: u64,
    /// Answers without a provider.
    pub without_provider: u64,
}

/// Sends requests on one stream, and reads the answers.
pub struct Worker {
    connection: Arc<Connection>,
    stream: SubstreamBox,
    requests: Requests,
    pace: Pace,
    phase: Arc<Phase>,
    /// For each request under way, when it was due, and the count of requests that its answer stands for.
    under_way: VecDeque<(Instant, u64)>,
    input: Vec<u8>,
    filled: usize,
    tally: Tally,
}

impl Worker {
    pub fn new(
        connection: Arc<Connection>,
        stream: SubstreamBox,
        requests: Requests,
        pace: Pace,
        phase: Arc<Phase>,
    ) -> Self {
        let (under_way, input, tally) = (VecDeque::new(), vec![0; 32 * 1024], Tally::default());
        Self { connection, stream, requests, pace, phase, under_way, input, filled: 0, tally }
    }

    /// Sends and reads until the run stops or the requests end.
    pub async fn run(mut self, begun: Instant) -> Tally {
        let mut next = begun;
        if let Pace::Open { offset, .. } = self.pace {
            next += offset;
        }
        while let Err(lost) = self.until_broken(&mut next).await {
            self.tally.errors += lost.max(1);
            self.under_way.clear();
            self.filled = 0;
            match self.connection.stream().await {
                Some(stream) if self.phase.get() != STOPPING => self.stream = stream,
                _ => break,
            }
        }
        self.tally
    }

    /// Sends and reads until the stream breaks. The error is the count of requests that were under way then.
    async fn until_broken(&mut self, next: &mut Instant) -> Result<(), u64> {
        let mut out = Vec::new();
        let mut more = true;
        loop {
            if self.phase.get() == STOPPING {
                more = false;
            }
            let now = Instant::now();
            while more {
                let intended = match self.pace {
                    Pace::Closed { depth } if self.under_way.len() < depth => now,
                    Pace::Open { every, .. } if *next <= now && self.under_way.len() < MAX_UNDER_WAY => {
                        let intended = *next;
                        *next += every;
                        intended
                    }
                    _ => break,
                };
                match self.requests.put(&mut out) {
                    Some(units) => self.under_way.push_back((intended, units)),
                    None => more = false,
                }
            }
            let lost = self.under_way.iter().map(|(_, units)| units).sum::<u64>();
            if !out.is_empty() {
                let written = timeout(PATIENCE, async {
                    self.stream.write_all(&out).await?;
                    self.stream.flush().await
                });
                written.await.map_err(|_| lost)?.map_err(|_| lost)?;
                out.clear();
            }
            if self.under_way.is_empty() && !more {
                return Ok(());
            }
            self.wait(*next, more).await.map_err(|()| lost)?;
        }
    }

    /// Waits until there are answers, or a request is due.
    async fn wait(&mut self, next: Instant, more: bool) -> Result<(), ()> {
        let free = self.input.get_mut(self.filled..).unwrap_or_default();
        let read = self.stream.read(free);
        let read = match self.pace {
            Pace::Open { .. } if more && self.under_way.len() < MAX_UNDER_WAY => {
                tokio::select! {
                    read = read => read,
                    () = sleep_until(next.into()) => return Ok(()),
                }
            }
            _ => timeout(PATIENCE, read).await.map_err(|_| ())?,
        };
        match read {
            Ok(n) if n > 0 => self.filled += n,
            _ => return Err(()),
        }
        self.take_answers()
    }

    fn take_answers(&mut self) -> Result<(), ()> {
        let mut at = 0;
        let mut now = None;
        let counting = self.phase.get() == MEASURING;
        loop {
            let bytes = &self.input[at..self.filled];
            match frame::header(bytes, frame::MAX_ANSWER).map_err(|_| ())? {
                Header::Complete { header, body } if bytes.len() >= header + body => {
                    let (intended, units) = self.under_way.pop_front().ok_or(())?;
                    if counting {
                        let now = *now.get_or_insert_with(Instant::now);
                        self.tally.note(&bytes[header..header + body], now.saturating_duration_since(intended), units);
                    }
                    at += header + body;
                }
                Header::Complete { header, body } => {
                    // Makes room for the rest of the answer.
                    let needed = (header + body).max(32 * 1024);
                    if self.input.len() < at + needed {
                        self.input.resize(at + needed, 0);
                    }
                    break;
                }
                Header::Incomplete => break,
            }
        }
        self.input.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(())
    }
}

impl Tally {
    /// Adds the counts of another stream.
    pub fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.latency.merge(&other.latency);
        self.errors += other.errors;
        self.received += other.received;
        self.answers += other.answers;
        self.decoded += other.decoded;
        self.providers += other.providers;
        self.provider_addrs += other.provider_addrs;
        self.closer += other.closer;
        self.without_provider += other.without_provider;
    }

    fn note(&mut self, body: &[u8], took: Duration, units: u64) {
        self.requests += units;
        self.answers += 1;
        self.received += body.len() as u64;
        self.latency.add(took);
        if self.answers % DECODED == 1 {
            let Ok(message) = Message::decode(body) else {
                self.errors += 1;
                return;
            };
            self.decoded += 1;
            self.closer += message.closer_peers().count() as u64;
            let providers = message.provider_peers().count() as u64;
            self.providers += providers;
            self.without_provider += u64::from(providers == 0);
            self.provider_addrs += message.provider_peers().map(|peer| peer.addrs().count() as u64).sum::<u64>();
        }
    }
}
