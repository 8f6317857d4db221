//! Asks one server to dial us, over a stream: AutoNAT v1 and v2.

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

/// For one request: the server's own dial takes up to 15 s with go.
const ANSWER: Duration = Duration::from_secs(30);

/// Answers are far shorter.
const MAX_ANSWER: usize = 4096;

/// A stream that dials back is over in this time.
const DIAL_BACK: Duration = Duration::from_secs(5);

/// The nonce may come in a moment later than the answer: by another connection.
const NONCE: Duration = Duration::from_secs(2);

const STALL: Duration = Duration::from_secs(10);

/// Nonces under way.
const MAX_NONCES: usize = 64;

/// Who waits for which nonce.
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

    /// True if somebody waits for it.
    fn show(&self, nonce: u64) -> bool {
        let mut waiting = self.waiting.lock();
        let found = waiting.iter().position(|(expected, _)| *expected == nonce);
        found.is_some_and(|at| waiting.swap_remove(at).1.send(()).is_ok())
    }
}

impl Nat {
    /// v1: whether `peer` reaches any of `addrs`, at the IP address by which it sees us.
    pub(super) async fn ask_v1(&self, peer: PeerId, on: ConnectionId, addrs: &[Multiaddr]) -> Result<Said, RpcError> {
        let asked = async {
            let mut stream = self.open_on(peer, on, AUTONAT_V1).await?;
            send(&mut stream, &wire::v1_request(&self.peers.local, addrs)).await?;
            let mut reader = FrameReader::new(&self.budget, MAX_ANSWER);
            let body = receive(&mut reader, &mut stream).await?;
            wire::v1_answer(&body).map_err(|error| RpcError::BadAnswer(error.to_string()))
        };
        timeout(ANSWER, asked).await.map_err(|_| RpcError::Timeout(ANSWER))?
    }

    /// v2: whether `peer` reaches `addr`. "Reached" is proven by the nonce that it showed us there.
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
                let answer = wire::v2_answer(&body).map_err(|error| RpcError::BadAnswer(error.to_string()))?;
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
                        return Err(RpcError::BadAnswer(format!("wants {wanted} bytes before it dials")));
                    }
                }
            }
        };
        let said = timeout(ANSWER, asked).await.map_err(|_| RpcError::Timeout(ANSWER))??;
        if said == Said::Reached && !matches!(timeout(NONCE, shown).await, Ok(Ok(()))) {
            return Err(RpcError::BadAnswer("claims to have dialled back and did not".to_owned()));
        }
        Ok(said)
    }

    /// A peer that dialled us shows its nonce.
    pub(crate) async fn dialled_back(&self, mut stream: Stream) {
        let shown = async {
            let mut reader = FrameReader::new(&self.budget, MAX_ANSWER);
            let body = receive(&mut reader, &mut stream).await?;
            let nonce = wire::dial_back(&body).map_err(|error| RpcError::BadAnswer(error.to_string()))?;
            if !self.nonces.show(nonce) {
                return Err(RpcError::BadAnswer("not a nonce of ours".to_owned()));
            }
            send(&mut stream, wire::DIAL_BACK_OK).await?;
            futures::AsyncWriteExt::close(&mut stream).await.map_err(|error| RpcError::Stream(error.to_string()))
        };
        match timeout(DIAL_BACK, shown).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "dial back"),
            Err(_) => tracing::debug!("dial back not finished in time"),
        }
    }

    async fn open_on(&self, peer: PeerId, on: ConnectionId, protocol: StreamProtocol) -> Result<Stream, RpcError> {
        let closed = || RpcError::Stream("connection closed".to_owned());
        let opener = self.peers.connections.opener_on(&peer, on).ok_or_else(closed)?;
        let (reply, opened) = oneshot::channel();
        opener.send(Open { protocol, reply }).await.map_err(|_| closed())?;
        opened.await.map_err(|_| closed())?.map_err(|error| match error {
            OpenError::Unsupported => RpcError::Protocol("AutoNAT"),
            OpenError::Timeout(after) => RpcError::Timeout(after),
            OpenError::Io(error) => RpcError::Stream(error.to_string()),
        })
    }
}

async fn send(stream: &mut Stream, body: &[u8]) -> Result<(), RpcError> {
    let sent = async {
        write_moving(stream, &wire::framed(body), STALL).await?;
        flush_moving(stream, STALL).await
    };
    sent.await.map_err(|error| RpcError::Stream(error.to_string()))
}

async fn receive(reader: &mut FrameReader, stream: &mut Stream) -> Result<Vec<u8>, RpcError> {
    match reader.next(stream).await {
        Ok(Some(at)) => {
            let body = reader.body(at).to_vec();
            reader.consume(at);
            Ok(body)
        }
        Ok(None) => Err(RpcError::Stream("ended without an answer".to_owned())),
        Err(error) => Err(RpcError::Stream(error.to_string())),
    }
}
