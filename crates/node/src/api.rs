//! What the rest of the program asks of a node.

use crate::{
    Delivery, Node, ProvidersAnswer, RpcError,
    kad::{
        Dht, PeerInfo,
        message::EncodedPeer,
        mode::Decision,
        scope::{AddressScope, Profile},
        table::{Entry, TableView},
    },
    lookup::{
        Closest, Event,
        values::{BestValue, Holder, Placed},
    },
    metrics::Metrics,
    routing::bootstrap::BootstrapPeer,
};
use dhtstore_records::{tables::NotSaved, values};
use dhtstore_transport::certificate::CertificateError;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// A connected peer, for `dhtstore peers`.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct ConnectedPeer {
    /// Its peer id.
    pub peer: String,
    /// Where it is, as we see it.
    pub address: String,
    /// Whether it dialled us.
    pub inbound: bool,
    /// What it calls itself; unknown before identify.
    pub agent: Option<String>,
    /// What it speaks.
    pub protocols: Vec<String>,
    /// For how many seconds.
    pub connected_s: u64,
    /// Last round trip in ms.
    pub ping_ms: Option<f64>,
    /// Whether it is a server of the WAN DHT.
    pub wan: bool,
    /// Whether it is a server of the LAN DHT.
    pub lan: bool,
}

/// What a node has in hand for others right now.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, serde::Serialize, serde::Deserialize)]
pub struct Load {
    /// DHT streams that others have open here.
    pub inbound_streams: u64,
    /// Handshakes that others have begun and not finished.
    #[serde(default)]
    pub pending_handshakes: u64,
    /// Bytes of `streams.read_budget` that half-read requests and unwritten answers take.
    pub read_bytes: u64,
}

impl Node {
    /// Who we are.
    pub fn peer_id(&self) -> PeerId {
        self.parts.peers.local
    }

    /// Bound listeners.
    pub fn listeners(&self) -> Vec<Multiaddr> {
        self.parts.peers.addresses.listeners()
    }

    /// What is announced of us in `dht`, after `announce`, `append_announce`, `no_announce` and the scope.
    pub fn addresses(&self, dht: Dht) -> Vec<Multiaddr> {
        self.parts.peers.addresses.of(dht)
    }

    /// Ourselves as a provider in `dht`: `provide.addresses` or [`Node::addresses`].
    pub fn provider_entry(&self, dht: Dht) -> EncodedPeer {
        self.parts.peers.provider_entry(dht)
    }

    /// Server or client in the WAN DHT, and why (MODE-1).
    pub fn mode(&self) -> Decision {
        self.parts.nat.decision()
    }

    /// Connects to the peer at `addr`. If the address ends in `/p2p/<id>`, only a peer with that id counts.
    pub async fn connect(&self, addr: Multiaddr) -> Result<PeerId, RpcError> {
        let peer = match addr.iter().last() {
            Some(Protocol::P2p(peer)) => Some(peer),
            _ => None,
        };
        self.parts.dialer.dial(peer, vec![addr]).await
    }

    /// Connects to a peer at these addresses, as far as [`Node::can_dial`] would try them, unless it is connected.
    pub async fn connect_to(&self, peer: &PeerInfo) -> Result<PeerId, RpcError> {
        self.parts.dialer.dial(Some(peer.id), self.dialable(peer)).await
    }

    /// Everybody who is connected, longest first; the newest connection of each.
    pub async fn peers(&self) -> Vec<ConnectedPeer> {
        let now = self.parts.clock.monotonic();
        let mut peers: Vec<ConnectedPeer> = Vec::new();
        for (peer, known) in self.parts.peers.contacts.connected_peers() {
            let Some(connection) = known.connections.last() else { continue };
            peers.push(ConnectedPeer {
                peer: peer.to_string(),
                address: connection.address.to_string(),
                inbound: connection.inbound,
                agent: known.agent.clone(),
                protocols: known.protocols.iter().map(ToString::to_string).collect(),
                connected_s: now.saturating_sub(connection.since).as_secs(),
                ping_ms: known.ping.map(|ping| ping.as_secs_f64() * 1000.0),
                wan: known.serves(Dht::Wan),
                lan: known.serves(Dht::Lan),
            });
        }
        peers.sort_by(|a, b| b.connected_s.cmp(&a.connected_s).then_with(|| a.peer.cmp(&b.peer)));
        peers
    }

    /// The routing table of `dht` as it is now.
    pub fn table(&self, dht: Dht) -> Arc<TableView> {
        self.parts.tables.of(dht).view()
    }

    /// Entries by common prefix length.
    pub fn buckets(&self, dht: Dht) -> Vec<(u16, Vec<Entry>)> {
        self.parts.tables.of(dht).buckets()
    }

    /// How the peers of the bootstrap list fare.
    pub fn bootstrap(&self) -> Vec<BootstrapPeer> {
        self.parts.bootstrap.list.status()
    }

