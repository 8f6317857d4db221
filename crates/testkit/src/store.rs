//! A store on real files, with a clock that the test sets.

use crate::files;
use cid::Cid;
use dhtstore_host::clock::{ManualClock, UnixTime};
use dhtstore_kad::{Dht, PeerInfo};
use dhtstore_store::{
    Settings, Store,
    data_dir::Lock,
    records::{Added, Refused},
};
use libp2p::PeerId;
use std::{path::Path, sync::Arc, time::Duration};

/// The start time of tests, in Unix seconds (2023-11-14).
pub const T0: u32 = 1_700_000_000;

/// An open store.
pub struct Node {
    /// The store itself.
    pub store: Store,
    /// The clock that it was opened with.
    pub clock: Arc<ManualClock>,
    _lock: Lock,
}

/// Returns a clock that is set to [`T0`].
pub fn clock() -> Arc<ManualClock> {
    ManualClock::at(UnixTime(T0))
}

/// Opens the store in `dir`. Creates the directory if it is missing.
pub fn open(dir: &Path, settings: Settings, clock: &Arc<ManualClock>) -> Node {
    // Tests that run in parallel have two databases each, and the usual soft limit is 1,024 open files.
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let lock = Lock::acquire(dir).unwrap();
    let store = Store::open(&lock, settings, clock.clone()).unwrap();
    Node { store, clock: clock.clone(), _lock: lock }
}

/// Opens the store in `dir` with the default settings, and waits until its log is replayed.
pub fn reopen(dir: &Path, clock: &Arc<ManualClock>) -> Node {
    let node = open(dir, Settings::default(), clock);
    node.wait_replayed();
    node
}

impl Node {
    /// Returns a node for a store that was opened elsewhere, with the lock on its directory.
    pub fn of(store: Store, clock: &Arc<ManualClock>, lock: Lock) -> Self {
        Self { store, clock: clock.clone(), _lock: lock }
    }

    /// Adds a record of key number `key` and `peer`, received over the WAN DHT.
    pub async fn add(&self, key: u32, peer: &PeerInfo) -> Result<Added, Refused> {
        self.store.records.add(&multihash(key), peer, Dht::Wan).await
    }

    /// Returns the providers of key number `key`, sorted.
    pub fn found(&self, key: u32) -> Vec<PeerId> {
        let mut peers: Vec<PeerId> =
            self.store.records.providers_now(&multihash(key), 1000, 0).into_iter().map(|p| p.peer).collect();
        peers.sort();
        peers
    }

    /// Advances the wall clock and the monotonic clock.
    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Waits until the log is replayed.
    pub fn wait_replayed(&self) {
        assert!(self.store.records.wait_replayed());
    }

    /// Closes the store properly. Panics if that fails.
    pub async fn close(self) {
        self.store.close().await.unwrap();
    }

    /// Returns a counter of the store.
    pub fn counter(&self, name: &str) -> u64 {
        self.store.stat().counters[name]
    }
}

/// Returns key number `n`, a sha2-256 multihash.
pub fn multihash(n: u32) -> Vec<u8> {
    crate::multihash(n.to_le_bytes())
}

/// Returns a CID of key number `n` (DAG-PB), as a user gives it to `provide`.
pub fn own_cid(n: u32) -> Cid {
    Cid::new_v1(0x70, cid::multihash::Multihash::from_bytes(&multihash(n)).unwrap())
}

/// Returns peer number `n`, the same in every run.
pub fn peer(n: u8) -> PeerInfo {
    let keys = libp2p::identity::Keypair::ed25519_from_bytes([n + 1; 32]).unwrap();
    PeerInfo { id: keys.public().to_peer_id(), addrs: vec![format!("/ip4/192.0.2.{n}/tcp/4001").parse().unwrap()] }
}

/// Copies the directory to `to` while it is in use. The copy is what a `kill -9` now would leave.
pub fn kill(dir: &Path, to: &Path) {
    files::copy(dir, to);
}
