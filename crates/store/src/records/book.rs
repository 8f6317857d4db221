//! The address book: the number and the addresses of each provider. The log and the index name providers by number.
//!
//! A peer has two lists of addresses, one per DHT by which they came. Both have one time, that of the newest
//! announcement (PRV-6). The row of a new peer is written out before any chunk that names its number. A number is not
//! used again while a chunk may name it.

mod peer;

pub use peer::{Peer, PeerRow};

use super::time::Now;
use crate::{
    codec::CodecError,
    kad::{Dht, PeerInfo},
};
use hashbrown::HashTable;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use multihash::Multihash;
use parking_lot::{Mutex, MutexGuard, RwLock};
use siphasher::sip128::{Hash128, SipHasher13};
use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// Parts of the book. Each has its own lock, so that threads seldom wait for each other.
const SHARDS: usize = 64;
/// Maximum number of addresses of a peer that came by one DHT ...
const MAX_ADDRESSES: usize = 32;
/// ... and of their bytes: more than the 672 that a message carries for one provider (docs/decisions/routing.md).
const MAX_ADDRESS_BYTES: usize = 1024;
/// A row of this age, in seconds, is written again with the next announcement: so a restart knows roughly when the
/// newest announcement came ...
const ROW_AGE_S: u32 = 3600;
/// ... or a row as old as the address ttl divided by this, if that is less. Otherwise a short ttl would make the
/// addresses of a steady peer look expired after a restart.
const ROW_AGE_PART_OF_TTL: u32 = 10;
/// Numbers are reserved on disk in blocks of this size: one reservation per number would double the writes.
const BLOCK: u64 = 1024;
/// Numbers skipped when the reservation is lost but there are chunks: more than one run ever gives out.
pub const LOST_RESERVATION: u64 = 1 << 24;

/// A new peer cannot enter: the book is full, or the caller lets none in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BookFull;

/// Secret hash of a peer id. It stands for the peer id: two peers with one hash count as one peer. Comparing the 128
/// bits does not wait for memory. A collision by chance is out of the question, and nobody outside knows the key to
/// make one.
type PeerHash = Hash128;
/// Peers by their ids.
type ByPeer = HashTable<(PeerHash, Arc<Peer>)>;
/// Peers by their numbers.
type ByNumber = HashTable<(u32, Arc<Peer>)>;

/// The address book. See the module.
#[derive(Debug)]
pub struct Book {
    by_peer: Vec<Mutex<ByPeer>>,
    by_id: Vec<RwLock<ByNumber>>,
    len: AtomicUsize,
    limit: usize,
    address_ttl_s: u32,
    next_id: AtomicU64,
    /// All numbers below are reserved on disk.
    reserved: AtomicU64,
    dirty: Mutex<Vec<Arc<Peer>>>,
    /// Key of [`PeerHash`]: secret, because strangers choose peer ids.
    secret: SipHasher13,
    mixer: (u64, u64),
}

