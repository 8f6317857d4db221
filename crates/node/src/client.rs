//! Requests to other servers: one pooled stream per peer and DHT, its requests one after the other; ADD_PROVIDERs
//! pipelined in front of a FIND_NODE whose answer proves that they were read (design: "The wire").

mod dialled;
mod pool;
mod single;

use super::{
    Delivery, ProvidersAnswer, RpcError, Shared, ValueAnswer,
    driver::Command,
    framing::{Budget, FrameReader, ReadError, WriteError, flush_moving, write_moving},
    streams::{Open, OpenError, protocol},
};
use crate::kad::{
    Dht, PeerInfo,
    frame::MAX_ANSWER,
    message::{self, Message, MessageType, Record},
    rules::MAX_ADDRESSES,
    table::K,
    useful,
};
use bytes::Bytes;
use libp2p::{Multiaddr, PeerId, Stream};
use pool::Pool;
use single::Singles;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, oneshot},
    time::timeout,
};

/// An answer that takes longer is no answer; what go waits.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Nothing moves on a stream for so long: the peer does not read.
const WRITE_STALL: Duration = Duration::from_secs(10);

/// Dials have their own time-out in the transport; this one catches a command that is never answered.
const DIAL_TIMEOUT: Duration = Duration::from_secs(15);

/// Requests under way in the whole process: 100 look-ups at once.
const MAX_REQUESTS: usize = 1024;

/// Bytes of answers being read in the whole process: 16 of the longest, thousands of the usual 5 KB.
const ANSWER_BUDGET: usize = 64 * 1024 * 1024;

/// Addresses tried of one peer.
const MAX_DIALLED: usize = 16;

/// Peers taken from one answer: those of the k closest twice over, as go does.
const MAX_CLOSER: usize = 2 * K;

/// Providers taken from one answer: more do not fit into 16 KiB, which most servers keep to; go sends up to 4 MiB.
const MAX_PROVIDERS: usize = 1000;

/// ADD_PROVIDERs in front of one barrier, some 50 KB. More would make the answer wait for more work than its
/// time-out allows on a slow server.
const PIPELINE: usize = 256;

/// A server that ends the stream on so many records in a row, sent one by one, will not take the others either.
const MAX_REFUSED: usize = 3;

/// The client half of a node.
#[derive(Debug)]
pub(crate) struct Client {
    pool: Pool,
    singles: Singles,
    requests: Semaphore,
    dials: Semaphore,
    budget: Budget,
}

impl Client {
    /// `max_pending` connections may be under negotiation at a time.
    pub(crate) fn new(max_pending: u32) -> Self {
        Self {
            pool: Pool::default(),
            singles: Singles::default(),
            requests: Semaphore::new(MAX_REQUESTS),
            // Half of what the connection limits allow: over them a dial fails instead of waiting.
            dials: Semaphore::new((max_pending as usize / 2).max(1)),
            budget: Budget::new(ANSWER_BUDGET),
        }
    }

    /// Ends streams that were not used lately. Runs until the node stops.
    pub(crate) async fn keep_tidy(shared: Arc<Shared>) {
        loop {
            tokio::time::sleep(pool::SWEEP_EVERY).await;
            shared.client.pool.sweep(shared.clock.monotonic());
        }
    }
}

/// What FIND_NODE brought.
#[derive(Debug)]
pub(crate) struct NodeAnswer {
    /// The peer whose id was asked for, with the addresses that are worth handing out.
    pub(crate) sought: Option<PeerInfo>,
    /// Closer servers that can be asked; at most 2k.
    pub(crate) closer: Vec<PeerInfo>,
}

/// Frames to write, and the kind of answer that follows them.
struct Exchange<'a> {
    frames: &'a [Bytes],
    answer: MessageType,
}

