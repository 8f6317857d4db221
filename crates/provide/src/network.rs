//! The operations of a DHT node that announcing needs.

use crate::kad::{Dht, PeerInfo, keyspace::Key};
use std::future::Future;

/// The outcome of a batch of ADD_PROVIDERs to one server.
#[derive(Clone, Debug, Default)]
pub struct Delivery {
    /// Positions in the batch, ascending, of the multihashes whose ADD_PROVIDER the server has read. Its answer proves
    /// it.
    pub read: Vec<usize>,
    /// Why it did not read the others.
    pub error: Option<String>,
}

/// Access to the DHT: a node in production, a model in tests and simulations.
pub trait Network: Clone + Send + Sync + 'static {
    /// Returns the count of servers of `dht` in the routing table.
    fn servers(&self, dht: Dht) -> usize;
    /// Returns the `n` servers closest to `key` in the routing table.
    fn known(&self, dht: Dht, key: &Key, n: usize) -> Vec<PeerInfo>;
    /// Looks up `target`, the key of a FIND_NODE. Returns the k closest servers that answer, closest first.
    fn closest(&self, dht: Dht, target: &[u8]) -> impl Future<Output = Vec<PeerInfo>> + Send;
    /// Sends one ADD_PROVIDER for each multihash, and returns which of them the server has read.
    fn add_providers(
        &self,
        dht: Dht,
        peer: &PeerInfo,
        multihashes: &[Vec<u8>],
    ) -> impl Future<Output = Delivery> + Send;
}