impl Book {
    /// Makes an empty book for at most `limit` peers.
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
            secret: SipHasher13::new_with_keys(rand::random(), rand::random()),
            mixer: (rand::random(), rand::random()),
        }
    }

    /// Returns how long addresses are served after the newest announcement, in seconds.
    pub fn address_ttl_s(&self) -> u32 {
        self.address_ttl_s
    }

    /// Returns the number of peers.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Enters a row that was read from disk. A date in the future counts as now, so that no address lives for ever. The
    /// peer counts as named now, because chunks that are not replayed yet may name it.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes are no row of a peer.
    pub fn load(&self, id: u32, bytes: &[u8], now: u32) -> Result<(), CodecError> {
        let entry = Arc::new(Peer::of_row(id, bytes, now)?);
        let peer = entry.peer;
        self.next_id.fetch_max(u64::from(id) + 1, Ordering::Relaxed);
        // Rows are read in the order of their numbers. If a peer has two, its id finds the newer one.
        let hash = self.hash(&peer);
        let mut shard = self.peers(hash);
        match shard.find_mut(hash.h1, |(known, _)| *known == hash) {
            Some((_, known)) => *known = entry.clone(),
            None => insert(&mut shard, hash, &entry),
        }
        drop(shard);
        self.enter_id(entry);
        Ok(())
    }

    /// Enters the row of a peer from a segment or an export, because the row in the database may be lost. Returns the
    /// number that the peer has in this book: `id` if it is new and `id` is free. Other threads may enter peers
    /// meanwhile.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes are no row of a peer, or if all numbers are used.
    pub fn adopt(&self, id: u32, bytes: &[u8], now: u32) -> Result<u32, CodecError> {
        let entry = Peer::of_row(id, bytes, now)?;
        let hash = self.hash(&entry.peer);
        let mut shard = self.peers(hash);
        if let Some(known) = find(&shard, hash) {
            return Ok(known.id);
        }
        let mut id = id;
        // A number that no known peer has is free, or belongs to a peer whose row is lost. That is this peer, unless
        // the book was lost and numbers were given out again.
        let was_free = self.next_id.fetch_max(u64::from(id) + 1, Ordering::Relaxed) <= u64::from(id);
        if !was_free && self.get(id).is_some() {
            id = u32::try_from(self.next_id.fetch_add(1, Ordering::Relaxed))
                .map_err(|_| CodecError::Malformed("the address book has used all its numbers".into()))?;
        }
        let entry = Arc::new(entry.renumbered(id));
        self.enter_id(entry.clone());
        insert(&mut shard, hash, &entry);
        Ok(id)
    }

    /// Gives out only numbers from `reserved` on: those below may be in use.
    pub fn resume_above(&self, reserved: u64) {
        self.next_id.fetch_max(reserved, Ordering::Relaxed);
        self.reserved.fetch_max(reserved, Ordering::Relaxed);
    }

    /// Returns the largest number given out, plus one.
    pub fn next_id(&self) -> u64 {
        self.next_id.load(Ordering::Relaxed)
    }

    /// Returns the reservation that must be written before chunks that name new peers. `None` if the one on disk still
    /// covers them.
    pub fn reservation(&self) -> Option<u64> {
        let next = self.next_id();
        (next > self.reserved.load(Ordering::Relaxed)).then_some(next + BLOCK)
    }

    /// Notes that the reservation of the numbers below `below` is written.
    pub fn reserved(&self, below: u64) {
        self.reserved.fetch_max(below, Ordering::Relaxed);
    }

    /// Notes the addresses and the time of an announcement. A new peer is entered if `may_enter` is true and there is
    /// room.
    ///
    /// # Errors
    /// [`BookFull`] if the peer is new and is not entered.
    pub fn announce(&self, info: &PeerInfo, via: Dht, now: &Now, may_enter: bool) -> Result<Arc<Peer>, BookFull> {
        let hash = self.hash(&info.id);
        let mut shard = self.peers(hash);
        let entry = match find(&shard, hash) {
            Some(entry) => {
                // Under the lock of the shard, so that `forget` sees it and keeps the peer.
                entry.named.store(now.log, Ordering::Relaxed);
                entry.clone()
            }
            None => {
                let entry = self.enter(&info.id, now, may_enter)?;
                insert(&mut shard, hash, &entry);
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

    /// Takes what a dump says of a peer: the time of its newest announcement, and its addresses by the WAN and the LAN
    /// DHT at that time. A new peer is entered if `may_enter` is true and there is room. For a known peer, `newer` is
    /// called with the time of the newest announcement in this book, and returns true if the data of the dump replaces
    /// that of the book. If `dated` is true, a later time alone is a reason to write the row. Returns the peer, and
    /// whether its row will be written.
    ///
    /// # Errors
    /// [`BookFull`] if the peer is new and is not entered.
    pub fn merge(
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
            match find(&shard, hash) {
                Some(entry) => {
                    entry.named.store(now.log, Ordering::Relaxed);
                    (entry.clone(), false)
                }
                None => {
                    let entry = self.enter(peer, now, may_enter)?;
                    entry.announced.store(announced, Ordering::Relaxed);
                    insert(&mut shard, hash, &entry);
                    (entry, true)
                }
            }
        };
        let mut changed = is_new;
        if is_new || newer(entry.announced()) {
            changed |= self.set_addresses(&entry, wan, Dht::Wan);
            changed |= self.set_addresses(&entry, lan, Dht::Lan);
            let later = entry.announced.fetch_max(announced, Ordering::Relaxed) < announced;
            // Otherwise replay learns the time from a chunk: writing the row for each record would cost more than that.
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
        let entry = Arc::new(Peer::new(id, *peer, now.log));
        self.enter_id(entry.clone());
        Ok(entry)
    }

    fn enter_id(&self, entry: Arc<Peer>) {
        let hash = self.hash_id(entry.id);
        let mut ids = self.ids(entry.id).write();
        match ids.find_mut(hash, |(id, _)| *id == entry.id) {
            Some(known) => known.1 = entry,
            None => {
                ids.insert_unique(hash, (entry.id, entry), |(id, _)| self.hash_id(*id));
                self.len.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Replaces the addresses that came by the DHT `via`. Returns true if they changed.
    fn set_addresses(&self, entry: &Peer, addrs: &[Multiaddr], via: Dht) -> bool {
        let which = match via {
            Dht::Wan => 0,
            Dht::Lan => 1,
        };
        let (mut bytes, mut hash) = (0, self.mixed(0, 1));
        let fit = addrs.iter().take(MAX_ADDRESSES).take_while(|a| {
            bytes += a.len();
            hash = self.mixed(hash, a.len() as u64);
            for word in AsRef::<[u8]>::as_ref(a).chunks(8) {
                let mut padded = [0; 8];
                padded[..word.len()].copy_from_slice(word);
                hash = self.mixed(hash, u64::from_le_bytes(padded));
            }
            bytes <= MAX_ADDRESS_BYTES
        });
        let fit = fit.count();
        if entry.came[which].load(Ordering::Acquire) == hash {
            return false;
        }
        entry.replace(which, &addrs[..fit], hash)
    }

    /// Returns a peer by its id, if it is known, and notes that a chunk is about to name it.
    pub fn name(&self, peer: &PeerId, now: &Now) -> Option<Arc<Peer>> {
        let hash = self.hash(peer);
        let shard = self.peers(hash);
        let entry = find(&shard, hash)?;
        entry.named.store(now.log, Ordering::Relaxed);
        Some(entry.clone())
    }

    /// Returns a peer by its id.
    pub fn find(&self, peer: &PeerId) -> Option<Arc<Peer>> {
        let hash = self.hash(peer);
        find(&self.peers(hash), hash).cloned()
    }

    /// Returns a peer by its number.
    pub fn get(&self, id: u32) -> Option<Arc<Peer>> {
        self.with(id, Arc::clone)
    }

    /// Returns the addresses of a peer, or none if they have expired (PRV-6).
    pub fn live_addresses(&self, entry: &Peer, now: &Now) -> Arc<[Multiaddr]> {
        match now.is_live(entry.announced(), self.address_ttl_s) {
            true => entry.addresses(),
            false => Arc::default(),
        }
    }

    /// Calls `what` with the peer that has the number `id`, under a lock.
    pub fn with<T>(&self, id: u32, what: impl FnOnce(&Arc<Peer>) -> T) -> Option<T> {
        let ids = self.ids(id).read();
        ids.find(self.hash_id(id), |(known, _)| *known == id).map(|(_, peer)| what(peer))
    }

    /// Notes that replay found the number `id` in a chunk of `time`. If `announced` is true, the addresses of the peer
    /// were valid then. Returns false if the number is unknown.
    pub fn replayed(&self, id: u32, time: u32, announced: bool) -> bool {
        let replayed = self.with(id, |entry| {
            // Replay begins with the newest chunk, so the time is nearly always known: a read costs less than a write.
            if announced && entry.announced.load(Ordering::Relaxed) < time {
                entry.announced.fetch_max(time, Ordering::Relaxed);
            }
        });
        replayed.is_some()
    }

    /// Changes the number of records of the peer with the number `id`.
    pub fn count(&self, id: u32, by: i64) {
        self.with(id, |entry| entry.count(by));
    }

    /// Sets all dates in `from..=to` to `now`, because the base of log time moved.
    pub fn redate(&self, from: u32, to: u32, now: u32) {
        for shard in &self.by_id {
            for (_, entry) in shard.read().iter() {
                for time in [&entry.announced, &entry.named] {
                    if (from..=to).contains(&time.load(Ordering::Relaxed)) {
                        time.store(now, Ordering::Relaxed);
                    }
                }
                self.mark_dirty_if(entry, (from..=to).contains(&entry.stored.load(Ordering::Relaxed)));
            }
        }
    }

    /// Forgets peers that have no record and that no chunk can name: no chunk is older than `oldest_chunk`. It forgets
    /// those whose addresses have expired, and the others too if the book is over seven eighths full. Returns their
    /// numbers, so that the caller can remove their rows.
    pub fn forget(&self, oldest_chunk: u32, now: &Now) -> Vec<u32> {
        let crowded = self.len() >= self.limit - self.limit / 8;
        let mut gone = Vec::new();
        for shard in &self.by_peer {
            shard.lock().retain(|(_, entry)| {
                let useless = crowded || !now.is_live(entry.announced(), self.address_ttl_s);
                let unnamed = entry.records() == 0 && entry.named.load(Ordering::Relaxed) < oldest_chunk;
                if !(useless && unnamed) {
                    return true;
                }
                entry.forgotten.store(true, Ordering::Relaxed);
                let mut ids = self.ids(entry.id).write();
                if let Ok(known) = ids.find_entry(self.hash_id(entry.id), |(id, _)| *id == entry.id) {
                    known.remove();
                }
                gone.push(entry.id);
                false
            });
        }
        self.len.fetch_sub(gone.len(), Ordering::Relaxed);
        gone
    }

    /// Returns all peers in the order of their numbers.
    pub fn all(&self) -> Vec<Arc<Peer>> {
        let mut all = Vec::with_capacity(self.len());
        for shard in &self.by_id {
            all.extend(shard.read().iter().map(|(_, entry)| entry.clone()));
        }
        all.sort_by_key(|entry| entry.id);
        all
    }

    /// Returns the peers whose rows must be written, and whether one of them has no row yet. The caller writes each row
    /// and calls [`Book::written`], or gives it back with [`Book::mark_dirty`].
    pub fn take_dirty(&self) -> (Vec<Arc<Peer>>, bool) {
        let mut dirty = std::mem::take(&mut *self.dirty.lock());
        dirty.retain(|entry| !entry.forgotten.load(Ordering::Relaxed));
        let new = dirty.iter().any(|entry| entry.stored.load(Ordering::Relaxed) == 0);
        for entry in &dirty {
            // This comes before the row is encoded, so a later change marks the peer again.
            entry.dirty.store(false, Ordering::Release);
        }
        (dirty, new)
    }

    /// Notes that these rows are written.
    pub fn written(&self, rows: &[Arc<Peer>]) {
        for entry in rows {
            entry.stored.store(entry.announced().max(1), Ordering::Relaxed);
        }
    }

    /// Marks rows to be written again: they were written, but may not have reached the disk.
    pub fn write_again(&self, rows: &[Arc<Peer>]) {
        for entry in rows {
            // The row counts as new, so it is written out before any chunk that names the peer.
            entry.stored.store(0, Ordering::Relaxed);
            self.mark_dirty(entry);
        }
    }

    /// Marks all rows and the reservation to be written again: the database has lost them.
    pub fn write_all_again(&self) {
        self.write_again(&self.all());
        self.reserved.store(0, Ordering::Relaxed);
    }

    /// Returns true if rows wait to be written.
    pub fn has_dirty(&self) -> bool {
        !self.dirty.lock().is_empty()
    }

    /// Marks the row of a peer to be written.
    pub fn mark_dirty(&self, entry: &Arc<Peer>) {
        self.mark_dirty_if(entry, true);
    }

    fn mark_dirty_if(&self, entry: &Arc<Peer>, dirty: bool) {
        if dirty && !entry.dirty.swap(true, Ordering::AcqRel) {
            self.dirty.lock().push(entry.clone());
        }
    }

    /// Hashes a peer id. The hash chooses both the shard and the place in its table.
    fn hash(&self, peer: &PeerId) -> PeerHash {
        let multihash: &Multihash<64> = peer.as_ref();
        let Hash128 { h1, h2 } = self.secret.hash(multihash.digest());
        // The same digest by another hash function is another peer.
        Hash128 { h1, h2: h2 ^ multihash.code() }
    }

    fn hash_id(&self, id: u32) -> u64 {
        self.mixed(0, u64::from(id))
    }

    /// Adds a word to a hash. The hash is weaker than SipHash. That is enough here: a stranger does not see the outcome
    /// and gains little from it. The stranger can only influence which of his own numbers stay in use, and which new
    /// addresses of his own are taken for the old ones.
    fn mixed(&self, hash: u64, word: u64) -> u64 {
        let wide = u128::from(hash ^ word ^ self.mixer.0) * u128::from(self.mixer.1 | 1);
        wide as u64 ^ (wide >> 64) as u64
    }

    fn peers(&self, hash: PeerHash) -> MutexGuard<'_, ByPeer> {
        self.by_peer[(hash.h1 >> 40) as usize % SHARDS].lock()
    }

    fn ids(&self, id: u32) -> &RwLock<ByNumber> {
        &self.by_id[id as usize % SHARDS]
    }
}

fn find(shard: &ByPeer, hash: PeerHash) -> Option<&Arc<Peer>> {
    shard.find(hash.h1, |(known, _)| *known == hash).map(|(_, peer)| peer)
}

fn insert(shard: &mut ByPeer, hash: PeerHash, peer: &Arc<Peer>) {
    shard.insert_unique(hash.h1, (hash, peer.clone()), |(hash, _)| hash.h1);
}

#[cfg(test)]
mod tests;