impl Shared {
    /// FIND_NODE. What comes back is limited to the scope of `dht`; addresses that we know are filled in.
    pub(crate) async fn find_node(
        self: &Arc<Self>,
        dht: Dht,
        peer: &PeerInfo,
        target: &[u8],
    ) -> Result<NodeAnswer, RpcError> {
        let frames = [message::request(MessageType::FindNode, target)];
        let body = self.request(dht, peer, Exchange { frames: &frames, answer: MessageType::FindNode }).await;
        let answer = body.and_then(|body| {
            let answer = Message::decode(&body).map_err(|error| RpcError::BadAnswer(error.to_string()))?;
            Ok(NodeAnswer { sought: self.sought(dht, &answer, target), closer: self.closer_peers(dht, &answer) })
        });
        self.notice(dht, peer, answer.as_ref().map(|answer| answer.closer.len()));
        answer
    }

    /// The peer whose id is the target, if the answer names it with an address that is worth handing out: it may be behind a
    /// relay, and so none of those that can be asked.
    fn sought(&self, dht: Dht, answer: &Message<'_>, target: &[u8]) -> Option<PeerInfo> {
        let scope = self.settings.profile.scope(dht);
        let entry = answer.closer_peers().take(MAX_CLOSER).find(|entry| entry.id == target)?;
        let mut sought = entry.to_peer_info(MAX_ADDRESSES)?;
        sought.addrs.retain(|addr| scope.hands_out(addr));
        sought.addrs = useful::bounded(sought.addrs);
        (!sought.addrs.is_empty()).then_some(sought)
    }

    /// GET_PROVIDERS.
    pub(crate) async fn get_providers(
        self: &Arc<Self>,
        dht: Dht,
        peer: &PeerInfo,
        multihash: &[u8],
    ) -> Result<ProvidersAnswer, RpcError> {
        let answer = self.get_providers_unnoticed(dht, peer, multihash).await;
        self.notice(dht, peer, answer.as_ref().map(|answer| answer.closer.len()));
        answer
    }

    async fn get_providers_unnoticed(
        self: &Arc<Self>,
        dht: Dht,
        peer: &PeerInfo,
        multihash: &[u8],
    ) -> Result<ProvidersAnswer, RpcError> {
        let frames = [message::request(MessageType::GetProviders, multihash)];
        let body = self.request(dht, peer, Exchange { frames: &frames, answer: MessageType::GetProviders }).await?;
        let answer = Message::decode(&body).map_err(|error| RpcError::BadAnswer(error.to_string()))?;
        let scope = self.settings.profile.scope(dht);
        let providers = answer.provider_peers().take(MAX_PROVIDERS).filter_map(|raw| raw.to_peer_info(MAX_ADDRESSES));
        let providers = providers.map(|mut provider| {
            provider.addrs.retain(|addr| scope.hands_out(addr));
            provider.addrs = useful::bounded(provider.addrs);
            provider
        });
        Ok(ProvidersAnswer { providers: providers.collect(), closer: self.closer_peers(dht, &answer) })
    }

    /// GET_VALUE. The value is not validated.
    pub(crate) async fn get_value(
        self: &Arc<Self>,
        dht: Dht,
        peer: &PeerInfo,
        key: &[u8],
    ) -> Result<ValueAnswer, RpcError> {
        let frames = [message::request(MessageType::GetValue, key)];
        let body = self.request(dht, peer, Exchange { frames: &frames, answer: MessageType::GetValue }).await;
        let answer = body.and_then(|body| {
            let answer = Message::decode(&body).map_err(|error| RpcError::BadAnswer(error.to_string()))?;
            let value = value_of(&answer, key).map(<[u8]>::to_vec);
            Ok(ValueAnswer { value, closer: self.closer_peers(dht, &answer) })
        });
        self.notice(dht, peer, answer.as_ref().map(|answer| answer.closer.len()));
        answer
    }

