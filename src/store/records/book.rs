//! The address book: a number for each provider, under which the log and the index know it, and its addresses.
//!
//! A peer has two lists of addresses, one per DHT by which they came, and one time for both: that of its newest
//! announcement (PRV-6). The row of a new peer is flushed before any chunk that names its number; a number is never
//! used again while a chunk may hold it.

use super::time::Now;
use crate::{
    kad::{Dht, PeerInfo},
    store::codec::{self, CodecError},
};
use bincode::{Decode, Encode};
use hashbrown::HashTable;
use libp2p::{Multiaddr, PeerId, multihash::Multihash};
use siphasher::sip::SipHasher13;
use std::{
    collections::HashMap,
    hash::Hasher,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

/// Parts of the book, each with a lock of its own, so that threads seldom meet.
const SHARDS: usize = 64;
/// Most addresses kept per peer and DHT ...
const MAX_ADDRESSES: usize = 32;
/// ... and their bytes: twice what a message carries of one peer (design 5: 512 B).
const MAX_ADDRESS_BYTES: usize = 1024;
/// A row this old is written again with the next announcement, so that a restart knows roughly when that was.
const ROW_AGE_S: u32 = 3600;
/// ... but never older than this part of the address ttl, or a steady peer's addresses would look outlived after a
/// restart where that ttl is short.
const ROW_AGE_PART_OF_TTL: u32 = 10;
/// Numbers are reserved on disk in blocks of this size: a row of its own for each would double the writes.
const BLOCK: u64 = 1024;
/// Numbers left out when the reservation is lost but chunks are not: more than were ever given out in one run.
pub const LOST_RESERVATION: u64 = 1 << 24;

/// The row of a peer. Addresses are binary multiaddrs.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct PeerRow {
    /// Binary peer id.
    pub peer: Vec<u8>,
    /// Came by `/ipfs/kad/1.0.0`.
    pub wan: Vec<Vec<u8>>,
    /// Came by `/ipfs/lan/kad/1.0.0`.
    pub lan: Vec<Vec<u8>>,
    /// Newest announcement when the row was written, Unix seconds.
    pub announced: u32,
}

/// A provider.
#[derive(Debug)]
pub struct Peer {
    /// Its number.
    pub id: u32,
    /// Its peer id.
    pub peer: PeerId,
    addrs: Mutex<[Box<[Multiaddr]>; 2]>,
    /// Secret hash of each list as it came: nearly every announcement repeats it, and need not look further.
    came: [AtomicU64; 2],
    announced: AtomicU32,
    /// Records in the index. May be off by those in the hands of other threads.
    records: AtomicI64,
    /// Time of the newest chunk that names it.
    named: AtomicU32,
    /// Time of the row on disk; 0: there is none.
    stored: AtomicU32,
    dirty: AtomicBool,
    forgotten: AtomicBool,
}

/// There are as many peers as may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BookFull;

/// See the module.
#[derive(Debug)]
pub struct Book {
    by_peer: Vec<Mutex<HashTable<Arc<Peer>>>>,
    by_id: Vec<RwLock<HashMap<u32, Arc<Peer>>>>,
    len: AtomicUsize,
    limit: usize,
    address_ttl_s: u32,
    next_id: AtomicU64,
    /// Numbers below are reserved on disk.
    reserved: AtomicU64,
    dirty: Mutex<Vec<Arc<Peer>>>,
    /// Peer ids are chosen by strangers, as keys are.
    secret: (u64, u64),
}

impl Peer {
    /// Newest announcement, Unix seconds.
    pub fn announced(&self) -> u32 {
        self.announced.load(Ordering::Relaxed)
    }

