//! Connects the reprovider to the node, whose peers it announces own CIDs to.

use crate::{
    kad::{Dht, PeerInfo, keyspace::Key},
    node::Node,
    provide::{self, Delivery, Network},
};

/// A node as the [`Network`] of the [`Reprovider`].
#[derive(Clone, Debug)]
pub struct Servers(pub Node);

/// Keeps the own CIDs of a node announced.
pub type Reprovider = provide::reprovider::Reprovider<Servers>;

impl Network for Servers {
    fn servers(&self, dht: Dht) -> usize {
        self.0.table(dht).len()
    }

    fn known(&self, dht: Dht, key: &Key, n: usize) -> Vec<PeerInfo> {
        self.0.table(dht).closest(key, n).into_iter().map(|entry| entry.peer.clone()).collect()
    }

    async fn closest(&self, dht: Dht, target: &[u8]) -> Vec<PeerInfo> {
        self.0.closest_peers(dht, target, None).await.peers
    }

    async fn add_providers(&self, dht: Dht, peer: &PeerInfo, multihashes: &[Vec<u8>]) -> Delivery {
        let delivery = self.0.add_providers(dht, peer, multihashes).await;
        Delivery { read: delivery.read, error: delivery.error.map(|error| error.to_string()) }
    }
}
