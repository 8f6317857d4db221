//! The public methods of a node.

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
    /// The remote address of the connection.
    pub address: String,
    /// Whether it dialled us.
    pub inbound: bool,
    /// Its agent version; `None` before identify.
    pub agent: Option<String>,
    /// Protocols that it advertises.
    pub protocols: Vec<String>,
    /// Age of the connection in seconds.
    pub connected_s: u64,
    /// Last round trip in ms.
    pub ping_ms: Option<f64>,
    /// Whether it is a server of the WAN DHT.
    pub wan: bool,
    /// Whether it is a server of the LAN DHT.
    pub lan: bool,
}

/// The current load that other peers put on a node.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, serde::Serialize, serde::Deserialize)]
pub struct Load {
    /// Inbound DHT streams that are open.
    pub inbound_streams: u64,
    /// Inbound handshakes under way.
    #[serde(default)]
    pub pending_handshakes: u64,
    /// Bytes of `streams.read_budget` in use for half-read requests and unwritten answers.
    pub read_bytes: u64,
}

impl Node {
    /// Returns the peer id of this node.
    pub fn peer_id(&self) -> PeerId {
        self.parts.peers.local
    }

    /// Returns the addresses that the listeners are bound to.
    pub fn listeners(&self) -> Vec<Multiaddr> {
        self.parts.peers.addresses.listeners()
    }

    /// Returns the addresses that the node announces in `dht`. The settings `announce`, `append_announce` and
    /// `no_announce` and the scope of `dht` are applied.
    pub fn addresses(&self, dht: Dht) -> Vec<Multiaddr> {
        self.parts.peers.addresses.of(dht)
    }

    /// Returns the entry that names this node as a provider in `dht`, with `provide.addresses` or else
    /// [`Node::addresses`].
    pub fn provider_entry(&self, dht: Dht) -> EncodedPeer {
        self.parts.peers.provider_entry(dht)
    }

    /// Returns whether the node is a server or a client in the WAN DHT, and why (MODE-1).
    pub fn mode(&self) -> Decision {
        self.parts.nat.decision()
    }

    /// Connects to the peer at `addr`. If the address ends in `/p2p/<id>`, the peer must have that id.
    pub async fn connect(&self, addr: Multiaddr) -> Result<PeerId, RpcError> {
        let peer = match addr.iter().last() {
            Some(Protocol::P2p(peer)) => Some(peer),
            _ => None,
        };
        self.parts.dialer.dial(peer, vec![addr]).await
    }

    /// Connects to a peer unless it is connected. Tries those of its addresses that [`Node::dialable`] returns.
    pub async fn connect_to(&self, peer: &PeerInfo) -> Result<PeerId, RpcError> {
        self.parts.dialer.dial(Some(peer.id), self.dialable(peer)).await
    }

    /// Returns the connected peers, longest connected first, each with its newest connection.
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

    /// Returns a snapshot of the routing table of `dht`.
    pub fn table(&self, dht: Dht) -> Arc<TableView> {
        self.parts.tables.of(dht).view()
    }

    /// Returns the entries of the routing table of `dht` by common prefix length.
    pub fn buckets(&self, dht: Dht) -> Vec<(u16, Vec<Entry>)> {
        self.parts.tables.of(dht).buckets()
    }

    /// Returns the state of each peer of the bootstrap list.
    pub fn bootstrap(&self) -> Vec<BootstrapPeer> {
        self.parts.bootstrap.list.status()
    }