    /// PUT_VALUE; the echo proves that it is stored (VAL-4).
    pub(crate) async fn put_value(
        self: &Arc<Self>,
        dht: Dht,
        peer: &PeerInfo,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), RpcError> {
        // go dates what it sends, too; the receiver dates it anew.
        let frames = [message::put_value(key, &message::record(key, value, &self.clock.wall().to_string()))];
        let body = self.request(dht, peer, Exchange { frames: &frames, answer: MessageType::PutValue }).await;
        let echoed = body.and_then(|body| {
            let echo = Message::decode(&body).map_err(|error| RpcError::BadAnswer(error.to_string()))?;
            let same = value_of(&echo, key) == Some(value);
            same.then_some(()).ok_or_else(|| RpcError::BadAnswer("another value than was sent".to_owned()))
        });
        match &echoed {
            // How a server refuses a value: that says nothing about how well it is.
            Err(RpcError::Stream(_)) => {}
            Ok(()) => self.notice(dht, peer, Ok(0)),
            Err(error) => self.notice(dht, peer, Err(error)),
        }
        echoed
    }

    /// See [`super::Node::add_providers`].
    pub(crate) async fn add_providers(
        self: &Arc<Self>,
        dht: Dht,
        peer: &PeerInfo,
        multihashes: &[Vec<u8>],
    ) -> Delivery {
        let provider = self.provider_entry(dht);
        if self.provider_addresses(dht).is_empty() {
            let why = "we have no address to announce there; set `announce` or `provide.addresses`";
            return Delivery { read: Vec::new(), error: Some(RpcError::Stream(why.to_owned())) };
        }
        let barrier = message::request(MessageType::FindNode, &self.local.to_bytes());
        let mut delivery = Delivery::default();
        for (number, chunk) in multihashes.chunks(PIPELINE).enumerate() {
            let first = number * PIPELINE;
            if self.client.singles.contains(&peer.id, self.clock.monotonic()) {
                if !self.add_on_own_streams(dht, peer, (first, chunk), &provider, &mut delivery).await {
                    return delivery;
                }
                continue;
            }
            let adds = chunk.iter().map(|multihash| message::add_provider(multihash, &provider));
            let frames: Vec<Bytes> = adds.chain([barrier.clone()]).collect();
            match self.barrier(dht, peer, &frames).await {
                Ok(()) => delivery.read.extend(first..first + chunk.len()),
                // Either it reads one request of each stream, or one record that it refuses ended the stream for all.
                Err(error @ RpcError::Stream(_)) => {
                    let goes_on = if self.reads_one_per_stream(dht, peer).await {
                        tracing::debug!(peer = %peer.id, "reads one request of each stream: announcing on streams of their own");
                        self.client.singles.insert(peer.id, self.clock.monotonic());
                        self.add_on_own_streams(dht, peer, (first, chunk), &provider, &mut delivery).await
                    } else if chunk.len() > 1 {
                        self.one_by_one(dht, peer, (first, &frames), &barrier, &mut delivery).await
                    } else {
                        delivery.error = Some(error);
                        false
                    };
                    if !goes_on {
                        return delivery;
                    }
                }
                Err(error) => {
                    delivery.error = Some(error);
                    return delivery;
                }
            }
        }
        delivery
    }

