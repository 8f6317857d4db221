//! Routing tables as last saved: tree `routing` of the `node/` database, several peers to a row.

use super::{
    StoreError,
    blocking::blocking,
    codec,
    engine::guard,
    meta::{NodeDb, tree},
};
use crate::{
    clock::UnixTime,
    kad::{Dht, PeerInfo},
};
use bincode::{Decode, Encode};
pub use dhtstore_records::tables::SavedPeer;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use parking_lot::{Mutex, RwLock};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Number of peers in a row: with all the addresses kept of each, a row stays below the limit of the codec.
const PER_ROW: usize = 32;
/// Maximum number of peers kept of one table. It exceeds the capacity of a full table, 256 buckets of 20.
const MAX_PEERS: usize = 8192;
/// Maximum size of the addresses kept of a peer, in bytes.
const MAX_ADDRESS_BYTES: usize = 1024;

/// Saved routing tables. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RoutingState {
    state: Arc<RoutingTables>,
}

#[derive(Debug)]
struct RoutingTables {
    node: NodeDb,
    tables: [RwLock<Arc<Vec<SavedPeer>>>; 2],
    /// Held while a table is saved: one save at a time.
    saving: Mutex<()>,
    saves: AtomicU64,
}

/// A peer on disk; addresses are binary multiaddrs.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(super) struct SavedRow {
    peer: Vec<u8>,
    addrs: Vec<Vec<u8>>,
    heard: u32,
}

impl RoutingState {
    pub(super) fn open(node: NodeDb) -> Result<Self, StoreError> {
        let tree = node.database.read(tree::ROUTING, |tree| Ok(tree.clone()))?;
        let state = Self {
            state: Arc::new(RoutingTables {
                tables: Default::default(),
                saving: Mutex::default(),
                saves: AtomicU64::new(0),
                node,
            }),
        };
        for dht in Dht::ALL {
            let mut peers = Vec::new();
            // The peers of a row that cannot be read are found again on the network.
            let mut rows = tree.scan_prefix(dht.name());
            while let Ok(Some((_, row))) = guard(|| rows.next().transpose()) {
                let row: Vec<SavedRow> = codec::decode(&row).unwrap_or_default();
                peers.extend(row.into_iter().filter_map(SavedRow::into_peer));
            }
            peers.truncate(MAX_PEERS);
            *state.table(dht).write() = Arc::new(peers);
        }
        Ok(state)
    }

    /// Replaces the saved table of `dht` (at most 8192 peers). Returns once it is flushed.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn save(&self, dht: Dht, peers: Vec<SavedPeer>) -> Result<(), StoreError> {
        let state = self.clone();
        blocking(move || state.save_blocking(dht, peers)).await
    }

    /// Returns the saved table of `dht`; empty if none was saved.
    pub fn load(&self, dht: Dht) -> Vec<SavedPeer> {
        self.table(dht).read().to_vec()
    }

    /// Writes both tables to a reopened database.
    pub(super) fn write_anew(&self) -> Result<(), StoreError> {
        Dht::ALL.into_iter().try_for_each(|dht| self.save_blocking(dht, self.load(dht)))
    }

    pub(super) fn save_blocking(&self, dht: Dht, mut peers: Vec<SavedPeer>) -> Result<(), StoreError> {
        let _only = self.state.saving.lock();
        peers.truncate(MAX_PEERS);
        let rows = rows(&peers);
        let written = rows.len();
        for (n, row) in rows.into_iter().enumerate() {
            let row = codec::encode(&row).map_err(|e| StoreError::Database(e.into()))?;
            self.state.node.database.write(tree::ROUTING, |tree| tree.insert(key(dht, n), row))?;
        }
        for n in written..MAX_PEERS.div_ceil(PER_ROW) {
            if self.state.node.database.write(tree::ROUTING, |tree| tree.remove(key(dht, n)))?.is_none() {
                break;
            }
        }
        *self.table(dht).write() = Arc::new(peers);
        self.state.saves.fetch_add(1, Ordering::Relaxed);
        self.state.node.flush()
    }

    /// Adds the peers of a dump to the saved table of `dht`. For a known peer the later entry counts. If there is no
    /// room for all, those heard from most recently stay. Returns for each peer whether it changed something. Blocking.
    pub(super) fn merge(&self, dht: Dht, peers: Vec<SavedPeer>) -> Result<Vec<bool>, StoreError> {
        let mut all = self.load(dht);
        let mut at: std::collections::HashMap<PeerId, usize> =
            all.iter().enumerate().map(|(n, saved)| (saved.peer.id, n)).collect();
        let mut news = Vec::with_capacity(peers.len());
        for peer in peers {
            let known = *at.entry(peer.peer.id).or_insert(all.len());
            let is_news = all.get(known).is_none_or(|known| known.heard < peer.heard);
            news.push(is_news);
            match all.get_mut(known) {
                Some(known) if is_news => *known = peer,
                Some(_) => {}
                None => all.push(peer),
            }
        }
        if all.len() > MAX_PEERS {
            all.sort_by_key(|saved| std::cmp::Reverse(saved.heard));
        }
        if news.contains(&true) {
            self.save_blocking(dht, all)?;
        }
        Ok(news)
    }

    /// Returns how many tables were saved since the start, which tells whether an export is out of date.
    pub(super) fn saves(&self) -> u64 {
        self.state.saves.load(Ordering::Relaxed)
    }

    fn table(&self, dht: Dht) -> &RwLock<Arc<Vec<SavedPeer>>> {
        match dht {
            Dht::Wan => &self.state.tables[0],
            Dht::Lan => &self.state.tables[1],
        }
    }
}

/// Splits a table into rows of a database, or frames of an export.
pub(super) fn rows(peers: &[SavedPeer]) -> Vec<Vec<SavedRow>> {
    peers.chunks(PER_ROW).map(|some| some.iter().map(SavedRow::new).collect()).collect()
}

fn key(dht: Dht, n: usize) -> String {
    format!("{}/{n:04}", dht.name())
}

impl SavedRow {
    fn new(saved: &SavedPeer) -> Self {
        let mut bytes = 0;
        let addrs = saved.peer.addrs.iter().take_while(|a| {
            bytes += a.len();
            bytes <= MAX_ADDRESS_BYTES
        });
        Self { peer: saved.peer.id.to_bytes(), addrs: addrs.map(Multiaddr::to_vec).collect(), heard: saved.heard.0 }
    }

    pub(super) fn into_peer(self) -> Option<SavedPeer> {
        let id = PeerId::from_bytes(&self.peer).ok()?;
        let addrs = self.addrs.into_iter().filter_map(|a| Multiaddr::try_from(a).ok()).collect();
        Some(SavedPeer { peer: PeerInfo { id, addrs }, heard: UnixTime(self.heard) })
    }
}
