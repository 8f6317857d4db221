//! The index of provider records in memory: for each key and provider, the time of the announcement. It consists of
//! many hash tables (shards).
//!
//! A record takes 20 bytes, and a table is 64 to 85 % full. If all tables had one size, they would all grow at the same
//! time. Instead their sizes are spread evenly over a factor of two: at any time some have just grown and others are
//! about to. So the index takes 28 to 30 bytes per record, whatever the number of records.
//!
//! Strangers choose the keys, so a hash with a secret of this process places them. Records of one key share one probe
//! chain, so a key with many providers moves into a list of its own.

pub mod batch;
mod big;
mod record;
mod shard;
mod table;
mod upkeep;

use super::entry::KeyPrefix;
use crate::kad::seeded::Seeded;
use parking_lot::{RwLock, RwLockWriteGuard};
use record::{Record, Secret, Slot};
use shard::{SHARDS, Shard, shard_of};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Number of classes of nearness to this node: one for each common prefix length up to 31, each in eight parts.
const CLASSES: usize = 32 * 8;

/// Limits of the index.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Limit of all records.
    pub records: usize,
    /// Limit of the providers of one key.
    pub per_key: usize,
    /// Key prefix of this node. Records near it are worth most, because look-ups for them come to this node.
    pub origin: KeyPrefix,
}

/// Why a new record is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// [`Limits::records`] is reached.
    Records,
    /// The index was nearly full, and has refused records this far from the node since. See [`Index::make_room`].
    Far,
    /// [`Limits::per_key`] is reached.
    Key,
    /// The caller lets no new record in.
    Barred,
}

/// Outcome of an addition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Upsert {
    /// The record is new.
    New,
    /// The record was known, and got a later time.
    Refreshed,
    /// The record was known, and keeps its time.
    Kept,
}

/// Outcome for a record from a dump.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loaded {
    /// The record is new.
    New,
    /// The record was known, and got a later time.
    Refreshed,
    /// The record was known with this time or a later one.
    Known,
    /// The record was removed at this time or later.
    Removed,
}

/// The index. See the module.
#[derive(Debug)]
pub struct Index {
    shards: Box<[ShardLine]>,
    secret: Secret,
    limits: Limits,
    records: AtomicUsize,
    keys: AtomicUsize,
    /// Number of records in each class of nearness.
    classes: Box<[AtomicUsize]>,
    /// New records of classes below this one are refused.
    cutoff: AtomicUsize,
}

/// A shard in a cache line of its own. An access costs one cache miss, and the line holds no other shard's lock.
#[derive(Debug, Default)]
#[repr(align(64))]
struct ShardLine(RwLock<Shard>);

const _: () = assert!(size_of::<ShardLine>() == 64);

impl Index {
    /// Makes an empty index whose hashes use `secret`.
    pub fn new(limits: Limits, secret: (u64, u64)) -> Self {
        let shards = (0..SHARDS).map(|_| ShardLine::default()).collect();
        let classes = (0..CLASSES).map(|_| AtomicUsize::new(0)).collect();
        let (records, keys, cutoff) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        Self { shards, secret: Secret::new(secret), limits, records, keys, classes, cutoff }
    }

    /// Returns the number of records. Records that have expired but are not collected yet count.
    pub fn len(&self) -> usize {
        self.records.load(Ordering::Relaxed)
    }

