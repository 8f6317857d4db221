//! Asks one server to dial us. This is the client side of AutoNAT v1 and v2, on one stream.

use super::{
    Nat,
    wire::{self, Answer, Said},
};
use crate::{
    error::RpcError,
    framing::{FrameReader, flush_moving, write_moving},
    peers::connections::{Open, OpenError},
    protocols::{AUTONAT_V1, AUTONAT_V2_REQUEST},
};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, swarm::ConnectionId};
use parking_lot::Mutex;
use std::time::Duration;
use tokio::{sync::oneshot, time::timeout};

/// Time-out of one request. The dial of a go server takes up to 15 s.
const ANSWER: Duration = Duration::from_secs(30);

/// Maximum length of an answer in bytes. Honest answers are far shorter.
const MAX_ANSWER: usize = 4096;

/// Time-out of a stream on which a server dials back.
const DIAL_BACK: Duration = Duration::from_secs(5);

/// Time to wait for the nonce after the answer. The nonce comes over another connection, so it may arrive later.
const NONCE: Duration = Duration::from_secs(2);

/// Time after which a write without progress fails.
const STALL: Duration = Duration::from_secs(10);

/// Maximum number of nonces that are awaited at the same time.
const MAX_NONCES: usize = 64;

/// The nonces that open requests wait for.
#[derive(Debug, Default)]
pub(crate) struct Nonces {
    waiting: Mutex<Vec<(u64, oneshot::Sender<()>)>>,
}

impl Nonces {
    fn expect(&self, nonce: u64) -> oneshot::Receiver<()> {
        let (shown, wait) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        waiting.retain(|(_, shown)| !shown.is_closed());
        if waiting.len() < MAX_NONCES {
            waiting.push((nonce, shown));
        }
        wait
    }

    /// Returns whether a request waits for this nonce, and wakes it.
    fn show(&self, nonce: u64) -> bool {
        let mut waiting = self.waiting.lock();
        let found = waiting.iter().position(|(expected, _)| *expected == nonce);
        found.is_some_and(|at| waiting.swap_remove(at).1.send(()).is_ok())
    }
}

impl Nat {
    /// Asks a v1 server whether it reaches any of `addrs`. The server dials only the IP address that we connect from.
    pub(super) async fn ask_v1(&self, peer: PeerId, on: ConnectionId, addrs: &[Multiaddr]) -> Result<Said, RpcError> {
        let asked = async {
            let mut stream = self.open_on(peer, on, AUTONAT_V1).await?;
            send(&mut stream, &wire::v1_request(&self.peers.local, addrs)).await?;
            let mut reader = FrameReader::new(&self.budget, MAX_ANSWER);
            let body = receive(&mut reader, &mut stream).await?;
            wire::v1_answer(&body).map_err(RpcError::bad_answer)
        };
        timeout(ANSWER, asked).await.map_err(|_| RpcError::Timeout(ANSWER))?
    }

    /// Asks a v2 server whether it reaches `addr`. The server sends a nonce there, which proves that it reached us.
    pub(super) async fn ask_v2(&self, peer: PeerId, on: ConnectionId, addr: &Multiaddr) -> Result<Said, RpcError> {
        let nonce: u64 = rand::random();
        let shown = self.nonces.expect(nonce);
        let asked = async {
            let mut stream = self.open_on(peer, on, AUTONAT_V2_REQUEST).await?;
            send(&mut stream, &wire::v2_request(addr, nonce)).await?;
            let mut reader = FrameReader::new(&self.budget, MAX_ANSWER);
            let mut padded = false;
            loop {
                let body = receive(&mut reader, &mut stream).await?;
                let answer = wire::v2_answer(&body).map_err(RpcError::bad_answer)?;
                match answer {
                    Answer::Dialled(said) => return Ok(said),
                    Answer::Padding(wanted) if !padded && wire::PADDING.contains(&wanted) => {
                        padded = true;
                        let mut left = wanted;
                        while left > 0 {
                            let (message, in_it) = wire::v2_padding(left);
                            send(&mut stream, &message).await?;
                            left -= in_it;
                        }
                    }
                    Answer::Padding(wanted) => {
                        return Err(RpcError::bad_answer(format!("wants {wanted} bytes before it dials")));
                    }
                }
            }
        };
        let said = timeout(ANSWER, asked).await.map_err(|_| RpcError::Timeout(ANSWER))??;
        if said == Said::Reached && !matches!(timeout(NONCE, shown).await, Ok(Ok(()))) {
            return Err(RpcError::bad_answer("claims to have dialled back but did not"));
        }
        Ok(said)
    }

    /// Serves a stream on which a v2 server that dialled us sends its nonce.
    pub(crate) async fn dialled_back(&self, mut stream: Stream) {
        let shown = async {
            let mut reader = FrameReader::new(&self.budget, MAX_ANSWER);
            let body = receive(&mut reader, &mut stream).await?;
            let nonce = wire::dial_back(&body).map_err(RpcError::bad_answer)?;
            if !self.nonces.show(nonce) {
                return Err(RpcError::bad_answer("not a nonce of ours"));
            }
            send(&mut stream, wire::DIAL_BACK_OK).await?;
            futures::AsyncWriteExt::close(&mut stream).await.map_err(RpcError::stream)
        };
        match timeout(DIAL_BACK, shown).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "dial back failed"),
            Err(_) => tracing::debug!("dial back timed out"),
        }
    }

    async fn open_on(&self, peer: PeerId, on: ConnectionId, protocol: StreamProtocol) -> Result<Stream, RpcError> {
        let closed = || RpcError::stream("connection closed");
        let opener = self.peers.connections.opener_on(&peer, on).ok_or_else(closed)?;
        let (reply, opened) = oneshot::channel();
        opener.send(Open { protocol, reply }).await.map_err(|_| closed())?;
        opened.await.map_err(|_| closed())?.map_err(|error| match error {
            OpenError::Unsupported => RpcError::Protocol("AutoNAT"),
            OpenError::Timeout(after) => RpcError::Timeout(after),
            OpenError::Io(error) => RpcError::stream(error),
        })
    }
}

async fn send(stream: &mut Stream, body: &[u8]) -> Result<(), RpcError> {
    let sent = async {
        write_moving(stream, &wire::framed(body), STALL).await?;
        flush_moving(stream, STALL).await
    };
    sent.await.map_err(RpcError::stream)
}

async fn receive(reader: &mut FrameReader, stream: &mut Stream) -> Result<Vec<u8>, RpcError> {
    match reader.next(stream).await {
        Ok(Some(at)) => {
            let body = reader.body(at).to_vec();
            reader.consume(at);
            Ok(body)
        }
        Ok(None) => Err(RpcError::stream("ended without an answer")),
        Err(error) => Err(RpcError::stream(error)),
    }
}
