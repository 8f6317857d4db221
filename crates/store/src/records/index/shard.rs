//! A shard of the index: a table and, in few shards, keys with many providers and tombstones. A look-up takes one probe
//! of the table.

use super::{
    big::Big,
    record::{Record, Secret, Slot},
    table::RecordTable,
};
use crate::records::entry::KeyPrefix;
use hashbrown::HashTable;
use std::collections::HashMap;

/// Number of shards. With this many, tables are small, and threads rarely wait for each other. With 100 million records
/// in the index, a table holds some 25,000 and grows in a millisecond.
pub const SHARDS: usize = 4096;
/// Maximum number of providers of a key in the table. A key with more moves out of the table, because probes for other
/// keys must pass all records of this one.
pub const CHAIN: usize = 24;

/// Returns the shard of a hash. Uses bits of the high half; tables use the low half.
///
/// The last shard gets twice as many records as the first. `u` is spread evenly over 0 to 1, and `x = log2(1 + u)` is
/// the place of the shard, from 0 to 1. So the share of the shard at `x` grows as 2^x. `u * (1.34 - 0.34 * u)` is close
/// enough to this logarithm.
pub fn shard_of(hash: u64) -> usize {
    const BITS: u32 = 20;
    let u = (hash >> 36) & ((1 << BITS) - 1);
    let x = (u * (((134 << BITS) / 100) - ((34 * u) / 100))) >> BITS;
    ((x * SHARDS as u64) >> BITS) as usize % SHARDS
}

/// Returns the share of all records that [`shard_of`] gives to a shard.
pub fn share(shard: usize) -> f64 {
    let u = |x: f64| (1.34 - (1.34f64.powi(2) - 4.0 * 0.34 * x).max(0.0).sqrt()) / (2.0 * 0.34);
    (u((shard + 1) as f64 / SHARDS as f64) - u(shard as f64 / SHARDS as f64)).max(0.0)
}

/// A shard of the index. See the module. A shard and its lock fit into one line of the processor's caches.
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
    /// Removals, until they expire. They keep out older announcements that come from the replayed log or from a dump.
    tombstones: HashMap<(KeyPrefix, u32), u32>,
}

impl Shard {
    /// Probes for a record of the key whose hash is `hash`.
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

    /// Returns the time of a record.
    pub fn time(&self, secret: &Secret, hash: u64, prefix: &KeyPrefix, peer: u32) -> Option<u32> {
        match self.big(hash, prefix) {
            Some(big) => big.time(secret, peer),
            None => self.table.find(hash, |r| r.peer == peer && r.prefix == *prefix).map(|r| r.time),
        }
    }

    /// Returns the providers of a key if it has, or had, more than [`CHAIN`].
    pub fn big(&self, hash: u64, prefix: &KeyPrefix) -> Option<&Big> {
        self.rare.as_ref()?.big.find(hash, |big| big.prefix == *prefix)
    }

    /// Iterates over the keys that have, or had, more than [`CHAIN`] providers.
    pub fn bigs(&self) -> impl Iterator<Item = &Big> {
        self.rare.iter().flat_map(|rare| rare.big.iter())
    }

    /// Inserts a new record. `others` is the number of other providers of its key.
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

    /// Drops a record if `may` returns true for its time. Returns whether it was the last of its key, or `None` if it
    /// was not dropped.
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

    /// Returns true if a record was removed at `time` or later.
    pub fn is_removed(&self, prefix: &KeyPrefix, peer: u32, time: u32) -> bool {
        let removed = self.rare.as_ref().and_then(|rare| rare.tombstones.get(&(*prefix, peer)));
        removed.is_some_and(|removed| *removed >= time)
    }

    /// Notes that a record was removed at `time`, unless a later time is noted already.
    pub fn bury(&mut self, prefix: &KeyPrefix, peer: u32, time: u32) {
        let tombstone = self.rare.get_or_insert_default().tombstones.entry((*prefix, peer)).or_insert(time);
        *tombstone = time.max(*tombstone);
    }

    /// Notes that a record was removed at `time`. Replaces any other time.
    pub fn set_tombstone(&mut self, prefix: &KeyPrefix, peer: u32, time: u32) {
        self.rare.get_or_insert_default().tombstones.insert((*prefix, peer), time);
    }

    /// Drops each tombstone if `stay` returns false for its time.
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

    /// Gives back memory where less than an eighth of it is used.
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

    /// Returns the memory allocated for records, in bytes.
    pub fn bytes(&self) -> usize {
        let rare = self.rare.as_ref().map_or(0, |rare| size_of::<Rare>() + rare.big.allocation_size());
        self.table.bytes() + rare + self.bigs().map(Big::bytes).sum::<usize>()
    }
}