    /// Returns the number of distinct keys.
    pub fn keys(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    /// Returns true if the limit of records is reached.
    pub fn is_full(&self) -> bool {
        self.len() >= self.limits.records
    }

    /// Adds the record of an announcement. If the record is known, `keep` is called with its time, and returns true if
    /// the record is recent enough to stay as it is. Otherwise `log` writes the record to the log and returns its time.
    /// `log` runs under the lock of the shard, so the log has the order of the index. A new record needs `may_enter`.
    ///
    /// # Errors
    /// [`Full`] if the record is new and is refused.
    pub fn add(
        &self,
        prefix: &KeyPrefix,
        peer: u32,
        may_enter: bool,
        keep: impl FnOnce(u32) -> bool,
        log: impl FnOnce() -> u32,
    ) -> Result<Upsert, Full> {
        let hash = self.secret.of(prefix);
        let mut shard = self.write(hash);
        let others = match shard.slot(&self.secret, hash, prefix, peer) {
            Slot::Known(time) if keep(*time) => return Ok(Upsert::Kept),
            Slot::Known(time) => {
                *time = log();
                return Ok(Upsert::Refreshed);
            }
            Slot::Others(others) => others,
        };
        self.room(may_enter, others, prefix)?;
        let time = log();
        self.insert(&mut shard, hash, Record { prefix: *prefix, peer, time }, others);
        Ok(Upsert::New)
    }

    /// Loads a record dated `time` from a dump, and calls `log` to write it to the log. Does neither if the index knows
    /// the record or its removal with this time or a later one. A new record needs `may_enter`.
    ///
    /// # Errors
    /// [`Full`] if the record is new and is refused.
    pub fn load(
        &self,
        prefix: &KeyPrefix,
        peer: u32,
        time: u32,
        may_enter: bool,
        log: impl FnOnce(),
    ) -> Result<Loaded, Full> {
        let hash = self.secret.of(prefix);
        let mut shard = self.write(hash);
        let is_removed = shard.is_removed(prefix, peer, time);
        let others = match shard.slot(&self.secret, hash, prefix, peer) {
            Slot::Others(_) if !may_enter => return Err(Full::Barred),
            _ if is_removed => return Ok(Loaded::Removed),
            Slot::Known(known) if *known >= time => return Ok(Loaded::Known),
            Slot::Known(known) => {
                log();
                *known = time;
                return Ok(Loaded::Refreshed);
            }
            Slot::Others(others) => others,
        };
        self.room(may_enter, others, prefix)?;
        log();
        self.insert(&mut shard, hash, Record { prefix: *prefix, peer, time }, others);
        Ok(Loaded::New)
    }

    /// Removes a record. Calls `log` to write the removal to the log if the record was known. While `replaying`, calls
    /// it always, because the record may still come from the log. Returns true if the record was known.
    pub fn remove(&self, prefix: &KeyPrefix, peer: u32, replaying: bool, log: impl FnOnce() -> u32) -> bool {
        let hash = self.secret.of(prefix);
        let mut shard = self.write(hash);
        let found = self.delete(&mut shard, hash, prefix, peer, |_| true);
        if found || replaying {
            let time = log();
            shard.set_tombstone(prefix, peer, time);
        }
        found
    }

    /// Sets the time of the removal of a record to `time`, because the log was re-dated.
    pub fn redate_removal(&self, prefix: &KeyPrefix, peer: u32, time: u32) {
        self.write(self.secret.of(prefix)).set_tombstone(prefix, peer, time);
    }

    /// Re-dates a record if its time is still `time`: `log` writes it to the log and returns its new time. Returns true
    /// if it was re-dated.
    pub fn redate(&self, prefix: &KeyPrefix, peer: u32, time: u32, log: impl FnOnce() -> u32) -> bool {
        let hash = self.secret.of(prefix);
        let mut shard = self.write(hash);
        match shard.slot(&self.secret, hash, prefix, peer) {
            Slot::Known(known) if *known == time => {
                *known = log();
                true
            }
            _ => false,
        }
    }

    /// Returns the time of a record.
    pub fn time(&self, prefix: &KeyPrefix, peer: u32) -> Option<u32> {
        let hash = self.secret.of(prefix);
        let shard = self.shards[shard_of(hash)].0.read();
        shard.time(&self.secret, hash, prefix, peer)
    }

    /// Returns up to `most` live providers of a key, with their times. If there are more, `seed` picks a random subset.
    /// The cost depends on `most` and not on the number of providers, unless nearly all of them have expired.
    pub fn providers(
        &self,
        prefix: &KeyPrefix,
        most: usize,
        seed: u64,
        is_live: impl Fn(u32) -> bool,
    ) -> Vec<(u32, u32)> {
        let hash = self.secret.of(prefix);
        let mut found = Vec::new();
        let shard = self.shards[shard_of(hash)].0.read();
        match shard.big(hash, prefix) {
            Some(big) => big.choose(is_live, most, &mut Seeded::new(seed), &mut found),
            None => {
                let of_key = shard.table.near(hash).filter(|r| r.prefix == *prefix && is_live(r.time));
                found.extend(of_key.map(|r| (r.peer, r.time)));
                drop(shard);
                Seeded::new(seed).choose_first(&mut found, most);
                found.truncate(most);
            }
        }
        found
    }

    /// Returns the class of nearness of a key: larger classes are nearer to this node.
    fn class(&self, prefix: &KeyPrefix) -> usize {
        let distance = prefix.iter().zip(&self.limits.origin).take(8).fold(0u64, |d, (a, b)| d << 8 | u64::from(a ^ b));
        let shared = distance.leading_zeros().min(31);
        // The three bits after the first one that differs.
        let behind = (distance << shared << 1) >> 61;
        shared as usize * 8 + 7 - behind as usize
    }

    fn write(&self, hash: u64) -> RwLockWriteGuard<'_, Shard> {
        self.shards[shard_of(hash)].0.write()
    }

    /// Checks that a new record may enter. `others` is the number of other providers of its key.
    fn room(&self, may_enter: bool, others: usize, prefix: &KeyPrefix) -> Result<(), Full> {
        if !may_enter {
            return Err(Full::Barred);
        }
        if self.is_full() {
            return Err(Full::Records);
        }
        if self.class(prefix) < self.cutoff.load(Ordering::Relaxed) {
            return Err(Full::Far);
        }
        if others >= self.limits.per_key {
            return Err(Full::Key);
        }
        Ok(())
    }

    /// Inserts a new record. `others` is the number of other providers of its key.
    fn insert(&self, shard: &mut Shard, hash: u64, record: Record, others: usize) {
        self.records.fetch_add(1, Ordering::Relaxed);
        self.classes[self.class(&record.prefix)].fetch_add(1, Ordering::Relaxed);
        if others == 0 {
            self.keys.fetch_add(1, Ordering::Relaxed);
        }
        shard.insert(&self.secret, hash, record, others);
    }

    /// Drops a record if `may` returns true for its time. Returns true if it was dropped.
    fn delete(
        &self,
        shard: &mut Shard,
        hash: u64,
        prefix: &KeyPrefix,
        peer: u32,
        may: impl FnOnce(u32) -> bool,
    ) -> bool {
        let Some(last) = shard.remove(&self.secret, hash, prefix, peer, may) else { return false };
        self.records.fetch_sub(1, Ordering::Relaxed);
        self.classes[self.class(prefix)].fetch_sub(1, Ordering::Relaxed);
        if last {
            self.keys.fetch_sub(1, Ordering::Relaxed);
        }
        true
    }
}

#[cfg(test)]
mod tests;