    /// Returns the counters of requests, refusals and limits.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.parts.metrics
    }

    /// Returns the counters that are not zero, by the names that `stat` shows.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let mut counters = self.parts.metrics.by_name();
        counters.retain(|_, n| *n > 0);
        counters
    }

    /// Returns the current load.
    pub fn load(&self) -> Load {
        Load {
            inbound_streams: self.parts.tasks.served() as u64,
            pending_handshakes: self.parts.door.pending() as u64,
            read_bytes: self.parts.budget.used() as u64,
        }
    }

    /// Dials a peer at the addresses that [`Node::dialable`] returns. Returns how long that took. Dials even if the
    /// peer is connected, because a connection does not prove that the peer can be dialled: the peer may have opened it
    /// from behind a NAT, or may have gone without closing it.
    pub async fn can_dial(&self, peer: &PeerInfo) -> Result<Duration, RpcError> {
        let begun = self.parts.clock.monotonic();
        self.parts.dialer.dial_afresh(peer.id, self.dialable(peer)).await?;
        Ok(self.parts.clock.monotonic().saturating_sub(begun))
    }

    /// Returns the addresses of a peer that this node would dial: on the public network, the public ones.
    pub fn dialable(&self, peer: &PeerInfo) -> Vec<Multiaddr> {
        let scope = match self.parts.settings.profile {
            Profile::Private => AddressScope::Any,
            Profile::Amino => AddressScope::Public,
        };
        peer.addrs.iter().filter(|addr| scope.allows(addr)).cloned().collect()
    }

    /// Sends one FIND_NODE. Returns the closer peers with those of their addresses that belong to `dht`.
    pub async fn find_node(&self, dht: Dht, peer: &PeerInfo, target: &[u8]) -> Result<Vec<PeerInfo>, RpcError> {
        Ok(self.parts.rpc.find_node(dht, peer, target).await?.closer)
    }

    /// Sends one GET_PROVIDERS.
    pub async fn get_providers(
        &self,
        dht: Dht,
        peer: &PeerInfo,
        multihash: &[u8],
    ) -> Result<ProvidersAnswer, RpcError> {
        self.parts.rpc.get_providers(dht, peer, multihash).await
    }

    /// Announces this node to `peer` as a provider of the multihashes. Pipelines the ADD_PROVIDERs on one stream,
    /// followed by a FIND_NODE whose answer proves that the server read them. If the stream ends before that answer,
    /// sends them again one by one. If the server reads only one request of each stream, sends each ADD_PROVIDER on its
    /// own stream. Each then counts as read once the server names us as a provider.
    pub async fn add_providers(&self, dht: Dht, peer: &PeerInfo, multihashes: &[Vec<u8>]) -> Delivery {
        self.parts.rpc.add_providers(dht, peer, multihashes).await
    }

    /// Runs the `routing-refresh` job: checks silent peers, refills buckets and looks up our own key. Bootstraps if the
    /// tables are empty. Returns a summary of what it did.
    pub async fn refresh_routing(&self) -> String {
        self.parts.upkeep.refresh().await
    }

    /// Runs the `routing-snapshot` job. Returns a summary of what it saved.
    pub async fn save_routing(&self) -> Result<String, NotSaved> {
        self.parts.upkeep.save().await
    }

    /// Returns the k servers closest to `target` (a multihash, a binary peer id, or a preimage) in `dht`. All of them
    /// have answered.
    pub async fn closest_peers(&self, dht: Dht, target: &[u8], events: Option<mpsc::Sender<Event>>) -> Closest {
        self.parts.lookups.closest(dht, target, events).await
    }

    /// Returns up to `limit` distinct providers of `multihash`: first those in the local store, then those found in
    /// both DHTs, which are searched at the same time. Some may have no addresses.
    pub async fn find_providers(
        &self,
        multihash: &[u8],
        limit: usize,
        events: Option<mpsc::Sender<Event>>,
    ) -> Vec<PeerInfo> {
        self.parts.lookups.find_providers(multihash, limit, events).await
    }

    /// Returns a peer with its addresses. If this node knows none, looks them up in both DHTs. Returns `None` if no
    /// addresses are found.
    pub async fn find_peer(&self, peer: &PeerId, events: Option<mpsc::Sender<Event>>) -> Option<PeerInfo> {
        self.parts.lookups.find_peer(peer, events).await
    }

    /// Returns the best value of `key` that this node and the closest servers of both DHTs hold. Ends early when
    /// `quorum` servers hold the same best value. If this node holds a worse value, it stores the best one.
    pub async fn find_value(
        &self,
        key: &[u8],
        quorum: usize,
        events: Option<mpsc::Sender<Event>>,
    ) -> Option<BestValue> {
        self.parts.lookups.find_value(key, quorum, events).await
    }

    /// Sends `value` to servers. A server confirms with an echo.
    pub async fn put_values(
        &self,
        key: &[u8],
        value: &[u8],
        to: Vec<Holder>,
        events: Option<mpsc::Sender<Event>>,
    ) -> Placed {
        self.parts.lookups.put_values(key, value, to, &events).await
    }

    /// Stores `value` in this node, then sends it to the k closest servers of each DHT. The servers get a valid value
    /// even if this node cannot store it, for example at a limit. Returns the outcome of both steps.
    ///
    /// # Errors
    /// [`values::Refused::Invalid`], or [`values::Refused::Worse`] if this node holds a better value. Then nothing is
    /// sent.
    pub async fn place_value(
        &self,
        key: &[u8],
        value: &[u8],
        events: Option<mpsc::Sender<Event>>,
    ) -> Result<(Result<(), values::Refused>, Placed), values::Refused> {
        self.parts.lookups.place_value(key, value, events).await
    }

    /// Reloads the certificate files now instead of at the next check. Returns whether they had changed. If the new
    /// certificate cannot be used, the current one stays in use.
    ///
    /// # Errors
    /// [`CertificateError`] if the files cannot be read, or do not fit together.
    pub async fn renew_certificate(&self) -> Result<bool, CertificateError> {
        self.parts.renewal.renew().await
    }
}
