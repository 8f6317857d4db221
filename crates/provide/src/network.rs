//! What announcing needs of the network.

use crate::kad::{Dht, PeerInfo, keyspace::Key};
use std::future::Future;

/// What became of a batch of ADD_PROVIDERs to one server.
#[derive(Clone, Debug, Default)]
pub struct Delivery {
    /// Positions in the batch, ascending: those that the server has read, as its answer proves.
    pub read: Vec<usize>,
    /// Why the others were not.
    pub error: Option<String>,
}

/// A node of the DHT in production, a model in tests and simulation.
pub trait Network: Clone + Send + Sync + 'static {
    /// How many servers of `dht` are in the routing table.
    fn servers(&self, dht: Dht) -> usize;
    /// The `n` closest to `key` in the routing table.
    fn known(&self, dht: Dht, key: &Key, n: usize) -> Vec<PeerInfo>;
    /// The k closest servers that answer, closest first, by a look-up for the key of FIND_NODE `target`.
    fn closest(&self, dht: Dht, target: &[u8]) -> impl Future<Output = Vec<PeerInfo>> + Send;
    /// Sends ADD_PROVIDERs and says how many were read.
    fn add_providers(
        &self,
        dht: Dht,
        peer: &PeerInfo,
        multihashes: &[Vec<u8>],
    ) -> impl Future<Output = Delivery> + Send;
}
