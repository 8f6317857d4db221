//! One table of the index, and beside it what is rare. A look-up takes one probe.

use super::{
    big::Big,
    record::{Record, Secret, Slot},
    table::RecordTable,
};
use crate::records::entry::KeyPrefix;
use hashbrown::HashTable;
use std::collections::HashMap;

/// Tables. Many keep them small (of 100 million records each holds some 25,000, and doubles in a millisecond) and make
/// collisions of threads rare.
pub const SHARDS: usize = 4096;
/// A key with more providers is kept apart: records of one key stand in a row, which others must pass.
pub const CHAIN: usize = 24;

/// The shard of a hash, by bits that tables do not use: they go by the low half.
///
/// The last shard gets twice as many records as the first: `u` is even over 0..1, and the share of the shard at `x` (0
/// to 1) grows as 2^x where `x` is log2(1 + u), of which `u * (1.34 - 0.34 * u)` is near enough.
pub fn shard_of(hash: u64) -> usize {
    const BITS: u32 = 20;
    let u = (hash >> 36) & ((1 << BITS) - 1);
    let x = (u * (((134 << BITS) / 100) - ((34 * u) / 100))) >> BITS;
    ((x * SHARDS as u64) >> BITS) as usize % SHARDS
}

/// The part of all records that a shard gets, by [`shard_of`].
pub fn share(shard: usize) -> f64 {
    let u = |x: f64| (1.34 - (1.34f64.powi(2) - 4.0 * 0.34 * x).max(0.0).sqrt()) / (2.0 * 0.34);
    (u((shard + 1) as f64 / SHARDS as f64) - u(shard as f64 / SHARDS as f64)).max(0.0)
}

/// See the module. It fits into a line of the processor's caches, with its lock.
#[derive(Debug, Default)]
pub struct Shard {
    /// Records of keys that never had more than [`CHAIN`] providers at a time.
    pub table: RecordTable,
    rare: Option<Box<Rare>>,
}

#[derive(Debug, Default)]
struct Rare {
    /// Keys that have, or had, more than [`CHAIN`] providers.
    big: HashTable<Big>,
    /// Removals of the log, until they expire: they outlive older additions, of a log that is replayed or of a dump.
    tombstones: HashMap<(KeyPrefix, u32), u32>,
}

