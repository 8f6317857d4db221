//! Look-ups over the network: drives the pure [`crate::kad::lookup`].

use super::Node;
use crate::kad::{Dht, PeerInfo};
use libp2p::PeerId;
use tokio::sync::mpsc;

/// What happens during a query, for `-v` and for streaming results.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Event {
    Asking { dht: String, peer: String },
    Answered { dht: String, peer: String, closer: usize, providers: usize, took_ms: u64 },
    Failed { dht: String, peer: String, error: String },
    Provider { dht: String, provider: String, addresses: Vec<String>, from: String },
}

/// Outcome of a look-up.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Closest {
    pub peers: Vec<PeerInfo>,
    pub asked: usize,
    pub hops: usize,
}

#[expect(unused_variables, missing_docs)]
impl Node {
    /// The k closest servers to `target` (a multihash, a binary peer id, a preimage) in `dht`; asks on until they have answered.
    pub async fn closest_peers(&self, dht: Dht, target: &[u8], events: Option<mpsc::Sender<Event>>) -> Closest {
        todo!()
    }
    /// Providers of `multihash`, local store first, then every DHT with peers at once; distinct, until `limit` or the end.
    pub async fn find_providers(
        &self,
        multihash: &[u8],
        limit: usize,
        events: Option<mpsc::Sender<Event>>,
    ) -> Vec<PeerInfo> {
        todo!()
    }
    /// Addresses of a peer.
    pub async fn find_peer(&self, peer: &PeerId, events: Option<mpsc::Sender<Event>>) -> Option<PeerInfo> {
        todo!()
    }
}