    /// Each of the frames but the last, which is the barrier, behind a barrier of its own; the first is at the given
    /// position of the delivery. False if the server is of no use for further ones.
    async fn one_by_one(
        self: &Arc<Self>,
        dht: Dht,
        peer: &PeerInfo,
        (first, frames): (usize, &[Bytes]),
        barrier: &Bytes,
        delivery: &mut Delivery,
    ) -> bool {
        let mut refused = 0;
        let adds = frames.split_last().map(|(_, adds)| adds).unwrap_or_default();
        for (at, add) in adds.iter().enumerate() {
            match self.barrier(dht, peer, &[add.clone(), barrier.clone()]).await {
                Ok(()) => {
                    delivery.read.push(first + at);
                    refused = 0;
                }
                Err(error) => {
                    refused += 1;
                    let hopeless = refused == MAX_REFUSED || !matches!(error, RpcError::Stream(_));
                    delivery.error = Some(error);
                    if hopeless {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// Writes `frames`, the last of which is a FIND_NODE, and waits for its answer.
    async fn barrier(self: &Arc<Self>, dht: Dht, peer: &PeerInfo, frames: &[Bytes]) -> Result<(), RpcError> {
        let answer = self.request(dht, peer, Exchange { frames, answer: MessageType::FindNode }).await;
        let closer = answer.and_then(|body| {
            let answer = Message::decode(&body).map_err(|error| RpcError::BadAnswer(error.to_string()))?;
            Ok(answer.closer_peers().count())
        });
        self.notice(dht, peer, closer.as_ref().copied());
        closer.map(|_| ())
    }

    fn closer_of(&self, dht: Dht, answer: &[u8]) -> Result<Vec<PeerInfo>, RpcError> {
        let answer = Message::decode(answer).map_err(|error| RpcError::BadAnswer(error.to_string()))?;
        Ok(self.closer_peers(dht, &answer))
    }

    fn closer_peers(&self, dht: Dht, answer: &Message<'_>) -> Vec<PeerInfo> {
        let closer = answer.closer_peers().take(MAX_CLOSER).filter_map(|raw| raw.to_peer_info(useful::MAX_ADDRESSES));
        closer.filter(|peer| peer.id != self.local).filter_map(|peer| self.reachable(dht, peer)).collect()
    }

    /// The peer with the addresses that may be dialled in `dht`, from our own books where the answer has none.
    /// `None` if it cannot be asked at all.
    pub(crate) fn reachable(&self, dht: Dht, mut peer: PeerInfo) -> Option<PeerInfo> {
        let scope = self.settings.profile.scope(dht);
        peer.addrs.retain(|addr| scope.allows(addr));
        if peer.addrs.is_empty() {
            peer.addrs = self.known_addresses(&peer.id);
            peer.addrs.retain(|addr| scope.allows(addr));
        }
        (!peer.addrs.is_empty() || self.connections.is_connected(&peer.id)).then_some(peer)
    }

    /// One exchange on the pooled stream, or on a fresh one if that turns out stale. The answer's body.
    async fn request(&self, dht: Dht, peer: &PeerInfo, exchange: Exchange<'_>) -> Result<Vec<u8>, RpcError> {
        if self.stop.is_cancelled() {
            return Err(RpcError::Stopped);
        }
        let _permit = self.client.requests.acquire().await.map_err(|_| RpcError::Stopped)?;
        if self.client.singles.contains(&peer.id, self.clock.monotonic()) {
            let mut stream = self.open(dht, peer).await?;
            let body = self.talk(&mut stream, &exchange).await?;
            pool::end(stream);
            return Ok(body);
        }
        let slot = self.client.pool.slot((peer.id, dht), self.clock.monotonic());
        let Ok(mut place) = timeout(ANSWER_TIMEOUT, slot.lock()).await else {
            return Err(RpcError::Busy("earlier requests to this peer are still under way"));
        };
        if let Some(mut stream) = place.take() {
            match self.talk(&mut stream, &exchange).await {
                Ok(body) => {
                    place.put(stream, self.clock.monotonic());
                    return Ok(body);
                }
                // Ended since it was last used, or right now: the one retry.
                Err(RpcError::Stream(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let mut stream = self.open(dht, peer).await?;
        let body = self.talk(&mut stream, &exchange).await?;
        place.put(stream, self.clock.monotonic());
        Ok(body)
    }

    async fn talk(&self, stream: &mut Stream, exchange: &Exchange<'_>) -> Result<Vec<u8>, RpcError> {
        let ended = |error: WriteError| match error {
            WriteError::Stalled(stall) => RpcError::Timeout(stall),
            WriteError::Io(error) => RpcError::Stream(error.to_string()),
        };
        for frame in exchange.frames {
            write_moving(stream, frame, WRITE_STALL).await.map_err(ended)?;
        }
        flush_moving(stream, WRITE_STALL).await.map_err(ended)?;
        let mut reader = FrameReader::new(&self.client.budget, MAX_ANSWER);
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
    async fn open(&self, dht: Dht, peer: &PeerInfo) -> Result<Stream, RpcError> {
        /// A connection may close just before it is asked.
        const ATTEMPTS: usize = 2;
        for _ in 0..ATTEMPTS {
            let Some(opener) = self.connections.opener(&peer.id) else {
                let scope = self.settings.profile.scope(dht);
                let addrs = peer.addrs.iter().filter(|addr| scope.allows(addr)).cloned().collect();
                self.dial(Some(peer.id), addrs).await?;
                continue;
            };
            if let Some(stream) = open_on(&opener, dht).await? {
                return Ok(stream);
            }
        }
        // The dial above is the last thing that happened: ask the connection it made.
        match self.connections.opener(&peer.id) {
            Some(opener) => open_on(&opener, dht).await?.ok_or(RpcError::Stream("connection closed".to_owned())),
            None => Err(RpcError::Stream("connection closed".to_owned())),
        }
    }

    /// Connects, unless there is a connection.
    pub(crate) async fn dial(&self, peer: Option<PeerId>, addrs: Vec<Multiaddr>) -> Result<PeerId, RpcError> {
        if let Some(peer) = peer.filter(|peer| self.connections.is_connected(peer)) {
            return Ok(peer);
        }
        self.dial_by(peer, addrs, false).await
    }

    /// Connects once more if there is a connection: only that tells whether the peer is at these addresses.
    pub(crate) async fn dial_afresh(&self, peer: PeerId, addrs: Vec<Multiaddr>) -> Result<PeerId, RpcError> {
        self.dial_by(Some(peer), addrs, true).await
    }

    async fn dial_by(&self, peer: Option<PeerId>, mut addrs: Vec<Multiaddr>, afresh: bool) -> Result<PeerId, RpcError> {
        if addrs.is_empty() {
            return Err(RpcError::Dial("no address that may be dialled".to_owned()));
        }
        addrs.truncate(MAX_DIALLED);
        let _permit = self.client.dials.acquire().await.map_err(|_| RpcError::Stopped)?;
        let (reply, outcome) = oneshot::channel();
        self.commands.send(Command::Dial { peer, addrs, afresh, reply }).await.map_err(|_| RpcError::Stopped)?;
        match timeout(DIAL_TIMEOUT, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(RpcError::Stopped),
            Err(_) => Err(RpcError::Timeout(DIAL_TIMEOUT)),
        }
    }
}

/// The value of a message's record, if that is one of `key`.
fn value_of<'a>(message: &Message<'a>, key: &[u8]) -> Option<&'a [u8]> {
    let record = Record::decode(message.record?).ok()?;
    (record.key == key && !record.value.is_empty()).then_some(record.value)
}

/// A stream on one connection; `None` if the connection has closed.
async fn open_on(opener: &tokio::sync::mpsc::Sender<Open>, dht: Dht) -> Result<Option<Stream>, RpcError> {
    let (reply, opened) = oneshot::channel();
    let asked = async {
        opener.send(Open { protocol: protocol(dht), reply }).await.ok()?;
        opened.await.ok()
    };
    match timeout(ANSWER_TIMEOUT, asked).await {
        Err(_) => Err(RpcError::Timeout(ANSWER_TIMEOUT)),
        Ok(None) => Ok(None),
        Ok(Some(Ok(stream))) => Ok(Some(stream)),
        Ok(Some(Err(OpenError::Unsupported))) => Err(RpcError::Protocol(match dht {
            Dht::Wan => "/ipfs/kad/1.0.0",
            Dht::Lan => "/ipfs/lan/kad/1.0.0",
        })),
        Ok(Some(Err(OpenError::Timeout(after)))) => Err(RpcError::Timeout(after)),
        Ok(Some(Err(OpenError::Io(error)))) => Err(RpcError::Stream(error.to_string())),
    }
}
