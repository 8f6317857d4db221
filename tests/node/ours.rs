//! A node of ours under test.

use dhtstore::{
    clock::{Clock, SystemClock, UnixTime},
    config::{Config, Profile},
    kad::{Dht, PeerInfo},
    node::Node,
    store::{Store, data_dir::Lock},
};
use libp2p::{Multiaddr, identity::Keypair};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// A node with its directory.
pub struct Ours {
    pub node: Node,
    pub store: Store,
    _dir: tempfile::TempDir,
    _lock: Lock,
}

/// TCP and QUIC on free ports of loopback.
pub fn config() -> Config {
    let mut config = Config::defaults(Profile::Private);
    config.listen = vec![addr("/ip4/127.0.0.1/tcp/0"), addr("/ip4/127.0.0.1/udp/0/quic-v1")];
    config
}

pub fn addr(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

impl Ours {
    pub async fn start() -> Self {
        Self::start_with(config()).await
    }

    /// Bootstraps from `peers`.
    pub async fn joining(peers: &[PeerInfo]) -> Self {
        let mut config = config();
        let full = |peer: &PeerInfo| {
            let id = peer.id;
            peer.addrs.iter().map(move |a| a.clone().with_p2p(id).unwrap()).collect::<Vec<_>>()
        };
        config.bootstrap = peers.iter().flat_map(full).collect();
        Self::start_with(config).await
    }

    pub async fn start_with(config: Config) -> Self {
        Self::start_as(config, Keypair::generate_ed25519(), SystemClock::new()).await
    }

    pub async fn start_as(config: Config, identity: Keypair, clock: Arc<dyn Clock>) -> Self {
        // A test may run dozens of nodes: the usual soft limit is 1,024.
        rlimit::increase_nofile_limit(u64::MAX).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::acquire(dir.path()).unwrap();
        let store = Store::open(&lock, config.store_settings(), clock.clone()).unwrap();
        let node = Node::start(config.node_settings(), identity, store.stores(), clock).await.unwrap();
        Self { node, store, _dir: dir, _lock: lock }
    }

    /// The node again, over the same store, as another process would start it.
    pub async fn restart(self, config: Config) -> Self {
        self.node.shutdown().await;
        let node =
            Node::start(config.node_settings(), Keypair::generate_ed25519(), self.store.stores(), SystemClock::new())
                .await;
        Self { node: node.unwrap(), ..self }
    }

    pub fn info(&self) -> PeerInfo {
        PeerInfo { id: self.node.peer_id(), addrs: self.node.addresses(Dht::Wan) }
    }

    /// Its TCP or its QUIC address.
    pub fn address(&self, quic: bool) -> Multiaddr {
        let of_kind = |a: &Multiaddr| a.to_string().contains("quic-v1") == quic;
        self.node.listeners().into_iter().find(of_kind).unwrap()
    }

    pub fn counter(&self, name: &str) -> u64 {
        self.node.counters().get(name).copied().unwrap_or(0)
    }

    pub fn table_len(&self) -> usize {
        self.node.table(Dht::Wan).len()
    }
}

/// Waits until `condition` holds; panics with `what` after 30 s, which is thrice what an idle QUIC
/// connection that nobody closed lasts.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..1500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within 30 s: {what}");
}

/// Waits until `node` holds a record of `multihash`.
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

/// A sha2-256 multihash of `n`.
pub fn multihash(n: u64) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    [&[0x12, 0x20], &Sha256::digest(n.to_be_bytes())[..]].concat()
}

/// The machine's clock, set ahead as the test wants.
#[derive(Debug)]
pub struct Ahead {
    real: Arc<SystemClock>,
    by_s: AtomicU64,
}

impl Ahead {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { real: SystemClock::new(), by_s: AtomicU64::new(0) })
    }

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
