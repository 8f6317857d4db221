//! Frames to a peer and its answer back, on a stream of the pool.

use super::pool::{self, Pool};
use crate::{
    dialer::Dialer,
    error::RpcError,
    framing::{Budget, FrameReader, ReadError, WriteError, flush_moving, write_moving},
    kad::{
        Dht, PeerInfo,
        frame::MAX_ANSWER,
        message::{Message, MessageType},
    },
    peers::{
        Peers,
        connections::{Open, OpenError},
    },
    protocols,
};
use bytes::Bytes;
use dhtstore_host::clock::Clock;
use libp2p::Stream;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, SemaphorePermit, mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// An answer that takes longer is no answer; what go waits.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Nothing moves on a stream for so long: the peer does not read.
pub(super) const WRITE_STALL: Duration = Duration::from_secs(10);

/// Requests under way in the whole process: 100 look-ups at once.
const MAX_REQUESTS: usize = 1024;

/// Bytes of answers being read in the whole process: 16 of the longest, thousands of the usual 5 KB.
const ANSWER_BUDGET: usize = 64 * 1024 * 1024;

/// Frames to write, and the kind of answer that follows them.
pub(super) struct Exchange<'a> {
    pub(super) frames: &'a [Bytes],
    pub(super) answer: MessageType,
}

/// Makes exchanges, within the bounds of the process.
pub(super) struct Exchanges {
    pub(super) peers: Arc<Peers>,
    pub(super) dialer: Arc<Dialer>,
    pool: Pool,
    requests: Semaphore,
    budget: Budget,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    /// Connections that one peer may have.
    pub(super) max_per_peer: usize,
}

impl Exchanges {
    pub(super) fn new(
        peers: Arc<Peers>,
        dialer: Arc<Dialer>,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
        max_per_peer: usize,
    ) -> Self {
        Self {
            peers,
            dialer,
            pool: Pool::default(),
            requests: Semaphore::new(MAX_REQUESTS),
            budget: Budget::new(ANSWER_BUDGET),
            clock,
            stop,
            max_per_peer,
        }
    }

    /// Ends streams that were not used lately.
    pub(super) fn sweep(&self) {
        self.pool.sweep(self.clock.monotonic());
    }

