//! The address book: a number for each provider, under which the log and the index know it, and its addresses.
//!
//! A peer has two lists of addresses, one per DHT by which they came, and one time for both: that of its newest
//! announcement (PRV-6). The row of a new peer is flushed before any chunk that names its number; a number is never
//! used again while a chunk may hold it.

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

/// Parts of the book, each with a lock of its own, so that threads seldom meet.
const SHARDS: usize = 64;
/// Most addresses kept per peer and DHT ...
const MAX_ADDRESSES: usize = 32;
/// ... and their bytes: more than the 672 that a message carries of one provider (docs/decisions/routing.md).
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

/// There are as many peers as may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BookFull;

/// Two peers of one hash are one peer: its 128 bits are as good as a peer id, and a comparison of them does not wait for
/// memory. Nobody outside knows the key, and none will be met by chance.
type PeerHash = Hash128;
/// Peers by their ids.
type ByPeer = HashTable<(PeerHash, Arc<Peer>)>;
/// Peers by their numbers.
type ByNumber = HashTable<(u32, Arc<Peer>)>;

/// See the module.
#[derive(Debug)]
pub struct Book {
    by_peer: Vec<Mutex<ByPeer>>,
    by_id: Vec<RwLock<ByNumber>>,
    len: AtomicUsize,
    limit: usize,
    address_ttl_s: u32,
    next_id: AtomicU64,
    /// Numbers below are reserved on disk.
    reserved: AtomicU64,
    dirty: Mutex<Vec<Arc<Peer>>>,
    /// Peer ids are chosen by strangers, as keys are.
    secret: SipHasher13,
    mixer: (u64, u64),
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
            secret: SipHasher13::new_with_keys(rand::random(), rand::random()),
            mixer: (rand::random(), rand::random()),
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
        match shard.find_mut(hash.h1, |(known, _)| *known == hash) {
            Some((_, known)) => *known = entry.clone(),
            None => insert(&mut shard, hash, &entry),
        }
        drop(shard);
        self.enter_id(entry);
        Ok(())
    }

    /// Enters a row that was lost, as an export has it, while others are entered: the number that the peer has here, `id`
    /// if that can be.
    ///
    /// # Errors
    /// Bytes that are no such row.
    pub fn adopt(&self, id: u32, bytes: &[u8], now: u32) -> Result<u32, CodecError> {
        let entry = Peer::of_row(id, bytes, now)?;
        let hash = self.hash(&entry.peer);
        let mut shard = self.peers(hash);
        if let Some(known) = find(&shard, hash) {
            return Ok(known.id);
        }
        let mut id = id;
        // Taken by nobody so far, or by a peer whose row is lost: by this one, unless the book was begun anew since.
        let was_free = self.next_id.fetch_max(u64::from(id) + 1, Ordering::Relaxed) <= u64::from(id);
        if !was_free && self.get(id).is_some() {
            id = u32::try_from(self.next_id.fetch_add(1, Ordering::Relaxed))
                .map_err(|_| CodecError::Malformed("there are no more numbers for peers".into()))?;
        }
        let entry = Arc::new(entry.renumbered(id));
        self.enter_id(entry.clone());
        insert(&mut shard, hash, &entry);
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
        let entry = match find(&shard, hash) {
            Some(entry) => {
                // Under the lock of the shard, so that nobody forgets the peer meanwhile.
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

    /// Takes what a dump says of a peer: addresses by the WAN and by the LAN DHT, true when it announced them. A new
    /// peer is entered if `may_enter` and there is room; of one that is known they are taken if `newer` says so of the
    /// time of its newest announcement. `dated`: a later time alone is reason to write the row. Whether it is written.
    ///
    /// # Errors
    /// [`BookFull`].
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

    /// Replaces one list. True if it was another.
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

    /// The peer of this id, if known; about to be named by a chunk.
    pub fn name(&self, peer: &PeerId, now: &Now) -> Option<Arc<Peer>> {
        let hash = self.hash(peer);
        let shard = self.peers(hash);
        let entry = find(&shard, hash)?;
        entry.named.store(now.log, Ordering::Relaxed);
        Some(entry.clone())
    }

    /// The peer of this id.
    pub fn find(&self, peer: &PeerId) -> Option<Arc<Peer>> {
        let hash = self.hash(peer);
        find(&self.peers(hash), hash).cloned()
    }

    /// The peer of this number.
    pub fn get(&self, id: u32) -> Option<Arc<Peer>> {
        self.with(id, Arc::clone)
    }

    /// Addresses that are not outlived (PRV-6).
    pub fn live_addresses(&self, entry: &Peer, now: &Now) -> Arc<[Multiaddr]> {
        match now.is_live(entry.announced(), self.address_ttl_s) {
            true => entry.addresses(),
            false => Arc::default(),
        }
    }

    /// Calls `what` with the peer of a number, under a lock.
    pub fn with<T>(&self, id: u32, what: impl FnOnce(&Arc<Peer>) -> T) -> Option<T> {
        let ids = self.ids(id).read();
        ids.find(self.hash_id(id), |(known, _)| *known == id).map(|(_, peer)| what(peer))
    }

    /// A chunk of `time` names this number, says replay: if it is an announcement, the addresses were true then.
    /// False if the number is unknown.
    pub fn replayed(&self, id: u32, time: u32, announced: bool) -> bool {
        let replayed = self.with(id, |entry| {
            // Newest first: nearly always known already, and reading is cheaper.
            if announced && entry.announced.load(Ordering::Relaxed) < time {
                entry.announced.fetch_max(time, Ordering::Relaxed);
            }
        });
        replayed.is_some()
    }

    /// Records of a peer came or went.
    pub fn count(&self, id: u32, by: i64) {
        self.with(id, |entry| entry.count(by));
    }

    /// The base of log time moved: what is dated in `from..=to` is of now.
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

    /// Forgets peers that no record refers to and no chunk can name (none is older than `oldest_chunk`): those whose
    /// addresses are outlived, and when the book is nearly full the others, too. Their numbers, whose rows may go.
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

    /// All peers in the order of their numbers.
    pub fn all(&self) -> Vec<Arc<Peer>> {
        let mut all = Vec::with_capacity(self.len());
        for shard in &self.by_id {
            all.extend(shard.read().iter().map(|(_, entry)| entry.clone()));
        }
        all.sort_by_key(|entry| entry.id);
        all
    }

    /// Rows to be written, and whether one of them is new. Each is either written or given back.
    pub fn take_dirty(&self) -> (Vec<Arc<Peer>>, bool) {
        let mut dirty = std::mem::take(&mut *self.dirty.lock());
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
        !self.dirty.lock().is_empty()
    }

    /// This row is still to be written.
    pub fn mark_dirty(&self, entry: &Arc<Peer>) {
        self.mark_dirty_if(entry, true);
    }

    fn mark_dirty_if(&self, entry: &Arc<Peer>, dirty: bool) {
        if dirty && !entry.dirty.swap(true, Ordering::AcqRel) {
            self.dirty.lock().push(entry.clone());
        }
    }

    /// Once, for the shard and for its table.
    fn hash(&self, peer: &PeerId) -> PeerHash {
        let multihash: &Multihash<64> = peer.as_ref();
        let Hash128 { h1, h2 } = self.secret.hash(multihash.digest());
        // The same digest by another function is another peer.
        Hash128 { h1, h2: h2 ^ multihash.code() }
    }

    fn hash_id(&self, id: u32) -> u64 {
        self.mixed(0, u64::from(id))
    }

    /// One more word of a hash. Weaker than SipHash, and enough where a stranger sees nothing of the outcome and can do
    /// little with it: which of his numbers stay in use, which addresses of his own pass for the ones before.
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