    /// What is counted: requests, refusals, limits.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.parts.metrics
    }

    /// What happened since the start, by the names that `stat` gives it; what did not happen is left out.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let mut counters = self.parts.metrics.by_name();
        counters.retain(|_, n| *n > 0);
        counters
    }

    /// What is in hand for others right now.
    pub fn load(&self) -> Load {
        Load {
            inbound_streams: self.parts.tasks.served() as u64,
            pending_handshakes: self.parts.door.pending() as u64,
            read_bytes: self.parts.budget.used() as u64,
        }
    }

    /// Whether a peer can be dialled at these addresses, and how long it took. A connection that is open does not
    /// count: the peer may have opened it from behind a NAT, or be gone without a word. On the public network private
    /// addresses are not tried.
    pub async fn can_dial(&self, peer: &PeerInfo) -> Result<Duration, RpcError> {
        let begun = self.parts.clock.monotonic();
        self.parts.dialer.dial_afresh(peer.id, self.dialable(peer)).await?;
        Ok(self.parts.clock.monotonic().saturating_sub(begun))
    }

    /// The addresses of a peer that [`Node::can_dial`] would try.
    pub fn dialable(&self, peer: &PeerInfo) -> Vec<Multiaddr> {
        let scope = match self.parts.settings.profile {
            Profile::Private => AddressScope::Any,
            Profile::Amino => AddressScope::Public,
        };
        peer.addrs.iter().filter(|addr| scope.allows(addr)).cloned().collect()
    }

    /// One FIND_NODE. The answer's addresses are those that belong to `dht`.
    pub async fn find_node(&self, dht: Dht, peer: &PeerInfo, target: &[u8]) -> Result<Vec<PeerInfo>, RpcError> {
        Ok(self.parts.rpc.find_node(dht, peer, target).await?.closer)
    }

    /// One GET_PROVIDERS.
    pub async fn get_providers(
        &self,
        dht: Dht,
        peer: &PeerInfo,
        multihash: &[u8],
    ) -> Result<ProvidersAnswer, RpcError> {
        self.parts.rpc.get_providers(dht, peer, multihash).await
    }

    /// ADD_PROVIDERs pipelined on one stream, then a FIND_NODE whose answer proves that they were read;
    /// resent one by one if the stream ends before it. To a server that reads one request of each stream each goes on a
    /// stream of its own, and counts once the server names us as a provider.
    pub async fn add_providers(&self, dht: Dht, peer: &PeerInfo, multihashes: &[Vec<u8>]) -> Delivery {
        self.parts.rpc.add_providers(dht, peer, multihashes).await
    }

    /// The `routing-refresh` job: check the silent, refill buckets, look up oneself; bootstrap when the table is
    /// empty. Says what it did.
    pub async fn refresh_routing(&self) -> String {
        self.parts.upkeep.refresh().await
    }

    /// The `routing-snapshot` job. Says what it saved.
    pub async fn save_routing(&self) -> Result<String, NotSaved> {
        self.parts.upkeep.save().await
    }

    /// The k closest servers to `target` (a multihash, a binary peer id, a preimage) in `dht`; asks on until they
    /// have answered.
    pub async fn closest_peers(&self, dht: Dht, target: &[u8], events: Option<mpsc::Sender<Event>>) -> Closest {
        self.parts.lookups.closest(dht, target, events).await
    }

    /// Providers of `multihash`, local store first, then every DHT with peers at once; distinct, until `limit` or
    /// the end. Some may have no addresses.
    pub async fn find_providers(
        &self,
        multihash: &[u8],
        limit: usize,
        events: Option<mpsc::Sender<Event>>,
    ) -> Vec<PeerInfo> {
        self.parts.lookups.find_providers(multihash, limit, events).await
    }

    /// Addresses of a peer: from our own books, or from a look-up in every DHT. `None` if nobody knows any.
    pub async fn find_peer(&self, peer: &PeerId, events: Option<mpsc::Sender<Event>>) -> Option<PeerInfo> {
        self.parts.lookups.find_peer(peer, events).await
    }

    /// The best value of `key` that this node and the closest servers of both DHTs hold. Ends early when `quorum`
    /// servers hold the same best. If what this node itself holds is worse, it is corrected.
    pub async fn find_value(
        &self,
        key: &[u8],
        quorum: usize,
        events: Option<mpsc::Sender<Event>>,
    ) -> Option<BestValue> {
        self.parts.lookups.find_value(key, quorum, events).await
    }

    /// Sends `value` to servers; each confirms by an echo.
    pub async fn put_values(
        &self,
        key: &[u8],
        value: &[u8],
        to: Vec<Holder>,
        events: Option<mpsc::Sender<Event>>,
    ) -> Placed {
        self.parts.lookups.put_values(key, value, to, &events).await
    }

    /// Takes `value` into the own store, then places it with the k closest servers of each DHT.
    ///
    /// # Errors
    /// It is invalid, or a better one is held here. What else stands in the way of the own store does not stand in the
    /// way of the others: that is the first part of the outcome.
    pub async fn place_value(
        &self,
        key: &[u8],
        value: &[u8],
        events: Option<mpsc::Sender<Event>>,
    ) -> Result<(Result<(), values::Refused>, Placed), values::Refused> {
        self.parts.lookups.place_value(key, value, events).await
    }

    /// Reads the certificate's files now rather than at the next look; whether they had changed. A certificate that
    /// cannot be used leaves the one in use where it is.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub async fn renew_certificate(&self) -> Result<bool, CertificateError> {
        self.parts.renewal.renew().await
    }
}
