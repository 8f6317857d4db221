//! What the rest of the program asks of a node.

use super::{ConnectedPeer, Delivery, Load, Node, ProvidersAnswer, RpcError};
use crate::kad::{
    Dht, PeerInfo,
    message::EncodedPeer,
    mode::Decision,
    scope::{AddressScope, Profile},
    table::{Entry, TableView},
};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

impl Node {
    /// Who we are.
    pub fn peer_id(&self) -> PeerId {
        self.shared.local
    }

    /// Bound listeners.
    pub fn listeners(&self) -> Vec<Multiaddr> {
        self.shared.addresses.listeners()
    }

    /// What is announced of us in `dht`, after `announce`, `append_announce`, `no_announce` and the scope.
    pub fn addresses(&self, dht: Dht) -> Vec<Multiaddr> {
        self.shared.addresses.of(dht)
    }

    /// Ourselves as a provider in `dht`: `provide.addresses` or [`Node::addresses`].
    pub fn provider_entry(&self, dht: Dht) -> EncodedPeer {
        self.shared.provider_entry(dht)
    }

    /// Server or client in the WAN DHT, and why (MODE-1).
    pub fn mode(&self) -> Decision {
        self.shared.decision()
    }

    /// Connects to whoever is at `addr`, who must be the peer it names by `/p2p/…` if it names one.
    pub async fn connect(&self, addr: Multiaddr) -> Result<PeerId, RpcError> {
        let peer = match addr.iter().last() {
            Some(Protocol::P2p(peer)) => Some(peer),
            _ => None,
        };
        self.shared.dial(peer, vec![addr]).await
    }

    /// Connects to a peer at these addresses, as far as [`Node::can_dial`] would try them, unless it is connected.
    pub async fn connect_to(&self, peer: &PeerInfo) -> Result<PeerId, RpcError> {
        self.shared.dial(Some(peer.id), self.dialable(peer)).await
    }

    /// Everybody who is connected, longest first; the newest connection of each.
    pub async fn peers(&self) -> Vec<ConnectedPeer> {
        let now = self.shared.clock.monotonic();
        let mut peers: Vec<ConnectedPeer> = Vec::new();
        for (peer, known) in self.shared.book.connected_peers() {
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
        self.shared.routing.of(dht).view()
    }

    /// Entries by common prefix length.
    pub fn buckets(&self, dht: Dht) -> Vec<(u16, Vec<Entry>)> {
        self.shared.routing.of(dht).buckets()
    }

    /// How the peers of the bootstrap list fare.
    pub fn bootstrap(&self) -> Vec<super::BootstrapPeer> {
        self.shared.bootstrap.status()
    }

    /// What happened since the start, by name: requests, refusals, limits.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        self.shared.counters.snapshot()
    }

    /// What is in hand for others right now.
    pub fn load(&self) -> Load {
        Load {
            inbound_streams: self.shared.serving.len() as u64,
            pending_handshakes: self.shared.door.pending() as u64,
            read_bytes: self.shared.read_budget.used() as u64,
        }
    }

    /// Whether a peer can be dialled at these addresses, and how long it took. A connection that is open does not
    /// count: the peer may have opened it from behind a NAT, or be gone without a word. On the public network private
    /// addresses are not tried.
    pub async fn can_dial(&self, peer: &PeerInfo) -> Result<Duration, RpcError> {
        let begun = self.shared.clock.monotonic();
        self.shared.dial_afresh(peer.id, self.dialable(peer)).await?;
        Ok(self.shared.clock.monotonic().saturating_sub(begun))
    }

    /// The addresses of a peer that [`Node::can_dial`] would try.
    pub fn dialable(&self, peer: &PeerInfo) -> Vec<Multiaddr> {
        let scope = match self.shared.settings.profile {
            Profile::Private => AddressScope::Any,
            Profile::Amino => AddressScope::Public,
        };
        peer.addrs.iter().filter(|addr| scope.allows(addr)).cloned().collect()
    }

    /// One FIND_NODE. The answer's addresses are those that belong to `dht`.
    pub async fn find_node(&self, dht: Dht, peer: &PeerInfo, target: &[u8]) -> Result<Vec<PeerInfo>, RpcError> {
        Ok(self.shared.find_node(dht, peer, target).await?.closer)
    }

    /// One GET_PROVIDERS.
    pub async fn get_providers(
        &self,
        dht: Dht,
        peer: &PeerInfo,
        multihash: &[u8],
    ) -> Result<ProvidersAnswer, RpcError> {
        self.shared.get_providers(dht, peer, multihash).await
    }

    /// ADD_PROVIDERs pipelined on one stream, then a FIND_NODE whose answer proves that they were read;
    /// resent one by one if the stream ends before it. To a server that reads one request of each stream each goes on a
    /// stream of its own, and counts once the server names us as a provider.
    pub async fn add_providers(&self, dht: Dht, peer: &PeerInfo, multihashes: &[Vec<u8>]) -> Delivery {
        self.shared.add_providers(dht, peer, multihashes).await
    }

    /// The `routing-refresh` job: check the silent, refill buckets, look up oneself; bootstrap when the table is
    /// empty. Says what it did.
    pub async fn refresh_routing(&self) -> String {
        self.shared.refresh_routing().await
    }

    /// The `routing-snapshot` job. Says what it saved.
    pub async fn save_routing(&self) -> Result<String, crate::store::StoreError> {
        self.shared.save_routing().await
    }
}
