//! Sends frames to a peer and reads its answer, on a pooled stream.

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

/// Time-out of an answer, as in go.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Time without progress after which a write fails: the peer does not read.
pub(super) const WRITE_STALL: Duration = Duration::from_secs(10);

/// Most requests under way in the whole process: enough for 100 look-ups at a time.
const MAX_REQUESTS: usize = 1024;

/// Maximum size of the answers being read in the whole process, in bytes: 16 of the longest answers, or thousands of
/// the usual ones of 5 KB.
const ANSWER_BUDGET: usize = 64 * 1024 * 1024;

/// Frames to write, and the type of the answer that follows them.
pub(super) struct Exchange<'a> {
    pub(super) frames: &'a [Bytes],
    pub(super) answer: MessageType,
}

/// Makes exchanges within the limits of the process.
pub(super) struct Exchanges {
    pub(super) peers: Arc<Peers>,
    pub(super) dialer: Arc<Dialer>,
    pool: Pool,
    requests: Semaphore,
    budget: Budget,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    /// Most connections that one peer may have.
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

    /// Ends pooled streams that were not used recently.
    pub(super) fn sweep(&self) {
        self.pool.sweep(self.clock.monotonic());
    }

    /// Waits for a place among the requests under way.
    pub(super) async fn permit(&self) -> Result<SemaphorePermit<'_>, RpcError> {
        if self.stop.is_cancelled() {
            return Err(RpcError::Stopped);
        }
        self.requests.acquire().await.map_err(|_| RpcError::Stopped)
    }

    /// Makes one exchange on the pooled stream, or on a new one if that one has ended. Returns the body of the answer.
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
                // The stream ended since its last use, or just now: retry once.
                Err(RpcError::Stream(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let mut stream = self.open(dht, peer).await?;
        let body = self.talk(&mut stream, &exchange).await?;
        kept.put(stream, self.clock.monotonic());
        Ok(body)
    }

    /// Makes one exchange on a new stream.
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

    /// Creates a reader of answers within the budget of the process.
    pub(super) fn reader(&self) -> FrameReader {
        FrameReader::new(&self.budget, MAX_ANSWER)
    }

    pub(super) async fn talk(&self, stream: &mut Stream, exchange: &Exchange<'_>) -> Result<Vec<u8>, RpcError> {
        for frame in exchange.frames {
            write_moving(stream, frame, WRITE_STALL).await.map_err(not_written)?;
        }
        flush_moving(stream, WRITE_STALL).await.map_err(not_written)?;
        let mut reader = self.reader();
        // Some servers echo ADD_PROVIDER, as the specification allows. An echo is not the answer.
        for _ in exchange.frames {
            let read = timeout(ANSWER_TIMEOUT, reader.next(stream));
            let at = match read.await.map_err(|_| RpcError::Timeout(ANSWER_TIMEOUT))? {
                Ok(Some(at)) => at,
                Ok(None) => return Err(RpcError::stream("ended without an answer")),
                Err(ReadError::Io(error)) => return Err(RpcError::stream(error)),
                Err(error @ ReadError::Truncated) => return Err(RpcError::stream(error)),
                Err(ReadError::OverBudget) => return Err(RpcError::Busy("too many long answers at once")),
                Err(ReadError::Frame(error)) => return Err(RpcError::bad_answer(error)),
            };
            let kind = Message::decode(reader.body(at)).map_err(RpcError::bad_answer)?.kind;
            if kind == exchange.answer {
                let body = reader.body(at).to_vec();
                reader.consume(at);
                if !reader.is_empty() {
                    return Err(RpcError::bad_answer("more than one answer"));
                }
                return Ok(body);
            }
            if kind != MessageType::AddProvider {
                return Err(RpcError::bad_answer(format!("{kind:?} to {:?}", exchange.answer)));
            }
            reader.consume(at);
        }
        Err(RpcError::bad_answer("only echoes of ADD_PROVIDER"))
    }

    /// Opens a stream on an open connection, or else dials the peer first.
    pub(super) async fn open(&self, dht: Dht, peer: &PeerInfo) -> Result<Stream, RpcError> {
        /// Number of attempts. More than one, because a connection may close just before the request for a stream.
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
        // The last attempt ended with a dial: open the stream on that connection.
        match self.peers.connections.opener(&peer.id) {
            Some(opener) => open_on(&opener, dht).await?.ok_or_else(closed),
            None => Err(closed()),
        }
    }
}

/// Opens a stream on one connection. Returns `None` if the connection has closed.
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
        Ok(Some(Err(OpenError::Io(error)))) => Err(RpcError::stream(error)),
    }
}

pub(super) fn closed() -> RpcError {
    RpcError::stream("connection closed")
}

/// Maps the error of a write to the error of the request.
pub(super) fn not_written(error: WriteError) -> RpcError {
    match error {
        WriteError::Stalled(stall) => RpcError::Timeout(stall),
        WriteError::Io(error) => RpcError::stream(error),
    }
}
