//! Sends typed requests to other servers and decodes their answers. Reports each outcome to an [`Observer`]; nothing
//! here knows about routing tables.
//!
//! ```text
//! exchange  sends frames and reads the answer, on a pooled stream or on a stream of its own
//! dialled   does the same over a connection that we dialled (RT-4)
//! announce  sends ADD_PROVIDERs and has them confirmed
//! single    announces to servers that read only one request of each stream;  singles remembers those servers
//! ```

mod announce;
mod dialled;
mod exchange;
mod pool;
mod single;
mod singles;

use crate::{
    dialer::Dialer,
    error::RpcError,
    kad::{
        Dht, PeerInfo,
        message::{self, Message, MessageType, Record},
        rules::MAX_ADDRESSES,
        table::K,
        useful,
    },
    peers::Peers,
    settings::Settings,
};
use dhtstore_host::clock::Clock;
use dhtstore_records::providers::ProviderRecords;
use exchange::{Exchange, Exchanges};
use libp2p::{Multiaddr, PeerId};
use pool::SWEEP_EVERY;
use singles::Singles;
use std::{
    fmt,
    sync::{Arc, Weak},
};
use tokio_util::sync::CancellationToken;

/// Most closer peers taken from one answer: 2k, as in go.
const MAX_CLOSER: usize = 2 * K;

/// Most providers taken from one answer. More do not fit into 16 KiB, the limit of most servers; go sends up to 4 MiB.
const MAX_PROVIDERS: usize = 1000;

/// Records refused in a row, each sent alone, after which the server is expected to refuse all others too.
const MAX_REFUSED: usize = 3;

/// The answer to GET_PROVIDERS.
#[derive(Clone, Debug)]
pub struct ProvidersAnswer {
    /// The providers, with the addresses that belong to the DHT; at most 1,000.
    pub providers: Vec<PeerInfo>,
    /// Closer servers; at most 2k.
    pub closer: Vec<PeerInfo>,
}

/// The answer to GET_VALUE.
#[derive(Clone, Debug)]
pub struct ValueAnswer {
    /// The value that the server holds for the key, not validated.
    pub value: Option<Vec<u8>>,
    /// Closer servers; at most 2k.
    pub closer: Vec<PeerInfo>,
}

/// The answer to FIND_NODE.
#[derive(Debug)]
pub(crate) struct NodeAnswer {
    /// The peer whose id is the target, with those of its addresses that may be handed out.
    pub(crate) sought: Option<PeerInfo>,
    /// Closer servers that can be asked; at most 2k.
    pub(crate) closer: Vec<PeerInfo>,
}

/// The outcome of sending a batch of ADD_PROVIDERs to one peer.
#[derive(Clone, Debug, Default)]
pub struct Delivery {
    /// Positions in the batch, ascending, of the announcements that the server has read. Its answer proves it.
    pub read: Vec<usize>,
    /// Why it did not read the others.
    pub error: Option<RpcError>,
}

impl Delivery {
    /// Returns how many the server has read.
    pub fn confirmed(&self) -> usize {
        self.read.len()
    }

    /// Records the outcome of one announcement that was sent alone. `refused` counts failures in a row. Returns whether
    /// to continue with this server.
    fn note(&mut self, position: usize, outcome: Result<(), RpcError>, refused: &mut usize) -> bool {
        let Err(error) = outcome else {
            self.read.push(position);
            *refused = 0;
            return true;
        };
        *refused += 1;
        let goes_on = *refused < MAX_REFUSED && matches!(error, RpcError::Stream(_));
        self.error = Some(error);
        goes_on
    }
}

/// Receives the outcome of requests.
pub(crate) trait Observer: Send + Sync {
    /// Reports that `peer` answered a request, with the number of closer peers, or that it failed.
    fn answered(&self, dht: Dht, peer: &PeerInfo, closer: Result<usize, &RpcError>);
}

/// Sends requests.
pub(crate) struct Rpc {
    peers: Arc<Peers>,
    providers: Arc<dyn ProviderRecords>,
    exchanges: Exchanges,
    singles: Singles,
    observer: Weak<dyn Observer>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Rpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rpc").finish_non_exhaustive()
    }
}