    /// Records in the index.
    pub fn records(&self) -> u64 {
        u64::try_from(self.records.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// The index has one record more (1) or less (-1).
    pub fn count(&self, by: i64) {
        self.records.fetch_add(by, Ordering::Relaxed);
    }

    /// What came by each DHT, without duplicates.
    pub fn addresses(&self) -> Vec<Multiaddr> {
        let lists = self.addrs.lock().unwrap_or_else(PoisonError::into_inner);
        let [wan, lan] = &*lists;
        // Two allocations less where a peer is in one DHT, as nearly all are.
        if lan.is_empty() {
            return wan.to_vec();
        }
        let mut all = Vec::with_capacity(wan.len() + lan.len());
        all.extend_from_slice(wan);
        all.extend(lan.iter().filter(|a| !wan.contains(a)).cloned());
        all
    }

    /// How many of [`Peer::addresses`], at its end, came by the LAN DHT alone.
    pub fn by_lan(&self) -> usize {
        let lists = self.addrs.lock().unwrap_or_else(PoisonError::into_inner);
        let [wan, lan] = &*lists;
        lan.iter().filter(|a| !wan.contains(a)).count()
    }

    /// A peer as its row has it.
    fn of_row(id: u32, bytes: &[u8], now: u32) -> Result<Self, CodecError> {
        let row: PeerRow = codec::decode(bytes)?;
        let peer = PeerId::from_bytes(&row.peer).map_err(|e| CodecError::Malformed(e.to_string()))?;
        let list = |list: Vec<Vec<u8>>| list.into_iter().filter_map(|a| Multiaddr::try_from(a).ok()).collect();
        Ok(Self {
            id,
            peer,
            addrs: Mutex::new([list(row.wan), list(row.lan)]),
            came: Default::default(),
            announced: AtomicU32::new(row.announced.min(now)),
            records: AtomicI64::new(0),
            named: AtomicU32::new(now),
            stored: AtomicU32::new(row.announced.min(now)),
            dirty: AtomicBool::new(false),
            forgotten: AtomicBool::new(false),
        })
    }

    /// The row to be written.
    pub fn row(&self) -> PeerRow {
        let lists = self.addrs.lock().unwrap_or_else(PoisonError::into_inner);
        let [wan, lan] = lists.each_ref().map(|list| list.iter().map(|a| a.to_vec()).collect());
        PeerRow { peer: self.peer.to_bytes(), wan, lan, announced: self.announced() }
    }
}

impl Book {
    /// An empty book of at most `limit` peers.
    pub fn new(limit: usize, address_ttl_s: u32) -> Self {
        Self {
            by_peer: (0..SHARDS).map(|_| Mutex::default()).collect(),
            by_id: (0..SHARDS).map(|_| RwLock::default()).collect(),
            len: AtomicUsize::new(0),
            limit,
            address_ttl_s,
            next_id: AtomicU64::new(0),
            reserved: AtomicU64::new(0),
            dirty: Mutex::default(),
            secret: (rand::random(), rand::random()),
        }
    }

    /// How long addresses are served after the newest announcement, in seconds.
    pub fn address_ttl_s(&self) -> u32 {
        self.address_ttl_s
    }

    /// Peers.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Enters a row that was read from disk. Dates in the future count as now: nothing lives for ever. Chunks that
    /// nobody has read yet may name the peer, so it counts as named now.
    ///
    /// # Errors
    /// Bytes that are no such row.
    pub fn load(&self, id: u32, bytes: &[u8], now: u32) -> Result<(), CodecError> {
        let entry = Arc::new(Peer::of_row(id, bytes, now)?);
        let peer = entry.peer;
        self.next_id.fetch_max(u64::from(id) + 1, Ordering::Relaxed);
        // Rows are read in the order of numbers: of two for one peer the newer one is the one to be found by peer id.
        let hash = self.hash(&peer);
        let mut shard = self.peers(hash);
        match shard.find_mut(hash, |known| known.peer == peer) {
            Some(known) => *known = entry.clone(),
            None => drop(shard.insert_unique(hash, entry.clone(), |e| self.hash(&e.peer))),
        }
        drop(shard);
        self.ids(id).write().unwrap_or_else(PoisonError::into_inner).insert(id, entry);
        self.len.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Enters a row that was lost, as an export has it, while others are entered: the number that the peer has here, `id`
    /// if that can be.
    ///
    /// # Errors
    /// Bytes that are no such row.
    pub fn adopt(&self, id: u32, bytes: &[u8], now: u32) -> Result<u32, CodecError> {
        let mut entry = Peer::of_row(id, bytes, now)?;
        let hash = self.hash(&entry.peer);
        let mut shard = self.peers(hash);
        if let Some(known) = shard.find(hash, |known| known.peer == entry.peer) {
            return Ok(known.id);
        }
        // Taken by nobody so far, or by a peer whose row is lost: by this one, unless the book was begun anew since.
        let was_free = self.next_id.fetch_max(u64::from(id) + 1, Ordering::Relaxed) <= u64::from(id);
        if !was_free && self.get(id).is_some() {
            entry.id = u32::try_from(self.next_id.fetch_add(1, Ordering::Relaxed))
                .map_err(|_| CodecError::Malformed("there are no more numbers for peers".into()))?;
        }
        let entry = Arc::new(entry);
        self.ids(entry.id).write().unwrap_or_else(PoisonError::into_inner).insert(entry.id, entry.clone());
        self.len.fetch_add(1, Ordering::Relaxed);
        let id = entry.id;
        shard.insert_unique(hash, entry, |e| self.hash(&e.peer));
        Ok(id)
    }

    /// Numbers below `reserved` may have been given out.
    pub fn resume_above(&self, reserved: u64) {
        self.next_id.fetch_max(reserved, Ordering::Relaxed);
        self.reserved.fetch_max(reserved, Ordering::Relaxed);
    }

    /// The largest number given out, plus one.
    pub fn next_id(&self) -> u64 {
        self.next_id.load(Ordering::Relaxed)
    }

    /// The reservation to be written before chunks that name new peers, if the one on disk is used up.
    pub fn reservation(&self) -> Option<u64> {
        let next = self.next_id();
        (next > self.reserved.load(Ordering::Relaxed)).then_some(next + BLOCK)
    }

    /// The reservation is on disk.
    pub fn reserved(&self, below: u64) {
        self.reserved.fetch_max(below, Ordering::Relaxed);
    }

    /// Takes note of an announcement: addresses, time. A new peer is entered if `may_enter` and there is room.
    ///
    /// # Errors
    /// [`BookFull`].
    pub fn announce(&self, info: &PeerInfo, via: Dht, now: &Now, may_enter: bool) -> Result<Arc<Peer>, BookFull> {
        let hash = self.hash(&info.id);
        let mut shard = self.peers(hash);
        let entry = match shard.find(hash, |known| known.peer == info.id) {
            Some(entry) => {
                // Under the lock of the shard, so that nobody forgets the peer meanwhile.
                entry.named.store(now.log, Ordering::Relaxed);
                entry.clone()
            }
            None => {
                let entry = self.enter(&info.id, now, may_enter)?;
                shard.insert_unique(hash, entry.clone(), |e| self.hash(&e.peer));
                entry
            }
        };
        drop(shard);
        let changed = self.set_addresses(&entry, &info.addrs, via);
        entry.announced.store(now.log, Ordering::Relaxed);
        let stored = entry.stored.load(Ordering::Relaxed);
        if changed || stored == 0 || now.log.abs_diff(stored) >= ROW_AGE_S.min(self.address_ttl_s / ROW_AGE_PART_OF_TTL)
        {
            self.mark_dirty(&entry);
        }
        Ok(entry)
    }

    /// Takes what a dump says of a peer: addresses by the WAN and by the LAN DHT, true when it announced them. A new
    /// peer is entered if `may_enter` and there is room; of one that is known they are taken if `newer` says so of the
    /// time of its newest announcement. `dated`: a later time alone is reason to write the row. Whether it is written.
    ///
    /// # Errors
    /// [`BookFull`].
    pub fn restore(
        &self,
        peer: &PeerId,
        (announced, [wan, lan]): (u32, [&[Multiaddr]; 2]),
        (newer, dated): (impl FnOnce(u32) -> bool, bool),
        now: &Now,
        may_enter: bool,
    ) -> Result<(Arc<Peer>, bool), BookFull> {
        let (entry, is_new) = {
            let hash = self.hash(peer);
            let mut shard = self.peers(hash);
            match shard.find(hash, |known| known.peer == *peer) {
                Some(entry) => {
                    entry.named.store(now.log, Ordering::Relaxed);
                    (entry.clone(), false)
                }
                None => {
                    let entry = self.enter(peer, now, may_enter)?;
                    entry.announced.store(announced, Ordering::Relaxed);
                    shard.insert_unique(hash, entry.clone(), |e| self.hash(&e.peer));
                    (entry, true)
                }
            }
        };
        let mut changed = is_new;
        if is_new || newer(entry.announced()) {
            changed |= self.set_addresses(&entry, wan, Dht::Wan);
            changed |= self.set_addresses(&entry, lan, Dht::Lan);
            let later = entry.announced.fetch_max(announced, Ordering::Relaxed) < announced;
            // Else a chunk tells replay the time: writing the row with each would cost more than the chunk.
            changed |= later && dated;
        }
        if changed {
            self.mark_dirty(&entry);
        }
        Ok((entry, changed))
    }

    fn enter(&self, peer: &PeerId, now: &Now, may_enter: bool) -> Result<Arc<Peer>, BookFull> {
        if !may_enter || self.len() >= self.limit {
            return Err(BookFull);
        }
        let id = u32::try_from(self.next_id.fetch_add(1, Ordering::Relaxed)).map_err(|_| BookFull)?;
        let entry = Arc::new(Peer {
            id,
            peer: *peer,
            addrs: Mutex::default(),
            came: Default::default(),
            announced: AtomicU32::new(now.log),
            records: AtomicI64::new(0),
            named: AtomicU32::new(now.log),
            stored: AtomicU32::new(0),
            dirty: AtomicBool::new(false),
            forgotten: AtomicBool::new(false),
        });
        self.ids(id).write().unwrap_or_else(PoisonError::into_inner).insert(id, entry.clone());
        self.len.fetch_add(1, Ordering::Relaxed);
        Ok(entry)
    }

    /// Replaces one list. True if it was another.
    fn set_addresses(&self, entry: &Peer, addrs: &[Multiaddr], via: Dht) -> bool {
        let which = match via {
            Dht::Wan => 0,
            Dht::Lan => 1,
        };
        let mut bytes = 0;
        let mut hasher = SipHasher13::new_with_keys(self.secret.1, self.secret.0);
        let fit = addrs.iter().take(MAX_ADDRESSES).take_while(|a| {
            bytes += a.len();
            hasher.write_usize(a.len());
            hasher.write(a.as_ref());
            bytes <= MAX_ADDRESS_BYTES
        });
        let fit = fit.count();
        let hash = hasher.finish();
        if entry.came[which].load(Ordering::Acquire) == hash {
            return false;
        }
        let mut lists = entry.addrs.lock().unwrap_or_else(PoisonError::into_inner);
        entry.came[which].store(hash, Ordering::Release);
        let changed = *lists[which] != addrs[..fit];
        if changed {
            lists[which] = addrs[..fit].into();
        }
        changed
    }

    /// The peer of this id, if known; about to be named by a chunk.
    pub fn name(&self, peer: &PeerId, now: &Now) -> Option<Arc<Peer>> {
        let hash = self.hash(peer);
        let shard = self.peers(hash);
        let entry = shard.find(hash, |known| known.peer == *peer)?;
        entry.named.store(now.log, Ordering::Relaxed);
        Some(entry.clone())
    }

    /// The peer of this id.
    pub fn find(&self, peer: &PeerId) -> Option<Arc<Peer>> {
        let hash = self.hash(peer);
        self.peers(hash).find(hash, |known| known.peer == *peer).cloned()
    }

    /// The peer of this number.
    pub fn get(&self, id: u32) -> Option<Arc<Peer>> {
        self.ids(id).read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Addresses that are not outlived (PRV-6).
    pub fn live_addresses(&self, entry: &Peer, now: &Now) -> Vec<Multiaddr> {
        match now.is_live(entry.announced(), self.address_ttl_s) {
            true => entry.addresses(),
            false => Vec::new(),
        }
    }

    /// A chunk of `time` names this number, says replay: if it is an announcement, the addresses were true then.
    /// False if the number is unknown.
    pub fn replayed(&self, id: u32, time: u32, announced: bool) -> bool {
        let ids = self.ids(id).read().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = ids.get(&id) else { return false };
        // Newest first: nearly always known already, and reading is cheaper.
        if announced && entry.announced.load(Ordering::Relaxed) < time {
            entry.announced.fetch_max(time, Ordering::Relaxed);
        }
        true
    }

    /// Records of a peer came or went.
    pub fn count(&self, id: u32, by: i64) {
        if let Some(entry) = self.ids(id).read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            entry.count(by);
        }
    }

    /// The base of log time moved: what is dated in `from..=to` is of now.
    pub fn redate(&self, from: u32, to: u32, now: u32) {
        for shard in &self.by_id {
            for entry in shard.read().unwrap_or_else(PoisonError::into_inner).values() {
                for time in [&entry.announced, &entry.named] {
                    if (from..=to).contains(&time.load(Ordering::Relaxed)) {
                        time.store(now, Ordering::Relaxed);
                    }
                }
                self.mark_dirty_if(entry, (from..=to).contains(&entry.stored.load(Ordering::Relaxed)));
            }
        }
    }

    /// Forgets peers that no record refers to and no chunk can name (none is older than `oldest_chunk`): those whose
    /// addresses are outlived, and when the book is nearly full the others, too. Their numbers, whose rows may go.
    pub fn forget(&self, oldest_chunk: u32, now: &Now) -> Vec<u32> {
        let crowded = self.len() >= self.limit - self.limit / 8;
        let mut gone = Vec::new();
        for shard in &self.by_peer {
            shard.lock().unwrap_or_else(PoisonError::into_inner).retain(|entry| {
                let useless = crowded || !now.is_live(entry.announced(), self.address_ttl_s);
                let unnamed = entry.records() == 0 && entry.named.load(Ordering::Relaxed) < oldest_chunk;
                if !(useless && unnamed) {
                    return true;
                }
                entry.forgotten.store(true, Ordering::Relaxed);
                self.ids(entry.id).write().unwrap_or_else(PoisonError::into_inner).remove(&entry.id);
                gone.push(entry.id);
                false
            });
        }
        self.len.fetch_sub(gone.len(), Ordering::Relaxed);
        gone
    }

    /// All peers in the order of their numbers.
    pub fn all(&self) -> Vec<Arc<Peer>> {
        let mut all = Vec::with_capacity(self.len());
        for shard in &self.by_id {
            all.extend(shard.read().unwrap_or_else(PoisonError::into_inner).values().cloned());
        }
        all.sort_by_key(|entry| entry.id);
        all
    }

    /// Rows to be written, and whether one of them is new. Each is either written or given back.
    pub fn take_dirty(&self) -> (Vec<Arc<Peer>>, bool) {
        let mut dirty = std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner));
        dirty.retain(|entry| !entry.forgotten.load(Ordering::Relaxed));
        let new = dirty.iter().any(|entry| entry.stored.load(Ordering::Relaxed) == 0);
        for entry in &dirty {
            // Before the row is made: a change after this marks it again.
            entry.dirty.store(false, Ordering::Release);
        }
        (dirty, new)
    }

    /// These rows are written.
    pub fn written(&self, rows: &[Arc<Peer>]) {
        for entry in rows {
            entry.stored.store(entry.announced().max(1), Ordering::Relaxed);
        }
    }

    /// These rows were written, but are not known to be on disk: once more.
    pub fn write_again(&self, rows: &[Arc<Peer>]) {
        for entry in rows {
            // As new: flushed before any chunk that names it.
            entry.stored.store(0, Ordering::Relaxed);
            self.mark_dirty(entry);
        }
    }

    /// There are no rows on disk any more, nor a reservation.
    pub fn write_all_again(&self) {
        self.write_again(&self.all());
        self.reserved.store(0, Ordering::Relaxed);
    }

    /// Whether rows wait to be written.
    pub fn has_dirty(&self) -> bool {
        !self.dirty.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// This row is still to be written.
    pub fn mark_dirty(&self, entry: &Arc<Peer>) {
        self.mark_dirty_if(entry, true);
    }

    fn mark_dirty_if(&self, entry: &Arc<Peer>, dirty: bool) {
        if dirty && !entry.dirty.swap(true, Ordering::AcqRel) {
            self.dirty.lock().unwrap_or_else(PoisonError::into_inner).push(entry.clone());
        }
    }

    /// Once, for the shard and for its table. The digest alone: the rest of a peer id is nearly always the same.
    fn hash(&self, peer: &PeerId) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.secret.0, self.secret.1);
        hasher.write(AsRef::<Multihash<64>>::as_ref(peer).digest());
        hasher.finish()
    }

    fn peers(&self, hash: u64) -> MutexGuard<'_, HashTable<Arc<Peer>>> {
        self.by_peer[(hash >> 40) as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ids(&self, id: u32) -> &RwLock<HashMap<u32, Arc<Peer>>> {
        &self.by_id[id as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests;
