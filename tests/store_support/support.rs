//! What the store's tests share.

#[path = "../support/copy.rs"]
pub mod copy;

use dhtstore::{
    clock::{ManualClock, UnixTime},
    kad::{Dht, PeerInfo},
    store::{Settings, Store, data_dir::Lock, records::Added, records::Refused},
};
use libp2p::PeerId;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

/// Some time in 2023.
pub const T0: u32 = 1_700_000_000;

/// An open store; closed and reopened at will.
pub struct Node {
    pub store: Store,
    pub clock: Arc<ManualClock>,
    _lock: Lock,
}

pub fn clock() -> Arc<ManualClock> {
    ManualClock::at(UnixTime(T0))
}

pub fn open(dir: &Path, settings: Settings, clock: &Arc<ManualClock>) -> Node {
    let lock = Lock::acquire(dir).unwrap();
    let store = Store::open(&lock, settings, clock.clone()).unwrap();
    Node { store, clock: clock.clone(), _lock: lock }
}

impl Node {
    pub fn of(store: Store, clock: &Arc<ManualClock>, lock: Lock) -> Self {
        Self { store, clock: clock.clone(), _lock: lock }
    }

    pub async fn add(&self, key: u32, peer: &PeerInfo) -> Result<Added, Refused> {
        self.store.records.add(&multihash(key), peer, Dht::Wan).await
    }

    pub fn found(&self, key: u32) -> Vec<PeerId> {
        let mut peers: Vec<PeerId> =
            self.store.records.providers_now(&multihash(key), 1000, 0).into_iter().map(|p| p.peer).collect();
        peers.sort();
        peers
    }

    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub fn wait_replayed(&self) {
        assert!(self.store.records.wait_replayed());
    }

    pub async fn close(self) {
        self.store.close().await.unwrap();
    }
}

/// A sha2-256 multihash.
pub fn multihash(n: u32) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x20];
    bytes.extend_from_slice(&Sha256::digest(n.to_le_bytes()));
    bytes
}

/// A peer that is the same in every run.
pub fn peer(n: u8) -> PeerInfo {
    let keys = libp2p::identity::Keypair::ed25519_from_bytes([n + 1; 32]).unwrap();
    PeerInfo { id: keys.public().to_peer_id(), addrs: vec![format!("/ip4/192.0.2.{n}/tcp/4001").parse().unwrap()] }
}

/// Every file below a directory, by path.
pub fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.insert(path.display().to_string(), Sha256::digest(fs::read(&path).unwrap()).to_vec());
        }
    }
    all
}

/// What a kill -9 at this moment would leave: a copy of the directory while it is in use.
pub fn kill(dir: &Path, to: &Path) {
    copy::copy(dir, to);
}
