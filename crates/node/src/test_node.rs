//! A node on loopback for tests of private parts of the crate.

use super::{Node, Settings};
use crate::clock::{ManualClock, UnixTime};
use dhtstore_records::memory;
use libp2p::{Multiaddr, identity::Keypair};
use std::{sync::Arc, time::Duration};

/// A node that ends with the test.
pub(super) struct TestNode {
    pub(super) node: Node,
    /// Stands still until the test advances it, so that nothing expires by itself.
    pub(super) clock: Arc<ManualClock>,
}

impl TestNode {
    /// Starts a node with a store in memory.
    pub(super) async fn start(settings: Settings) -> Self {
        let clock = ManualClock::at(UnixTime(1_700_000_000));
        let stores = memory::stores(memory::Settings::default(), clock.clone());
        let node = Node::start(settings, Keypair::generate_ed25519(), stores, clock.clone()).await.unwrap();
        Self { node, clock }
    }

    /// Returns an address at which to dial it, with its id.
    pub(super) fn address(&self) -> Multiaddr {
        self.node.listeners()[0].clone().with_p2p(self.node.peer_id()).unwrap()
    }

    pub(super) async fn is_connected_to(&self, other: &TestNode) -> bool {
        let other = other.node.peer_id().to_string();
        self.node.peers().await.iter().any(|peer| peer.peer == other)
    }
}

/// Waits until `condition` holds; panics with `what` after 30 s.
pub(super) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..1500 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within 30 s: {what}");
}
