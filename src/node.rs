//! The network: swarm, streams, server, client, routing upkeep.

pub mod identity;
pub mod query;
pub mod swarm_key;

use crate::{
    clock::Clock,
    config::Config,
    kad::{Dht, PeerInfo, message::EncodedPeer, table::TableView},
    store::Store,
};
use libp2p::{Multiaddr, PeerId, identity::Keypair};
use std::{sync::Arc, time::Duration};

/// A running node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Node {}

/// Why the node cannot start or a request to a peer failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum NodeError {
    #[error("cannot listen on {addr}: {reason}")]
    Listen { addr: Multiaddr, reason: String },
    #[error("no listen address could be bound")]
    NoListener,
    #[error("{0}")]
    Transport(String),
    #[error("the node is shutting down")]
    Stopped,
}

/// Why a request to a peer failed.
#[derive(Clone, Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum RpcError {
    #[error("cannot be dialled: {0}")]
    Dial(String),
    #[error("does not speak {0}")]
    Protocol(&'static str),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("stream ended: {0}")]
    Stream(String),
    #[error("malformed answer: {0}")]
    BadAnswer(String),
    #[error("the node is shutting down")]
    Stopped,
}

/// A connected peer, for `dhtstore peers`.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs)]
pub struct ConnectedPeer {
    pub peer: String,
    pub address: String,
    pub inbound: bool,
    pub agent: Option<String>,
    pub protocols: Vec<String>,
    pub connected_s: u64,
    pub ping_ms: Option<f64>,
    /// `server` or `client` of each DHT.
    pub wan: bool,
    pub lan: bool,
}

/// What GET_PROVIDERS brought.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct ProvidersAnswer {
    pub providers: Vec<PeerInfo>,
    pub closer: Vec<PeerInfo>,
}

/// What became of a batch of ADD_PROVIDERs to one peer.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Delivery {
    /// Read by the server, as the answer behind the batch proves.
    pub confirmed: usize,
    pub error: Option<RpcError>,
}

#[expect(unused_variables, missing_docs)]
impl Node {
    /// Binds the listeners and starts serving. Does not wait for peers.
    pub async fn start(
        config: &Config,
        identity: Keypair,
        store: Store,
        clock: Arc<dyn Clock>,
    ) -> Result<Node, NodeError> {
        todo!()
    }
    pub fn peer_id(&self) -> PeerId {
        todo!()
    }
    /// Bound listeners.
    pub fn listeners(&self) -> Vec<Multiaddr> {
        todo!()
    }
    /// What is announced of us in `dht`, after `announce`, `append_announce`, `no_announce` and the scope.
    pub fn addresses(&self, dht: Dht) -> Vec<Multiaddr> {
        todo!()
    }
    /// Ourselves as a provider in `dht`: `provide.addresses` or [`Node::addresses`].
    pub fn provider_entry(&self, dht: Dht) -> EncodedPeer {
        todo!()
    }
    pub async fn connect(&self, addr: Multiaddr) -> Result<PeerId, RpcError> {
        todo!()
    }
    pub async fn peers(&self) -> Vec<ConnectedPeer> {
        todo!()
    }
    pub fn table(&self, dht: Dht) -> Arc<TableView> {
        todo!()
    }
    /// Entries by common prefix length.
    pub fn buckets(&self, dht: Dht) -> Vec<(u16, Vec<crate::kad::table::Entry>)> {
        todo!()
    }
    /// Whether a peer can be dialled at these addresses (a fresh connection, or one that is open), and how long it took.
    pub async fn can_dial(&self, peer: &PeerInfo) -> Result<Duration, RpcError> {
        todo!()
    }
    /// One FIND_NODE.
    pub async fn find_node(&self, dht: Dht, peer: &PeerInfo, target: &[u8]) -> Result<Vec<PeerInfo>, RpcError> {
        todo!()
    }
    /// One GET_PROVIDERS.
    pub async fn get_providers(
        &self,
        dht: Dht,
        peer: &PeerInfo,
        multihash: &[u8],
    ) -> Result<ProvidersAnswer, RpcError> {
        todo!()
    }
    /// ADD_PROVIDERs pipelined on one stream, then a FIND_NODE whose answer proves that they were read;
    /// resent one by one if the stream ends before it.
    pub async fn add_providers(&self, dht: Dht, peer: &PeerInfo, multihashes: &[Vec<u8>]) -> Delivery {
        todo!()
    }
    /// The `routing-refresh` job: check the silent, refill buckets, look up oneself; bootstrap when the table is empty.
    pub async fn refresh_routing(&self) -> String {
        todo!()
    }
    /// The `routing-snapshot` job.
    pub async fn save_routing(&self) -> Result<String, crate::store::StoreError> {
        todo!()
    }
    /// Stops accepting, drains streams under a deadline, closes connections.
    pub async fn shutdown(&self) {
        todo!()
    }
}