impl Rpc {
    /// Creates the sender. `providers` supplies addresses for peers that an answer names without any. `observer` may be
    /// created later.
    pub(crate) fn new(
        peers: Arc<Peers>,
        dialer: Arc<Dialer>,
        providers: Arc<dyn ProviderRecords>,
        observer: Weak<dyn Observer>,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
        settings: &Settings,
    ) -> Self {
        let max_per_peer = settings.connections.max_per_peer as usize;
        let exchanges = Exchanges::new(peers.clone(), dialer, clock.clone(), stop, max_per_peer);
        Self { peers, providers, exchanges, singles: Singles::default(), observer, clock }
    }

    /// Ends pooled streams that were not used recently. Runs until the caller drops the future.
    pub(crate) async fn keep_tidy(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            self.exchanges.sweep();
        }
    }

    /// Sends FIND_NODE. The peers of the answer keep only addresses in the scope of `dht`; a peer without any gets
    /// those that we know.
    pub(crate) async fn find_node(&self, dht: Dht, peer: &PeerInfo, target: &[u8]) -> Result<NodeAnswer, RpcError> {
        let frames = [message::request(MessageType::FindNode, target)];
        let body = self.exchange(dht, peer, Exchange { frames: &frames, answer: MessageType::FindNode }).await;
        let answer = body.and_then(|body| {
            let answer = decode(&body)?;
            Ok(NodeAnswer { sought: self.sought(dht, &answer, target), closer: self.closer_peers(dht, &answer) })
        });
        self.notice(dht, peer, answer.as_ref().map(|answer| answer.closer.len()));
        answer
    }

    /// Sends FIND_NODE over a connection that we dialled, an open one or a new one. Returns the closer peers, and the
    /// address at which the peer answered. Does not report to the observer.
    pub(crate) async fn find_node_dialled(
        &self,
        dht: Dht,
        peer: &PeerInfo,
        target: &[u8],
    ) -> Result<(Vec<PeerInfo>, Multiaddr), RpcError> {
        let frames = [message::request(MessageType::FindNode, target)];
        let exchange = Exchange { frames: &frames, answer: MessageType::FindNode };
        let (body, at) = self.exchanges.request_dialled(dht, peer, exchange).await?;
        Ok((self.closer_peers(dht, &decode(&body)?), at))
    }

    /// Sends GET_PROVIDERS.
    pub(crate) async fn get_providers(
        &self,
        dht: Dht,
        peer: &PeerInfo,
        multihash: &[u8],
    ) -> Result<ProvidersAnswer, RpcError> {
        let frames = [message::request(MessageType::GetProviders, multihash)];
        let body = self.exchange(dht, peer, Exchange { frames: &frames, answer: MessageType::GetProviders }).await;
        let answer = body.and_then(|body| {
            let answer = decode(&body)?;
            Ok(ProvidersAnswer { providers: self.providers_in(dht, &answer), closer: self.closer_peers(dht, &answer) })
        });
        self.notice(dht, peer, answer.as_ref().map(|answer| answer.closer.len()));
        answer
    }

    /// Sends GET_VALUE. Does not validate the value.
    pub(crate) async fn get_value(&self, dht: Dht, peer: &PeerInfo, key: &[u8]) -> Result<ValueAnswer, RpcError> {
        let frames = [message::request(MessageType::GetValue, key)];
        let body = self.exchange(dht, peer, Exchange { frames: &frames, answer: MessageType::GetValue }).await;
        let answer = body.and_then(|body| {
            let answer = decode(&body)?;
            let value = value_of(&answer, key).map(<[u8]>::to_vec);
            Ok(ValueAnswer { value, closer: self.closer_peers(dht, &answer) })
        });
        self.notice(dht, peer, answer.as_ref().map(|answer| answer.closer.len()));
        answer
    }

    /// Sends PUT_VALUE. The echo proves that the server stored the value (VAL-4).
    pub(crate) async fn put_value(&self, dht: Dht, peer: &PeerInfo, key: &[u8], value: &[u8]) -> Result<(), RpcError> {
        // As go does, the record carries our time; the receiver replaces it.
        let frames = [message::put_value(key, &message::record(key, value, &self.clock.wall().to_string()))];
        let body = self.exchange(dht, peer, Exchange { frames: &frames, answer: MessageType::PutValue }).await;
        let echoed = body.and_then(|body| {
            let same = value_of(&decode(&body)?, key) == Some(value);
            same.then_some(()).ok_or_else(|| RpcError::bad_answer("the echo is not the value that was sent"))
        });
        match &echoed {
            // A server refuses a value by ending the stream; that says nothing about its health.
            Err(RpcError::Stream(_)) => {}
            Ok(()) => self.notice(dht, peer, Ok(0)),
            Err(error) => self.notice(dht, peer, Err(error)),
        }
        echoed
    }

    /// Returns a peer's addresses from identify, or else from announcements, as far as the store has them in memory.
    pub(crate) fn known_addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let identified = self.peers.contacts.addresses(peer).map(|known| known.addrs);
        identified.or_else(|| self.providers.addresses(peer).now().flatten()).unwrap_or_default()
    }

    /// Sends frames and returns the body of the answer. A server that reads only one request of each stream gets a new
    /// stream.
    async fn exchange(&self, dht: Dht, peer: &PeerInfo, exchange: Exchange<'_>) -> Result<Vec<u8>, RpcError> {
        if self.singles.contains(&peer.id, self.clock.monotonic()) {
            return self.exchanges.request_alone(dht, peer, exchange).await;
        }
        self.exchanges.request(dht, peer, exchange).await
    }

    fn notice(&self, dht: Dht, peer: &PeerInfo, closer: Result<usize, &RpcError>) {
        if let Some(observer) = self.observer.upgrade() {
            observer.answered(dht, peer, closer);
        }
    }

    /// Returns the peer whose id is the target, if the answer names it with an address that may be handed out. It may
    /// be behind a relay, so that it is not among the closer peers that we can ask.
    fn sought(&self, dht: Dht, answer: &Message<'_>, target: &[u8]) -> Option<PeerInfo> {
        let entry = answer.closer_peers().take(MAX_CLOSER).find(|entry| entry.id == target)?;
        let sought = self.handed_out(dht, entry.to_peer_info(MAX_ADDRESSES)?);
        (!sought.addrs.is_empty()).then_some(sought)
    }

    fn providers_in(&self, dht: Dht, answer: &Message<'_>) -> Vec<PeerInfo> {
        let providers = answer.provider_peers().take(MAX_PROVIDERS).filter_map(|raw| raw.to_peer_info(MAX_ADDRESSES));
        providers.map(|provider| self.handed_out(dht, provider)).collect()
    }

    /// Returns the peer with those of its addresses that may be handed out in `dht`.
    fn handed_out(&self, dht: Dht, mut peer: PeerInfo) -> PeerInfo {
        let scope = self.peers.scope(dht);
        peer.addrs.retain(|addr| scope.hands_out(addr));
        peer.addrs = useful::bounded(peer.addrs);
        peer
    }

    fn closer_peers(&self, dht: Dht, answer: &Message<'_>) -> Vec<PeerInfo> {
        let closer = answer.closer_peers().take(MAX_CLOSER).filter_map(|raw| raw.to_peer_info(useful::MAX_ADDRESSES));
        closer.filter(|peer| peer.id != self.peers.local).filter_map(|peer| self.reachable(dht, peer)).collect()
    }

    /// Returns the peer with the addresses that may be dialled in `dht`: those of the answer, or else those that we
    /// know. `None` if it cannot be asked at all.
    fn reachable(&self, dht: Dht, mut peer: PeerInfo) -> Option<PeerInfo> {
        let scope = self.peers.scope(dht);
        peer.addrs.retain(|addr| scope.allows(addr));
        if peer.addrs.is_empty() {
            peer.addrs = self.known_addresses(&peer.id);
            peer.addrs.retain(|addr| scope.allows(addr));
        }
        (!peer.addrs.is_empty() || self.peers.connections.is_connected(&peer.id)).then_some(peer)
    }
}

fn decode(body: &[u8]) -> Result<Message<'_>, RpcError> {
    Message::decode(body).map_err(RpcError::bad_answer)
}

/// Returns the value of a message's record if the record's key is `key`.
fn value_of<'a>(message: &Message<'a>, key: &[u8]) -> Option<&'a [u8]> {
    let record = Record::decode(message.record?).ok()?;
    (record.key == key && !record.value.is_empty()).then_some(record.value)
}