    /// A place among the requests under way.
    pub(super) async fn permit(&self) -> Result<SemaphorePermit<'_>, RpcError> {
        if self.stop.is_cancelled() {
            return Err(RpcError::Stopped);
        }
        self.requests.acquire().await.map_err(|_| RpcError::Stopped)
    }

    /// One exchange on the pooled stream, or on a fresh one if that turns out stale. The answer's body.
    pub(super) async fn request(&self, dht: Dht, peer: &PeerInfo, exchange: Exchange<'_>) -> Result<Vec<u8>, RpcError> {
        let _permit = self.permit().await?;
        let slot = self.pool.slot((peer.id, dht), self.clock.monotonic());
        let Ok(mut kept) = timeout(ANSWER_TIMEOUT, slot.lock()).await else {
            return Err(RpcError::Busy("earlier requests to this peer are still under way"));
        };
        if let Some(mut stream) = kept.take() {
            match self.talk(&mut stream, &exchange).await {
                Ok(body) => {
                    kept.put(stream, self.clock.monotonic());
                    return Ok(body);
                }
                // Ended since it was last used, or right now: the one retry.
                Err(RpcError::Stream(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let mut stream = self.open(dht, peer).await?;
        let body = self.talk(&mut stream, &exchange).await?;
        kept.put(stream, self.clock.monotonic());
        Ok(body)
    }

    /// One exchange on a stream of its own.
    pub(super) async fn request_alone(
        &self,
        dht: Dht,
        peer: &PeerInfo,
        exchange: Exchange<'_>,
    ) -> Result<Vec<u8>, RpcError> {
        let _permit = self.permit().await?;
        let mut stream = self.open(dht, peer).await?;
        let body = self.talk(&mut stream, &exchange).await?;
        pool::end(stream);
        Ok(body)
    }

    /// A reader of answers, within the budget of the process.
    pub(super) fn reader(&self) -> FrameReader {
        FrameReader::new(&self.budget, MAX_ANSWER)
    }

    pub(super) async fn talk(&self, stream: &mut Stream, exchange: &Exchange<'_>) -> Result<Vec<u8>, RpcError> {
        for frame in exchange.frames {
            write_moving(stream, frame, WRITE_STALL).await.map_err(not_written)?;
        }
        flush_moving(stream, WRITE_STALL).await.map_err(not_written)?;
        let mut reader = self.reader();
        // The specification speaks of an echo of ADD_PROVIDER: from whoever sends one it is not the answer.
        for _ in exchange.frames {
            let read = timeout(ANSWER_TIMEOUT, reader.next(stream));
            let at = match read.await.map_err(|_| RpcError::Timeout(ANSWER_TIMEOUT))? {
                Ok(Some(at)) => at,
                Ok(None) => return Err(RpcError::Stream("ended without an answer".to_owned())),
                Err(ReadError::Io(error)) => return Err(RpcError::Stream(error.to_string())),
                Err(error @ ReadError::Truncated) => return Err(RpcError::Stream(error.to_string())),
                Err(ReadError::OverBudget) => return Err(RpcError::Busy("too many long answers at once")),
                Err(ReadError::Frame(error)) => return Err(RpcError::BadAnswer(error.to_string())),
            };
            let kind = Message::decode(reader.body(at)).map_err(|error| RpcError::BadAnswer(error.to_string()))?.kind;
            if kind == exchange.answer {
                let body = reader.body(at).to_vec();
                reader.consume(at);
                if !reader.is_empty() {
                    return Err(RpcError::BadAnswer("more than one answer".to_owned()));
                }
                return Ok(body);
            }
            if kind != MessageType::AddProvider {
                return Err(RpcError::BadAnswer(format!("{kind:?} to {:?}", exchange.answer)));
            }
            reader.consume(at);
        }
        Err(RpcError::BadAnswer("echoes only".to_owned()))
    }

    /// A fresh stream on a connection that is open, or after a dial.
    pub(super) async fn open(&self, dht: Dht, peer: &PeerInfo) -> Result<Stream, RpcError> {
        /// A connection may close just before it is asked.
        const ATTEMPTS: usize = 2;
        for _ in 0..ATTEMPTS {
            let Some(opener) = self.peers.connections.opener(&peer.id) else {
                self.dialer.dial(Some(peer.id), self.peers.dialable(dht, peer)).await?;
                continue;
            };
            if let Some(stream) = open_on(&opener, dht).await? {
                return Ok(stream);
            }
        }
        // The dial above is the last thing that happened: ask the connection it made.
        match self.peers.connections.opener(&peer.id) {
            Some(opener) => open_on(&opener, dht).await?.ok_or_else(closed),
            None => Err(closed()),
        }
    }
}

/// A stream on one connection; `None` if the connection has closed.
pub(super) async fn open_on(opener: &mpsc::Sender<Open>, dht: Dht) -> Result<Option<Stream>, RpcError> {
    let (reply, opened) = oneshot::channel();
    let asked = async {
        opener.send(Open { protocol: protocols::of(dht), reply }).await.ok()?;
        opened.await.ok()
    };
    match timeout(ANSWER_TIMEOUT, asked).await {
        Err(_) => Err(RpcError::Timeout(ANSWER_TIMEOUT)),
        Ok(None) => Ok(None),
        Ok(Some(Ok(stream))) => Ok(Some(stream)),
        Ok(Some(Err(OpenError::Unsupported))) => Err(RpcError::Protocol(dht.protocol())),
        Ok(Some(Err(OpenError::Timeout(after)))) => Err(RpcError::Timeout(after)),
        Ok(Some(Err(OpenError::Io(error)))) => Err(RpcError::Stream(error.to_string())),
    }
}

pub(super) fn closed() -> RpcError {
    RpcError::Stream("connection closed".to_owned())
}

/// What a write that failed says of the peer.
pub(super) fn not_written(error: WriteError) -> RpcError {
    match error {
        WriteError::Stalled(stall) => RpcError::Timeout(stall),
        WriteError::Io(error) => RpcError::Stream(error.to_string()),
    }
}