impl Shard {
    /// A record of the key whose hash is `hash`.
    pub fn slot(&mut self, secret: &Secret, hash: u64, prefix: &KeyPrefix, peer: u32) -> Slot<'_> {
        if let Some(rare) = &mut self.rare
            && let Some(big) = rare.big.find_mut(hash, |big| big.prefix == *prefix)
        {
            return big.slot(secret, peer);
        }
        let mut others = 0;
        let is_it = |record: &Record| {
            let same_key = record.prefix == *prefix;
            let same = same_key && record.peer == peer;
            others += usize::from(same_key && !same);
            same
        };
        match self.table.find_mut(hash, is_it) {
            Some(record) => Slot::Known(&mut record.time),
            None => Slot::Others(others),
        }
    }

    /// The time of a record.
    pub fn time(&self, secret: &Secret, hash: u64, prefix: &KeyPrefix, peer: u32) -> Option<u32> {
        match self.big(hash, prefix) {
            Some(big) => big.time(secret, peer),
            None => self.table.find(hash, |r| r.peer == peer && r.prefix == *prefix).map(|r| r.time),
        }
    }

    /// The providers of a key, if it has, or had, more than [`CHAIN`].
    pub fn big(&self, hash: u64, prefix: &KeyPrefix) -> Option<&Big> {
        self.rare.as_ref()?.big.find(hash, |big| big.prefix == *prefix)
    }

    /// All such keys.
    pub fn bigs(&self) -> impl Iterator<Item = &Big> {
        self.rare.iter().flat_map(|rare| rare.big.iter())
    }

    /// Enters a record that is not there, of a key with `others`.
    pub fn insert(&mut self, secret: &Secret, hash: u64, record: Record, others: usize) {
        let hash_of = |r: &Record| secret.of(&r.prefix);
        if others < CHAIN && self.rare.is_none() {
            self.table.insert(hash, record, hash_of);
            return;
        }
        let big = self.rare.get_or_insert_default();
        if let Some(big) = big.big.find_mut(hash, |big| big.prefix == record.prefix) {
            big.insert(secret, record.peer, record.time);
            return;
        }
        if others < CHAIN {
            self.table.insert(hash, record, hash_of);
            return;
        }
        let mut providers = Big::new(record.prefix, 2 * CHAIN);
        while let Some(moved) = self.table.remove(hash, |r| r.prefix == record.prefix) {
            providers.insert(secret, moved.peer, moved.time);
        }
        providers.insert(secret, record.peer, record.time);
        big.big.insert_unique(hash, providers, |big| secret.of(&big.prefix));
    }

    /// Drops a record if `may`, by its time: whether it was the last of its key. `None` if it did not go.
    pub fn remove(
        &mut self,
        secret: &Secret,
        hash: u64,
        prefix: &KeyPrefix,
        peer: u32,
        may: impl FnOnce(u32) -> bool,
    ) -> Option<bool> {
        if let Some(rare) = &mut self.rare
            && let Ok(mut entry) = rare.big.find_entry(hash, |big| big.prefix == *prefix)
        {
            let big = entry.get_mut();
            if !big.remove(secret, peer, may) {
                return None;
            }
            let last = big.len() == 0;
            if last {
                entry.remove();
            }
            return Some(last);
        }
        let mut may = Some(may);
        let goes = |r: &Record| r.peer == peer && r.prefix == *prefix && may.take().is_some_and(|may| may(r.time));
        self.table.remove(hash, goes)?;
        Some(self.table.find(hash, |r| r.prefix == *prefix).is_none())
    }

    /// Whether a record of `time` was removed then or later.
    pub fn is_removed(&self, prefix: &KeyPrefix, peer: u32, time: u32) -> bool {
        let removed = self.rare.as_ref().and_then(|rare| rare.tombstones.get(&(*prefix, peer)));
        removed.is_some_and(|removed| *removed >= time)
    }

    /// A record was removed at `time`, if nothing later is known.
    pub fn bury(&mut self, prefix: &KeyPrefix, peer: u32, time: u32) {
        let tombstone = self.rare.get_or_insert_default().tombstones.entry((*prefix, peer)).or_insert(time);
        *tombstone = time.max(*tombstone);
    }

    /// A record was removed at `time`, whatever was known.
    pub fn bury_anew(&mut self, prefix: &KeyPrefix, peer: u32, time: u32) {
        self.rare.get_or_insert_default().tombstones.insert((*prefix, peer), time);
    }

    /// Keeps the removals whose times `stay`.
    pub fn forget_tombstones(&mut self, stay: impl Fn(u32) -> bool) {
        let Some(rare) = &mut self.rare else { return };
        if !rare.tombstones.is_empty() {
            rare.tombstones.retain(|_, time| stay(*time));
            rare.tombstones.shrink_to_fit();
        }
        if rare.tombstones.is_empty() && rare.big.is_empty() {
            self.rare = None;
        }
    }

    /// Gives memory back where there is much too much.
    pub fn shrink(&mut self, secret: &Secret) {
        if self.table.len() < self.table.capacity() / 8 {
            self.table.shrink(|r| secret.of(&r.prefix));
        }
        if let Some(rare) = &mut self.rare {
            rare.big.iter_mut().for_each(|big| big.shrink(secret));
            if rare.big.len() < rare.big.capacity() / 8 {
                rare.big.shrink_to(0, |big| secret.of(&big.prefix));
            }
        }
    }

    /// Bytes allocated for records.
    pub fn bytes(&self) -> usize {
        let rare = self.rare.as_ref().map_or(0, |rare| size_of::<Rare>() + rare.big.allocation_size());
        self.table.bytes() + rare + self.bigs().map(Big::bytes).sum::<usize>()
    }
}
