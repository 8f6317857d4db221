//! A dhtstore node with its store, in this process.

use dhtstore_host::clock::{Clock, SystemClock, UnixTime};
use dhtstore_kad::{Dht, PeerInfo};
use dhtstore_node::{Node, Settings};
use dhtstore_store::{self as store, Store, data_dir::Lock};
use libp2p::{Multiaddr, identity::Keypair};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// A node with its store and its directory.
pub struct Ours {
    /// The node itself.
    pub node: Node,
    /// Its store.
    pub store: Store,
    _dir: tempfile::TempDir,
    _lock: Lock,
}

impl Ours {
    /// Starts a node over an empty store.
    pub async fn start(settings: Settings, store: store::Settings, identity: Keypair, clock: Arc<dyn Clock>) -> Self {
        // A test may run dozens of nodes, and the usual soft limit is 1,024 open files.
        rlimit::increase_nofile_limit(u64::MAX).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::acquire(dir.path()).unwrap();
        let store = Store::open(&lock, store, clock.clone()).unwrap();
        let node = Node::start(settings, identity, store.stores(), clock).await.unwrap();
        Self { node, store, _dir: dir, _lock: lock }
    }

    /// Starts the node again with the same store and another identity, as another process would.
    pub async fn restart(self, settings: Settings) -> Self {
        self.node.shutdown().await;
        let node = Node::start(settings, Keypair::generate_ed25519(), self.store.stores(), SystemClock::new()).await;
        Self { node: node.unwrap(), ..self }
    }

    /// Returns its peer id and its addresses in the WAN DHT.
    pub fn info(&self) -> PeerInfo {
        PeerInfo { id: self.node.peer_id(), addrs: self.node.addresses(Dht::Wan) }
    }

    /// Returns its QUIC address if `quic`, otherwise its TCP address.
    pub fn address(&self, quic: bool) -> Multiaddr {
        let of_kind = |a: &Multiaddr| a.to_string().contains("quic-v1") == quic;
        self.node.listeners().into_iter().find(of_kind).unwrap()
    }

    /// Returns a counter of the node, or 0 if it has not counted yet.
    pub fn counter(&self, name: &str) -> u64 {
        self.node.counters().get(name).copied().unwrap_or(0)
    }

    /// Returns the count of peers in its table of the WAN DHT.
    pub fn table_len(&self) -> usize {
        self.node.table(Dht::Wan).len()
    }
}

/// Waits until `condition` holds. Panics with `what` after 30 s. This is three times as long as an idle QUIC connection
/// lives if neither side closes it.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..1500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within 30 s: {what}");
}

/// Waits until `ours` holds a record of `multihash`. Returns the count of records.
pub async fn holds(ours: &Ours, multihash: &[u8]) -> usize {
    for _ in 0..1500 {
        let held = ours.store.records.providers(multihash, 100, 0).await.len();
        if held > 0 {
            return held;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no record within 30 s");
}

/// Returns key number `n`, a sha2-256 multihash.
pub fn multihash(n: u64) -> Vec<u8> {
    crate::multihash(n.to_be_bytes())
}

/// Returns all addresses of `peers`, each followed by the peer id, as in a list of bootstrap peers.
pub fn full_addresses(peers: &[PeerInfo]) -> Vec<Multiaddr> {
    let full = |peer: &PeerInfo| {
        let id = peer.id;
        peer.addrs.iter().map(move |addr| addr.clone().with_p2p(id).unwrap()).collect::<Vec<_>>()
    };
    peers.iter().flat_map(full).collect()
}

/// The machine's clock, which a test can set ahead.
#[derive(Debug)]
pub struct Ahead {
    real: Arc<SystemClock>,
    by_s: AtomicU64,
}

impl Ahead {
    /// Returns a clock that is not ahead yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { real: SystemClock::new(), by_s: AtomicU64::new(0) })
    }

    /// Sets the clock further ahead.
    pub fn pass(&self, seconds: u64) {
        self.by_s.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl Clock for Ahead {
    fn wall(&self) -> UnixTime {
        let by = u32::try_from(self.by_s.load(Ordering::Relaxed)).unwrap();
        UnixTime(self.real.wall().0 + by)
    }

    fn monotonic(&self) -> Duration {
        self.real.monotonic() + Duration::from_secs(self.by_s.load(Ordering::Relaxed))
    }
}
