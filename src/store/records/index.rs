//! Which provider holds which key since when: sharded hash tables in memory.
//!
//! 20 bytes per record and one byte of hashbrown's. A table doubles when it is 7/8 full, so it takes 24 to 48 bytes per
//! record; tables that were all of one size would double at the same time. They are of sizes spread evenly over an
//! octave instead: at any time some have just doubled and others are about to, and the whole stays at 33 to 36 bytes per
//! record, whatever their number.
//!
//! Keys are chosen by strangers, so what places them is a hash with a secret of this process; and since records of one
//! key share one probe chain, a key with many providers moves into a map of its own.

pub mod batch;

use super::entry::Place;
use hashbrown::HashTable;
use siphasher::sip::SipHasher13;
use std::{
    collections::HashMap,
    hash::Hasher,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Tables. Many keep them small (of 100 million records each holds some 25,000, and doubles in a millisecond) and make
/// collisions of threads rare.
const SHARDS: usize = 4096;
/// Classes of nearness to this node: shared bits of the position up to 31, each in eight parts.
const CLASSES: usize = 32 * 8;
/// Longest probe chain: a key with more providers moves to a map of its own.
const CHAIN: usize = 64;

/// One record in a table.
#[derive(Clone, Copy, Debug)]
struct Record {
    place: Place,
    peer: u32,
    /// Time of the chunk that names it, Unix seconds.
    time: u32,
}

/// Bounds of the index.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records in all.
    pub records: usize,
    /// Providers of one key.
    pub per_key: usize,
    /// The place of this node: records near it are worth most, since who looks for them comes here first.
    pub origin: Place,
}

/// Which bound a new record would exceed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// [`Limits::records`].
    Records,
    /// The index was full, and farther records than this were kept off ever since; see [`Index::make_room`].
    Far,
    /// [`Limits::per_key`].
    Key,
}

/// What became of an addition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Upsert {
    /// Not there before.
    New,
    /// There; its time was raised.
    Refreshed,
    /// There, and kept as it was.
    Kept,
}

/// What became of a record from a dump.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loaded {
    /// Not there before.
    New,
    /// There; its time was raised.
    Refreshed,
    /// There, and not older.
    Known,
    /// It was removed at that time or later.
    Removed,
}

/// The index.
#[derive(Debug)]
pub struct Index {
    shards: Box<[RwLock<Shard>]>,
    secret: (u64, u64),
    limits: Limits,
    records: AtomicUsize,
    keys: AtomicUsize,
    /// Records in each class of nearness.
    classes: Box<[AtomicUsize]>,
    /// New records of lower classes are refused.
    cutoff: AtomicUsize,
}

#[derive(Debug, Default)]
struct Shard {
    table: HashTable<Record>,
    /// Keys that have, or had, more than [`CHAIN`] providers: peer to time.
    big: HashMap<Place, HashMap<u32, u32>>,
    /// Removals of the log, until they expire: they outlive older additions, of a log that is replayed or of a dump.
    tombstones: HashMap<(Place, u32), u32>,
}

