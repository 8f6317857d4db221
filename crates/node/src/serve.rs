//! Serves inbound streams: reads requests and answers them in order (MSG-2), within time-outs and byte budgets.

mod patience;
pub(crate) mod responder;

use crate::{
    clock,
    framing::{Budget, FREE, FrameReader, Lease, ReadError, WriteError, flush_moving, write_moving},
    kad::{
        Dht,
        frame::{FrameError, MAX_REQUEST},
        mode::Decision,
        rules::Refusal,
    },
    metrics::Metrics,
    routing::tables::Tables,
    settings,
};
use bytes::Bytes;
use dhtstore_host::{clock::Clock, metrics::Counter};
use dhtstore_records::values;
use futures::AsyncWriteExt;
use libp2p::{PeerId, Stream};
use patience::Patience;
use responder::{Announced, Responder, Unanswered};
use std::{future::poll_fn, io, sync::Arc, task::Poll, time::Duration};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Most streams in the whole process whose answers wait for the peer to read them. Nothing is read from such a stream,
/// so a peer that keeps sending leaves up to 256 KiB unread in yamux, outside our budgets. The limit keeps that below
/// 512 MiB; without it, 16 GiB would be possible.
const MAX_WRITING: usize = 2048;

/// Size at which collected answers to pipelined requests are written.
const WRITE_BATCH: usize = 16 * 1024;

/// Minimum time between two "last heard" updates for a peer.
const HEARD_EVERY: Duration = Duration::from_secs(60);

/// Why a stream is reset. Logged and counted, never sent to the peer.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    #[error("message not finished within {0:?}")]
    Unfinished(Duration),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("too many answers wait to be written")]
    OverBudget,
}

impl StreamError {
    fn counter<'m>(&self, metrics: &'m Metrics) -> &'m Counter {
        match self {
            Self::Read(ReadError::Frame(_)) | Self::Frame(_) => &metrics.bad_frame,
            Self::Read(ReadError::OverBudget) | Self::OverBudget => &metrics.over_budget,
            Self::Read(ReadError::Truncated | ReadError::Io(_)) | Self::Write(WriteError::Io(_)) => {
                &metrics.stream_broken
            }
            Self::Unanswered(why) => counter(why, metrics),
            Self::Unfinished(_) => &metrics.message_timeout,
            Self::Write(WriteError::Stalled(_)) => &metrics.write_stalled,
        }
    }
}

fn counter<'m>(why: &Unanswered, metrics: &'m Metrics) -> &'m Counter {
    match why {
        Unanswered::Malformed(_) => &metrics.malformed,
        Unanswered::Refused(Refusal::EmptyKey) => &metrics.empty_key,
        Unanswered::Refused(Refusal::KeyTooLong) => &metrics.key_too_long,
        Unanswered::Refused(Refusal::NotAMultihash) => &metrics.not_a_multihash,
        Unanswered::Refused(Refusal::NotTheSender) => &metrics.not_the_sender,
        Unanswered::Refused(Refusal::UnknownNamespace) => &metrics.unknown_namespace,
        Unanswered::Refused(Refusal::BadRecord) => &metrics.bad_record,
        Unanswered::Value(values::Refused::Invalid(_)) => &metrics.invalid_value,
        Unanswered::Value(values::Refused::Worse) => &metrics.worse_value,
        Unanswered::Announcement(_) | Unanswered::Value(_) | Unanswered::NotNow(_) => &metrics.store_refused,
    }
}

/// Serves the inbound DHT streams within the limits of the process.
#[derive(Debug)]
pub(crate) struct Server {
    responder: Responder,
    tables: Arc<Tables>,
    limits: settings::Streams,
    budget: Budget,
    /// Places for streams that write: see [`MAX_WRITING`].
    writing: Semaphore,
    mode: watch::Receiver<Decision>,
    draining: CancellationToken,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

impl Server {
    #[expect(clippy::too_many_arguments, reason = "each is another part of the node")]
    pub(crate) fn new(
        responder: Responder,
        tables: Arc<Tables>,
        limits: settings::Streams,
        budget: Budget,
        mode: watch::Receiver<Decision>,
        draining: CancellationToken,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let writing = Semaphore::new(MAX_WRITING);
        Self { responder, tables, limits, budget, writing, mode, draining, clock, metrics }
    }

    /// Serves one stream to its end.
    pub(crate) async fn serve(self: Arc<Self>, peer: PeerId, dht: Dht, stream: Stream) {
        let mut session = Session::new(self.clone(), peer, dht, stream);
        match session.run().await {
            Ok(()) => {
                let _ = timeout(session.write_stall(), session.stream.close()).await;
            }
            Err(error) => {
                // Requests before the bad message still get their answers (MSG-2).
                if !matches!(error, StreamError::Write(_)) {
                    let _ = session.write_out().await;
                }
                // Dropping the stream resets it: the bad message gets no answer (PRV-3, MSG-1).
                error.counter(&self.metrics).inc();
                debug!(%peer, dht = dht.name(), %error, "stream reset");
            }
        }
    }
}

struct Session {
    server: Arc<Server>,
    peer: PeerId,
    dht: Dht,
    stream: Stream,
    reader: FrameReader,
    /// Answers not written yet.
    answers: Vec<u8>,
    answers_lease: Lease,
    /// Whether bytes were written since the last flush.
    unflushed: bool,
    heard: Option<Duration>,
    announced: Option<Announced>,
    mode: watch::Receiver<Decision>,
    patience: Patience,
}

/// The outcome of waiting for more bytes.
enum Arrival {
    Bytes,
    End,
}

impl Session {
    fn new(server: Arc<Server>, peer: PeerId, dht: Dht, stream: Stream) -> Self {
        let budget = &server.budget;
        let reader = FrameReader::new(budget, MAX_REQUEST);
        let answers_lease = budget.lease();
        let mode = server.mode.clone();
        let patience = Patience::new(server.limits.idle, server.draining.clone(), server.mode.clone(), dht);
        Self {
            peer,
            dht,
            stream,
            reader,
            answers: Vec::new(),
            answers_lease,
            unflushed: false,
            heard: None,
            announced: None,
            mode,
            patience,
            server,
        }
    }

