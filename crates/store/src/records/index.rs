//! Which provider holds which key since when: sharded hash tables in memory.
//!
//! 20 bytes per record, and a table that is 64 to 85 % full. Tables that were all of one size would grow at the same time.
//! They are of sizes spread evenly over an octave instead: at any time some have just grown and others are about to, and
//! the whole stays at 28 to 30 bytes per record, whatever their number.
//!
//! Keys are chosen by strangers, so what places them is a hash with a secret of this process; and since records of one
//! key share one probe chain, a key with many providers moves into a list of its own.

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

/// Classes of nearness to this node: shared bits of the position up to 31, each in eight parts.
const CLASSES: usize = 32 * 8;

/// Bounds of the index.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records in all.
    pub records: usize,
    /// Providers of one key.
    pub per_key: usize,
    /// The key prefix of this node: records near it are worth most, since who looks for them comes here first.
    pub origin: KeyPrefix,
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
    /// The caller lets nothing in that is not there.
    Barred,
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
    shards: Box<[ShardLine]>,
    secret: Secret,
    limits: Limits,
    records: AtomicUsize,
    keys: AtomicUsize,
    /// Records in each class of nearness.
    classes: Box<[AtomicUsize]>,
    /// New records of lower classes are refused.
    cutoff: AtomicUsize,
}

/// A shard in a cache line of its own: one miss, and no other shard's lock in it.
#[derive(Debug, Default)]
#[repr(align(64))]
struct ShardLine(RwLock<Shard>);

const _: () = assert!(size_of::<ShardLine>() == 64);

impl Index {
    /// An empty index placed by `secret`.
    pub fn new(limits: Limits, secret: (u64, u64)) -> Self {
        let shards = (0..SHARDS).map(|_| ShardLine::default()).collect();
        let classes = (0..CLASSES).map(|_| AtomicUsize::new(0)).collect();
        let (records, keys, cutoff) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        Self { shards, secret: Secret::new(secret), limits, records, keys, classes, cutoff }
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
    /// and says at what time. A record that is not there is let in if it `may_enter`.
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

    /// A record of another time, from a dump: `log` writes it to the log. It yields to what is not older, also to a
    /// removal. A record that is not there is let in if it `may_enter`.
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

    /// A removal. `log` writes it to the log if there is something to remove, or may be (`replaying`). True if it was
    /// there.
    pub fn remove(&self, prefix: &KeyPrefix, peer: u32, replaying: bool, log: impl FnOnce() -> u32) -> bool {
        let hash = self.secret.of(prefix);
        let mut shard = self.write(hash);
        let found = self.delete(&mut shard, hash, prefix, peer, |_| true);
        if found || replaying {
            let time = log();
            shard.bury_anew(prefix, peer, time);
        }
        found
    }

    /// The removal of a record that is not there was written to the log anew, at `time`.
    pub fn redate_removal(&self, prefix: &KeyPrefix, peer: u32, time: u32) {
        self.write(self.secret.of(prefix)).bury_anew(prefix, peer, time);
    }

    /// Dates a record anew if its time is still `time`; `log` writes it and says at what time.
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

    /// The time of a record.
    pub fn time(&self, prefix: &KeyPrefix, peer: u32) -> Option<u32> {
        let hash = self.secret.of(prefix);
        let shard = self.shards[shard_of(hash)].0.read();
        shard.time(&self.secret, hash, prefix, peer)
    }

    /// Up to `most` providers of a key that are live by their times, which are told with them; chosen by `seed` where
    /// there are more. Costs what is told, and not what is there, unless nearly all that is there is outlived.
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

    /// The larger, the nearer to this node.
    fn class(&self, prefix: &KeyPrefix) -> usize {
        let distance = prefix.iter().zip(&self.limits.origin).take(8).fold(0u64, |d, (a, b)| d << 8 | u64::from(a ^ b));
        let shared = distance.leading_zeros().min(31);
        // The three bits behind the first that differs.
        let behind = (distance << shared << 1) >> 61;
        shared as usize * 8 + 7 - behind as usize
    }

    fn write(&self, hash: u64) -> RwLockWriteGuard<'_, Shard> {
        self.shards[shard_of(hash)].0.write()
    }

    /// Whether there is room for one more record of a key with `others`.
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

    /// A record that is not there, of a key with `others`.
    fn insert(&self, shard: &mut Shard, hash: u64, record: Record, others: usize) {
        self.records.fetch_add(1, Ordering::Relaxed);
        self.classes[self.class(&record.prefix)].fetch_add(1, Ordering::Relaxed);
        if others == 0 {
            self.keys.fetch_add(1, Ordering::Relaxed);
        }
        shard.insert(&self.secret, hash, record, others);
    }

    /// Drops a record if `may`, by its time. True if it went.
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