impl Index {
    /// An empty index placed by `secret`.
    pub fn new(limits: Limits, secret: (u64, u64)) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        let classes = (0..CLASSES).map(|_| AtomicUsize::new(0)).collect();
        let (records, keys, cutoff) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        Self { shards, secret, limits, records, keys, classes, cutoff }
    }

    /// Records, expired ones that are not collected yet included.
    pub fn len(&self) -> usize {
        self.records.load(Ordering::Relaxed)
    }

    /// Distinct keys.
    pub fn keys(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    /// Whether no new record fits.
    pub fn is_full(&self) -> bool {
        self.len() >= self.limits.records
    }

    /// An announcement. `keep` tells from the time of the record that is there whether it is fresh enough to stay as
    /// it is; else `log` writes it to the log, under the lock of its shard (so the log has the order of the index),
    /// and says at what time.
    pub fn add(
        &self,
        place: &Place,
        peer: u32,
        keep: impl FnOnce(u32) -> bool,
        log: impl FnOnce() -> u32,
    ) -> Result<Upsert, Full> {
        let hash = self.hash(place);
        let mut shard = self.write(hash);
        if let Some(time) = shard.find_mut(hash, place, peer) {
            if keep(*time) {
                return Ok(Upsert::Kept);
            }
            *time = log();
            return Ok(Upsert::Refreshed);
        }
        let others = self.room(&shard, hash, place)?;
        let time = log();
        self.insert(&mut shard, hash, Record { place: *place, peer, time }, others);
        Ok(Upsert::New)
    }

    /// A record of another time, from a dump: `log` writes it to the log. It yields to what is not older, also to a
    /// removal.
    pub fn load(&self, place: &Place, peer: u32, time: u32, log: impl FnOnce()) -> Result<Loaded, Full> {
        let hash = self.hash(place);
        let mut shard = self.write(hash);
        if shard.is_removed(place, peer, time) {
            return Ok(Loaded::Removed);
        }
        if let Some(known) = shard.find_mut(hash, place, peer) {
            if *known >= time {
                return Ok(Loaded::Known);
            }
            log();
            *known = time;
            return Ok(Loaded::Refreshed);
        }
        let others = self.room(&shard, hash, place)?;
        log();
        self.insert(&mut shard, hash, Record { place: *place, peer, time }, others);
        Ok(Loaded::New)
    }

    /// A removal. `log` writes it to the log if there is something to remove, or may be (`replaying`). True if it was
    /// there.
    pub fn remove(&self, place: &Place, peer: u32, replaying: bool, log: impl FnOnce() -> u32) -> bool {
        let hash = self.hash(place);
        let mut shard = self.write(hash);
        let found = self.delete(&mut shard, hash, place, peer, |_| true);
        if found || replaying {
            let time = log();
            shard.tombstones.insert((*place, peer), time);
        }
        found
    }

    /// The removal of a record that is not there was written to the log anew, at `time`.
    pub fn redate_removal(&self, place: &Place, peer: u32, time: u32) {
        self.write(self.hash(place)).tombstones.insert((*place, peer), time);
    }

    /// Removals older than the ttl hide nothing any more.
    pub fn forget_tombstones(&self, is_live: impl Fn(u32) -> bool) {
        for lock in &self.shards {
            let mut shard = lock.write().unwrap_or_else(PoisonError::into_inner);
            if !shard.tombstones.is_empty() {
                shard.tombstones.retain(|_, time| is_live(*time));
                shard.tombstones.shrink_to_fit();
            }
        }
    }

    /// Dates a record anew if its time is still `time`; `log` writes it and says at what time.
    pub fn redate(&self, place: &Place, peer: u32, time: u32, log: impl FnOnce() -> u32) -> bool {
        let hash = self.hash(place);
        let mut shard = self.write(hash);
        match shard.find_mut(hash, place, peer) {
            Some(known) if *known == time => {
                *known = log();
                true
            }
            _ => false,
        }
    }

    /// The time of a record.
    pub fn time(&self, place: &Place, peer: u32) -> Option<u32> {
        let hash = self.hash(place);
        let shard = self.shard(hash).read().unwrap_or_else(PoisonError::into_inner);
        match shard.big.is_empty() {
            false if shard.big.contains_key(place) => shard.big.get(place)?.get(&peer).copied(),
            _ => shard.table.find(hash, |r| r.peer == peer && r.place == *place).map(|r| r.time),
        }
    }

    /// Each provider of a key with its time, in no order.
    pub fn each(&self, place: &Place, mut each: impl FnMut(u32, u32)) {
        let hash = self.hash(place);
        let shard = self.shard(hash).read().unwrap_or_else(PoisonError::into_inner);
        if !shard.big.is_empty()
            && let Some(providers) = shard.big.get(place)
        {
            providers.iter().for_each(|(peer, time)| each(*peer, *time));
            return;
        }
        shard.table.iter_hash(hash).filter(|r| r.place == *place).for_each(|r| each(r.peer, r.time));
    }

    /// Keeps the index below its limit: from 31/32 of it on drops the farthest records, down to 15/16, telling the peer of
    /// each, and refuses new ones as far as these until it is down to 7/8 by itself. How many went.
    ///
    /// They are dropped by class, so up to a sixteenth of all may go beyond that. The log keeps them: after a restart they
    /// are there again, until the next call.
    pub fn make_room(&self, dropped: impl FnMut(u32)) -> usize {
        let limit = self.limits.records;
        let before = self.len();
        if before < limit - limit / 8 {
            self.cutoff.store(0, Ordering::Relaxed);
        }
        if before < limit - limit / 32 {
            return 0;
        }
        let mut left = before;
        let mut cutoff = 0;
        while left > limit - limit / 16 && cutoff < CLASSES - 1 {
            left = left.saturating_sub(self.classes[cutoff].load(Ordering::Relaxed));
            cutoff += 1;
        }
        self.cutoff.store(cutoff, Ordering::Relaxed);
        self.sweep(|place, _| self.class(place) < cutoff, dropped);
        before.saturating_sub(self.len())
    }

    /// The larger, the nearer to this node.
    fn class(&self, place: &Place) -> usize {
        let distance = place.iter().zip(&self.limits.origin).take(8).fold(0u64, |d, (a, b)| d << 8 | u64::from(a ^ b));
        let shared = distance.leading_zeros().min(31);
        // The three bits behind the first that differs.
        let behind = (distance << shared << 1) >> 61;
        shared as usize * 8 + 7 - behind as usize
    }

    /// Drops every record that `goes` by its place and time, telling its peer: for when the log cannot name what to drop.
    pub fn sweep(&self, goes: impl Fn(&Place, u32) -> bool, mut dropped: impl FnMut(u32)) {
        for lock in &self.shards {
            let mut shard = lock.write().unwrap_or_else(PoisonError::into_inner);
            let old: Vec<(Place, u32)> =
                shard.table.iter().filter(|r| goes(&r.place, r.time)).map(|r| (r.place, r.peer)).collect();
            let big = shard.big.iter().flat_map(|(place, providers)| {
                providers.iter().filter(|(_, time)| goes(place, **time)).map(|(peer, _)| (*place, *peer))
            });
            let old: Vec<(Place, u32)> = old.into_iter().chain(big).collect();
            for (place, peer) in old {
                if self.delete(&mut shard, self.hash(&place), &place, peer, |_| true) {
                    dropped(peer);
                }
            }
        }
    }

    /// Gives memory back where a table has become much too large.
    pub fn shrink(&self) {
        for lock in &self.shards {
            let mut shard = lock.write().unwrap_or_else(PoisonError::into_inner);
            if shard.table.len() < shard.table.capacity() / 8 {
                shard.table.shrink_to(0, |r| self.hash(&r.place));
            }
        }
    }

    /// Bytes allocated for tables; the maps of large keys are counted at 12 bytes per provider.
    pub fn bytes(&self) -> usize {
        let shards = self.shards.iter().map(|lock| {
            let shard = lock.read().unwrap_or_else(PoisonError::into_inner);
            let big: usize = shard.big.values().map(|providers| providers.capacity() * 12).sum();
            shard.table.allocation_size() + big
        });
        shards.sum::<usize>() + SHARDS * size_of::<RwLock<Shard>>()
    }

    fn hash(&self, place: &Place) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.secret.0, self.secret.1);
        hasher.write(place);
        hasher.finish()
    }

    fn shard(&self, hash: u64) -> &RwLock<Shard> {
        &self.shards[shard_of(hash)]
    }

    fn write(&self, hash: u64) -> std::sync::RwLockWriteGuard<'_, Shard> {
        self.shard(hash).write().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many providers the key has, if there is room for one more.
    fn room(&self, shard: &Shard, hash: u64, place: &Place) -> Result<usize, Full> {
        let others = shard.count(hash, place);
        if self.is_full() {
            return Err(Full::Records);
        }
        if self.class(place) < self.cutoff.load(Ordering::Relaxed) {
            return Err(Full::Far);
        }
        if others >= self.limits.per_key {
            return Err(Full::Key);
        }
        Ok(others)
    }

    /// A record that is not there, of a key with `others`.
    fn insert(&self, shard: &mut Shard, hash: u64, record: Record, others: usize) {
        self.records.fetch_add(1, Ordering::Relaxed);
        self.classes[self.class(&record.place)].fetch_add(1, Ordering::Relaxed);
        if others == 0 {
            self.keys.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(providers) = shard.big_mut(&record.place) {
            providers.insert(record.peer, record.time);
            return;
        }
        if others < CHAIN {
            shard.table.insert_unique(hash, record, |r| self.hash(&r.place));
            return;
        }
        let mut providers = HashMap::with_capacity(2 * CHAIN);
        while let Ok(entry) = shard.table.find_entry(hash, |r| r.place == record.place) {
            let (moved, _) = entry.remove();
            providers.insert(moved.peer, moved.time);
        }
        providers.insert(record.peer, record.time);
        shard.big.insert(record.place, providers);
    }

    /// Drops a record if `may`, by its time. True if it went.
    fn delete(&self, shard: &mut Shard, hash: u64, place: &Place, peer: u32, may: impl FnOnce(u32) -> bool) -> bool {
        let last = if let Some(providers) = shard.big_mut(place) {
            match providers.get(&peer) {
                Some(time) if may(*time) => providers.remove(&peer),
                _ => return false,
            };
            let empty = providers.is_empty();
            if empty {
                shard.big.remove(place);
            }
            empty
        } else {
            match shard.table.find_entry(hash, |r| r.peer == peer && r.place == *place) {
                Ok(entry) if may(entry.get().time) => entry.remove(),
                _ => return false,
            };
            shard.count(hash, place) == 0
        };
        self.records.fetch_sub(1, Ordering::Relaxed);
        self.classes[self.class(place)].fetch_sub(1, Ordering::Relaxed);
        if last {
            self.keys.fetch_sub(1, Ordering::Relaxed);
        }
        true
    }
}

