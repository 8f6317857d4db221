//! What is done for an inbound stream: reads requests, answers them in order (MSG-2), keeps to time-outs and byte budgets.

mod answers;
mod patience;

use super::{
    Shared,
    counters::Counter,
    framing::{Budget, FREE, FrameReader, Lease, ReadError, WriteError, flush_moving, write_moving},
};
use crate::{
    clock,
    kad::{
        Dht,
        frame::{FrameError, MAX_REQUEST},
        message::DecodeError,
        mode::Decision,
        rules::Refusal,
        table::K,
    },
    store::values,
};
use answers::Announced;
use bytes::Bytes;
use futures::AsyncWriteExt;
use libp2p::{PeerId, Stream};
use patience::Patience;
use std::{future::poll_fn, io, sync::Arc, task::Poll, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tracing::debug;

/// Streams whose answers wait to be taken, in the whole process. Nothing is read from such a stream, and who keeps sending
/// leaves up to 256 KiB unread in yamux, which no budget of ours counts: 512 MiB at worst, instead of 16 GiB.
pub(crate) const MAX_WRITING: usize = 2048;

/// Answers to pipelined requests are gathered up to this size and written at once.
const WRITE_BATCH: usize = 16 * 1024;

/// How often at most a peer that keeps asking is marked as heard of.
const HEARD_EVERY: Duration = Duration::from_secs(60);

/// Why a stream is reset: told to nobody but the log and the counters.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    #[error("announcement not taken: {0}")]
    Store(#[from] crate::store::records::Refused),
    #[error("value not taken: {0}")]
    Value(#[from] values::Refused),
    #[error("message not finished within {0:?}")]
    Unfinished(Duration),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("too many answers wait to be written")]
    OverBudget,
}

impl StreamError {
    fn counter(&self) -> Counter {
        match self {
            Self::Read(ReadError::Frame(_)) | Self::Frame(_) => Counter::BadFrame,
            Self::Read(ReadError::OverBudget) | Self::OverBudget => Counter::OverBudget,
            Self::Read(ReadError::Truncated | ReadError::Io(_)) | Self::Write(WriteError::Io(_)) => {
                Counter::StreamBroken
            }
            Self::Malformed(_) => Counter::Malformed,
            Self::Refused(Refusal::EmptyKey) => Counter::EmptyKey,
            Self::Refused(Refusal::KeyTooLong) => Counter::KeyTooLong,
            Self::Refused(Refusal::NotAMultihash) => Counter::NotAMultihash,
            Self::Refused(Refusal::NotTheSender) => Counter::NotTheSender,
            Self::Refused(Refusal::UnknownNamespace) => Counter::UnknownNamespace,
            Self::Refused(Refusal::BadRecord) => Counter::BadRecord,
            Self::Value(values::Refused::Invalid(_)) => Counter::InvalidValue,
            Self::Value(values::Refused::Worse) => Counter::WorseValue,
            Self::Store(_)
            | Self::Value(values::Refused::Full | values::Refused::ReadOnly | values::Refused::DiskFull) => {
                Counter::StoreRefused
            }
            Self::Unfinished(_) => Counter::MessageTimeout,
            Self::Write(WriteError::Stalled(_)) => Counter::WriteStalled,
        }
    }
}

/// Serves one stream to its end.
pub(crate) async fn serve(shared: Arc<Shared>, peer: PeerId, dht: Dht, stream: Stream) {
    let mut session = Session::new(shared.clone(), peer, dht, stream);
    match session.run().await {
        Ok(()) => {
            let _ = timeout(session.write_stall(), session.stream.close()).await;
        }
        Err(error) => {
            // What was asked before the nonsense has its answer (MSG-2).
            if !matches!(error, StreamError::Write(_)) {
                let _ = session.write_out().await;
            }
            // Dropping the stream resets it: the nonsense is not answered (PRV-3, MSG-1).
            shared.counters.add(error.counter());
            debug!(%peer, dht = dht.name(), %error, "stream reset");
        }
    }
}

struct Session {
    shared: Arc<Shared>,
    peer: PeerId,
    dht: Dht,
    stream: Stream,
    reader: FrameReader,
    /// Answers not written yet.
    answers: Vec<u8>,
    answers_lease: Lease,
    /// Written, perhaps not on its way.
    unflushed: bool,
    heard: Option<Duration>,
    announced: Option<Announced>,
    mode: watch::Receiver<Decision>,
    patience: Patience,
}

/// What came while nothing was left to do.
enum Arrival {
    Bytes,
    End,
}

impl Session {
    fn new(shared: Arc<Shared>, peer: PeerId, dht: Dht, stream: Stream) -> Self {
        let budget: &Budget = &shared.read_budget;
        let reader = FrameReader::new(budget, MAX_REQUEST);
        let answers_lease = budget.lease();
        let mode = shared.mode.subscribe();
        let patience = Patience::new(&shared, dht);
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
            shared,
        }
    }

    async fn run(&mut self) -> Result<(), StreamError> {
        loop {
            while let Some(at) = self.reader.message()? {
                self.mark_heard();
                let answer = self.shared.answer(self.dht, self.peer, self.reader.body(at), &mut self.announced).await?;
                self.reader.consume(at);
                if let Some(answer) = answer {
                    self.hold(answer)?;
                }
                if self.answers.len() >= WRITE_BATCH {
                    self.write().await?;
                }
                // A peer that never stops sending shares the thread with the others.
                tokio::task::coop::consume_budget().await;
            }
            // MODE-1: what was asked before is answered.
            if !self.mode.borrow().serves(self.dht) {
                return self.write_out().await;
            }
            match self.arrival().await? {
                Arrival::Bytes => {}
                // Whoever asks once ends its half right behind the request, and still wants the answer.
                Arrival::End => return self.write_out().await,
            }
        }
    }

    fn hold(&mut self, answer: Bytes) -> Result<(), StreamError> {
        if !self.answers_lease.resize((self.answers.len() + answer.len()).saturating_sub(FREE)) {
            return Err(StreamError::OverBudget);
        }
        if self.answers.is_empty() {
            // A single answer is written from where it was made.
            self.answers = answer.into();
        } else {
            self.answers.extend_from_slice(&answer);
        }
        Ok(())
    }

    /// An answer must move within this time.
    fn write_stall(&self) -> Duration {
        self.shared.settings.streams.message_timeout
    }

    async fn write(&mut self) -> Result<(), StreamError> {
        let shared = self.shared.clone();
        let Ok(_writing) = shared.writing.try_acquire() else { return Err(StreamError::OverBudget) };
        self.unflushed = true;
        let stall = self.write_stall();
        write_moving(&mut self.stream, &self.answers, stall).await?;
        self.answers.clear();
        Ok(())
    }

    /// Writes what is held, sees it off and gives the memory back.
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

    /// Reads more; before it waits for that, what is answered goes out.
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
        // Counted from here and not from the first byte: everything before was done without waiting.
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

    /// Waits for the next request: as long as an idle stream may, or until the node shuts down.
    async fn next_request(&mut self) -> Result<Arrival, StreamError> {
        self.reader.release();
        let Self { reader, stream, shared, patience, .. } = self;
        patience.renew(shared.settings.streams.idle);
        let read = poll_fn(|cx| {
            if let Poll::Ready(read) = reader.poll_fill(cx, stream) {
                return Poll::Ready(Some(read));
            }
            patience.poll_end(cx, &shared.counters).map(|()| None)
        });
        let Some(read) = read.await else { return Ok(Arrival::End) };
        match read {
            // Most clients end an idle stream by a reset.
            Err(ReadError::Io(error)) if is_end(&error) => Ok(Arrival::End),
            read => self.arrived(read?),
        }
    }

    /// Waits until the message that has begun is whole.
    async fn rest_of_message(&mut self, begun: Instant) -> Result<Arrival, StreamError> {
        let limit = self.shared.settings.streams.message_timeout;
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
        let now = self.shared.clock.monotonic();
        if self.heard.is_none_or(|heard| now.saturating_sub(heard) >= HEARD_EVERY) {
            self.heard = Some(now);
            self.shared.routing.of(self.dht).heard(&self.peer, now);
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

/// Providers looked for: more do not fit into an answer, where one without addresses takes some 45 bytes.
pub(crate) const MAX_PROVIDERS: usize = 16 * K;
