//! A provider as the address book knows it.

use crate::codec::{self, CodecError};
use bincode::{Decode, Encode};
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use parking_lot::{Mutex, MutexGuard};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering},
};

/// The row of a peer. Addresses are binary multiaddrs.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct PeerRow {
    /// Binary peer id.
    pub peer: Vec<u8>,
    /// Addresses that came by `/ipfs/kad/1.0.0`.
    pub wan: Vec<Vec<u8>>,
    /// Addresses that came by `/ipfs/lan/kad/1.0.0`.
    pub lan: Vec<Vec<u8>>,
    /// Time of its newest announcement when the row was written, Unix seconds.
    pub announced: u32,
}

/// A provider.
#[derive(Debug)]
pub struct Peer {
    /// Number in the address book.
    pub id: u32,
    /// Peer id.
    pub peer: PeerId,
    addrs: Mutex<Addresses>,
    /// Secret hash of each list as it came. Nearly every announcement repeats the list, and is compared by this hash
    /// alone.
    pub(super) came: [AtomicU64; 2],
    pub(super) announced: AtomicU32,
    /// Number of its records in the index. It lags behind by what other threads are adding or removing.
    records: AtomicI64,
    /// Time of the newest chunk that names the peer, or a later time.
    pub(super) named: AtomicU32,
    /// Time in the row on disk; 0 if there is no row.
    pub(super) stored: AtomicU32,
    pub(super) dirty: AtomicBool,
    pub(super) forgotten: AtomicBool,
}

/// The addresses of a peer. The lists are shared with the callers that read them, so reading copies nothing.
#[derive(Debug)]
struct Addresses {
    /// Addresses by the WAN and by the LAN DHT.
    lists: [Arc<[Multiaddr]>; 2],
    /// Both lists without duplicates. Nearly always it is one of the two, shared.
    all: Arc<[Multiaddr]>,
}

impl Addresses {
    fn new(lists: [Arc<[Multiaddr]>; 2]) -> Self {
        let [wan, lan] = &lists;
        let all = match (wan.is_empty(), lan.is_empty()) {
            (_, true) => wan.clone(),
            (true, _) => lan.clone(),
            _ => wan.iter().chain(lan.iter().filter(|a| !wan.contains(a))).cloned().collect(),
        };
        Self { lists, all }
    }
}

impl Peer {
    /// Makes a peer that is new to the book.
    pub(super) fn new(id: u32, peer: PeerId, now: u32) -> Self {
        let none: Arc<[Multiaddr]> = Arc::default();
        Self::with(id, peer, [none.clone(), none], now, now, 0)
    }

    /// Makes a peer from its row.
    pub(super) fn of_row(id: u32, bytes: &[u8], now: u32) -> Result<Self, CodecError> {
        let row: PeerRow = codec::decode(bytes)?;
        let peer = PeerId::from_bytes(&row.peer).map_err(|e| CodecError::Malformed(e.into()))?;
        let list = |list: Vec<Vec<u8>>| list.into_iter().filter_map(|a| Multiaddr::try_from(a).ok()).collect();
        let announced = row.announced.min(now);
        Ok(Self::with(id, peer, [list(row.wan), list(row.lan)], now, announced, announced))
    }

    fn with(id: u32, peer: PeerId, lists: [Arc<[Multiaddr]>; 2], named: u32, announced: u32, stored: u32) -> Self {
        Self {
            id,
            peer,
            addrs: Mutex::new(Addresses::new(lists)),
            came: Default::default(),
            announced: AtomicU32::new(announced),
            records: AtomicI64::new(0),
            named: AtomicU32::new(named),
            stored: AtomicU32::new(stored),
            dirty: AtomicBool::new(false),
            forgotten: AtomicBool::new(false),
        }
    }

    /// Gives the peer another number.
    pub(super) fn renumbered(self, id: u32) -> Self {
        Self { id, ..self }
    }

    /// Returns the time of the newest announcement, Unix seconds.
    pub fn announced(&self) -> u32 {
        self.announced.load(Ordering::Relaxed)
    }

    /// Returns the number of its records in the index.
    pub fn records(&self) -> u64 {
        u64::try_from(self.records.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Adds `by` to the number of its records in the index: 1 for a new record, -1 for one that is gone.
    pub fn count(&self, by: i64) {
        self.records.fetch_add(by, Ordering::Relaxed);
    }

    /// Returns the addresses that came by either DHT, without duplicates.
    pub fn addresses(&self) -> Arc<[Multiaddr]> {
        self.lock().all.clone()
    }

    /// Returns how many of [`Peer::addresses`] came by the LAN DHT alone. They are the last ones.
    pub fn by_lan(&self) -> usize {
        let addrs = self.lock();
        addrs.all.len() - addrs.lists[0].len()
    }

    /// Returns the row of the peer.
    pub fn row(&self) -> PeerRow {
        let [wan, lan] = self.lock().lists.each_ref().map(|list| list.iter().map(|a| a.to_vec()).collect());
        PeerRow { peer: self.peer.to_bytes(), wan, lan, announced: self.announced() }
    }

    /// Replaces the list of the addresses that came by one DHT. `hash` is the secret hash of the new list.
    /// Returns true if the list changed.
    pub(super) fn replace(&self, which: usize, addrs: &[Multiaddr], hash: u64) -> bool {
        let mut held = self.lock();
        self.came[which].store(hash, Ordering::Release);
        let changed = *held.lists[which] != *addrs;
        if changed {
            let mut lists = held.lists.clone();
            // Copied, so that an address of a few bytes does not keep a larger buffer in memory.
            lists[which] = addrs.iter().filter_map(|a| Multiaddr::try_from(a.to_vec()).ok()).collect();
            *held = Addresses::new(lists);
        }
        changed
    }

    fn lock(&self) -> MutexGuard<'_, Addresses> {
        self.addrs.lock()
    }
}