    async fn run(&mut self) -> Result<(), StreamError> {
        loop {
            while let Some(at) = self.reader.message()? {
                self.mark_heard();
                let Self { server, announced, reader, .. } = self;
                let aids: (&dyn Clock, fn() -> u64) = (&*server.clock, rand::random);
                let answer = server.responder.answer(self.dht, self.peer, reader.body(at), announced, aids).await?;
                self.reader.consume(at);
                if let Some(answer) = answer {
                    self.hold(answer)?;
                }
                if self.answers.len() >= WRITE_BATCH {
                    self.write().await?;
                }
                // So that a peer that never stops sending shares the thread with other tasks.
                tokio::task::coop::consume_budget().await;
            }
            // MODE-1: requests from before the change of mode are answered.
            if !self.mode.borrow().serves(self.dht) {
                return self.write_out().await;
            }
            match self.arrival().await? {
                Arrival::Bytes => {}
                // A peer with a single request may close its half right after it, and still wants the answer.
                Arrival::End => return self.write_out().await,
            }
        }
    }

    fn hold(&mut self, answer: Bytes) -> Result<(), StreamError> {
        if !self.answers_lease.resize((self.answers.len() + answer.len()).saturating_sub(FREE)) {
            return Err(StreamError::OverBudget);
        }
        if self.answers.is_empty() {
            // A single answer is not copied.
            self.answers = answer.into();
        } else {
            self.answers.extend_from_slice(&answer);
        }
        Ok(())
    }

    /// Returns the time without progress after which a write fails.
    fn write_stall(&self) -> Duration {
        self.server.limits.message_timeout
    }

    async fn write(&mut self) -> Result<(), StreamError> {
        let server = self.server.clone();
        let Ok(_writing) = server.writing.try_acquire() else { return Err(StreamError::OverBudget) };
        self.unflushed = true;
        let stall = self.write_stall();
        write_moving(&mut self.stream, &self.answers, stall).await?;
        self.answers.clear();
        Ok(())
    }

    /// Writes and flushes the collected answers and frees their memory.
    async fn write_out(&mut self) -> Result<(), StreamError> {
        if !self.answers.is_empty() {
            self.write().await?;
        }
        if self.unflushed {
            let stall = self.write_stall();
            flush_moving(&mut self.stream, stall).await?;
            self.unflushed = false;
            self.answers = Vec::new();
            let _less_always_works = self.answers_lease.resize(0);
        }
        Ok(())
    }

    /// Reads more bytes. Before it waits for them, it writes the collected answers.
    async fn arrival(&mut self) -> Result<Arrival, StreamError> {
        let Self { reader, stream, .. } = self;
        let at_once = poll_fn(|cx| Poll::Ready(reader.poll_fill(cx, stream))).await;
        if let Poll::Ready(read) = at_once {
            return self.arrived(read?);
        }
        if self.reader.is_empty() {
            self.write_out().await?;
            return self.next_request().await;
        }
        // The time-out starts here and not at the first byte: nothing before this point has waited.
        let begun = clock::timer();
        self.write_out().await?;
        self.rest_of_message(begun).await
    }

    fn arrived(&self, read: usize) -> Result<Arrival, StreamError> {
        match read {
            0 if self.reader.is_empty() => Ok(Arrival::End),
            0 => Err(ReadError::Truncated.into()),
            _ => Ok(Arrival::Bytes),
        }
    }

    /// Waits for the next request, at most `streams.idle`, and only until the node shuts down or becomes a client.
    async fn next_request(&mut self) -> Result<Arrival, StreamError> {
        self.reader.release();
        let Self { reader, stream, server, patience, .. } = self;
        patience.renew(server.limits.idle);
        let read = poll_fn(|cx| {
            if let Poll::Ready(read) = reader.poll_fill(cx, stream) {
                return Poll::Ready(Some(read));
            }
            patience.poll_end(cx, &server.metrics).map(|()| None)
        });
        let Some(read) = read.await else { return Ok(Arrival::End) };
        match read {
            // Most clients end an idle stream with a reset.
            Err(ReadError::Io(error)) if is_end(&error) => Ok(Arrival::End),
            read => self.arrived(read?),
        }
    }

    /// Waits until all of the message that has begun has arrived.
    async fn rest_of_message(&mut self, begun: Instant) -> Result<Arrival, StreamError> {
        let limit = self.server.limits.message_timeout;
        loop {
            let Self { reader, stream, .. } = self;
            let read = tokio::time::timeout_at(begun + limit, poll_fn(|cx| reader.poll_fill(cx, stream))).await;
            let arrival = self.arrived(read.map_err(|_| StreamError::Unfinished(limit))??)?;
            if self.reader.message()?.is_some() {
                return Ok(arrival);
            }
        }
    }

    fn mark_heard(&mut self) {
        let now = self.server.clock.monotonic();
        if self.heard.is_none_or(|heard| now.saturating_sub(heard) >= HEARD_EVERY) {
            self.heard = Some(now);
            self.server.tables.of(self.dht).heard(&self.peer, now);
        }
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
    )
}