/// The shard of a hash, by bits that hashbrown uses neither for the slot (low) nor for the tag (top 7).
///
/// The last shard gets twice as many records as the first: `u` is even over 0..1, and the share of the shard at `x` (0
/// to 1) grows as 2^x where `x` is log2(1 + u), of which `u * (1.34 - 0.34 * u)` is near enough.
fn shard_of(hash: u64) -> usize {
    const BITS: u32 = 20;
    let u = (hash >> 36) & ((1 << BITS) - 1);
    let x = (u * (((134 << BITS) / 100) - ((34 * u) / 100))) >> BITS;
    ((x * SHARDS as u64) >> BITS) as usize % SHARDS
}

impl Shard {
    fn big_mut(&mut self, place: &Place) -> Option<&mut HashMap<u32, u32>> {
        // Nearly always empty: spares a hash.
        if self.big.is_empty() { None } else { self.big.get_mut(place) }
    }

    fn find_mut(&mut self, hash: u64, place: &Place, peer: u32) -> Option<&mut u32> {
        if !self.big.is_empty() && self.big.contains_key(place) {
            return self.big.get_mut(place)?.get_mut(&peer);
        }
        self.table.find_mut(hash, |r| r.peer == peer && r.place == *place).map(|r| &mut r.time)
    }

    /// Whether a record of `time` was removed then or later.
    fn is_removed(&self, place: &Place, peer: u32, time: u32) -> bool {
        !self.tombstones.is_empty() && self.tombstones.get(&(*place, peer)).is_some_and(|removed| *removed >= time)
    }

    fn count(&self, hash: u64, place: &Place) -> usize {
        if !self.big.is_empty()
            && let Some(providers) = self.big.get(place)
        {
            return providers.len();
        }
        self.table.iter_hash(hash).filter(|r| r.place == *place).count()
    }
}

#[cfg(test)]
mod tests;
