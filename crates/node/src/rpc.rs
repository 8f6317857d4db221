//! Requests to other servers, typed, and what each answer brings. What an outcome says about the peer is told to an
//! [`Observer`]: nothing here knows routing tables.
//!
//! ```text
//! exchange  frames there, an answer back: on a pooled stream, or one of its own
//! dialled   the same over a connection that we dialled (RT-4)
//! announce  ADD_PROVIDERs, confirmed;  single: to servers that read one request of each stream
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

/// Peers taken from one answer: those of the k closest twice over, as go does.
const MAX_CLOSER: usize = 2 * K;

/// Providers taken from one answer: more do not fit into 16 KiB, which most servers keep to; go sends up to 4 MiB.
const MAX_PROVIDERS: usize = 1000;

/// A server that ends the stream on so many records in a row, sent one by one, will not take the others either.
const MAX_REFUSED: usize = 3;

/// What GET_PROVIDERS brought.
#[derive(Clone, Debug)]
pub struct ProvidersAnswer {
    /// Who provides, with the addresses that belong to the DHT asked; at most 1,000.
    pub providers: Vec<PeerInfo>,
    /// Closer servers; at most 2k.
    pub closer: Vec<PeerInfo>,
}

/// What GET_VALUE brought.
#[derive(Clone, Debug)]
pub struct ValueAnswer {
    /// The value held under the key, not validated.
    pub value: Option<Vec<u8>>,
    /// Closer servers; at most 2k.
    pub closer: Vec<PeerInfo>,
}

/// What FIND_NODE brought.
#[derive(Debug)]
pub(crate) struct NodeAnswer {
    /// The peer whose id was asked for, with the addresses that are worth handing out.
    pub(crate) sought: Option<PeerInfo>,
    /// Closer servers that can be asked; at most 2k.
    pub(crate) closer: Vec<PeerInfo>,
}

/// What became of a batch of ADD_PROVIDERs to one peer.
#[derive(Clone, Debug, Default)]
pub struct Delivery {
    /// Positions in the batch, ascending: those that the server has read, as its answer proves.
    pub read: Vec<usize>,
    /// Why the others were not.
    pub error: Option<RpcError>,
}

impl Delivery {
    /// How many the server has read.
    pub fn confirmed(&self) -> usize {
        self.read.len()
    }

    /// Notes the outcome of one announcement sent by itself. `refused` counts failures in a row. False once the server will
    /// not take the others either.
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

/// Takes note of how peers answer.
pub(crate) trait Observer: Send + Sync {
    /// `peer` answered a request with so many closer peers, or failed.
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
    /// `providers` knows addresses of peers that an answer names without any. The observer may come to life later.
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

    /// Ends streams that were not used lately. Runs until it is dropped.
    pub(crate) async fn keep_tidy(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            self.exchanges.sweep();
        }
    }

    /// FIND_NODE. What comes back is limited to the scope of `dht`; addresses that we know are filled in.
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

    /// FIND_NODE over a connection that leads to an address of the peer: one that is open, or a fresh one. Says at which
    /// address it answered. The observer is not told.
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

    /// GET_PROVIDERS.
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

    /// GET_VALUE. The value is not validated.
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

    /// PUT_VALUE; the echo proves that it is stored (VAL-4).
    pub(crate) async fn put_value(&self, dht: Dht, peer: &PeerInfo, key: &[u8], value: &[u8]) -> Result<(), RpcError> {
        // go dates what it sends, too; the receiver dates it anew.
        let frames = [message::put_value(key, &message::record(key, value, &self.clock.wall().to_string()))];
        let body = self.exchange(dht, peer, Exchange { frames: &frames, answer: MessageType::PutValue }).await;
        let echoed = body.and_then(|body| {
            let same = value_of(&decode(&body)?, key) == Some(value);
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

    /// What identify or an announcement told of a peer's addresses; of announcements what the store has at hand.
    pub(crate) fn known_addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let identified = self.peers.contacts.addresses(peer).map(|known| known.addrs);
        identified.or_else(|| self.providers.addresses(peer).now().flatten()).unwrap_or_default()
    }

    /// The body of the answer. A server that reads one request of each stream is asked on one of its own.
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

    /// The peer whose id is the target, if the answer names it with an address that is worth handing out: it may be behind a
    /// relay, and so none of those that can be asked.
    fn sought(&self, dht: Dht, answer: &Message<'_>, target: &[u8]) -> Option<PeerInfo> {
        let entry = answer.closer_peers().take(MAX_CLOSER).find(|entry| entry.id == target)?;
        let sought = self.handed_out(dht, entry.to_peer_info(MAX_ADDRESSES)?);
        (!sought.addrs.is_empty()).then_some(sought)
    }

    fn providers_in(&self, dht: Dht, answer: &Message<'_>) -> Vec<PeerInfo> {
        let providers = answer.provider_peers().take(MAX_PROVIDERS).filter_map(|raw| raw.to_peer_info(MAX_ADDRESSES));
        providers.map(|provider| self.handed_out(dht, provider)).collect()
    }

    /// The peer with those of its addresses that are worth handing out in `dht`.
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

    /// The peer with the addresses that may be dialled in `dht`, from our own books where the answer has none.
    /// `None` if it cannot be asked at all.
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
    Message::decode(body).map_err(|error| RpcError::BadAnswer(error.to_string()))
}

/// The value of a message's record, if that is one of `key`.
fn value_of<'a>(message: &Message<'a>, key: &[u8]) -> Option<&'a [u8]> {
    let record = Record::decode(message.record?).ok()?;
    (record.key == key && !record.value.is_empty()).then_some(record.value)
}
