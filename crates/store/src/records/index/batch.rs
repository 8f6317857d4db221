//! Changes by batches of records of the log. A batch is sorted by shard. So the lock of a shard is taken once for many
//! records, and its table stays in the processor's caches. In an index of millions of records, single changes would
//! wait for memory at each step.

use super::{Full, Index, KeyPrefix, Record, SHARDS, Shard, Slot, shard_of};

/// Size of a batch that works best: some 16 records for each shard, and 3 MB with the memory for sorting.
pub const BATCH: usize = 1 << 16;
/// Maximum number of records for which the lock of a shard is held at a time: some 10 us. All records of a batch may be
/// of one key.
const HELD: usize = 64;

/// A record or its removal, from a chunk.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// Its key.
    pub prefix: KeyPrefix,
    /// Number of its provider.
    pub peer: u32,
    /// Time of the chunk, Unix seconds.
    pub time: u32,
    /// True for a removal.
    pub removed: bool,
}

/// Outcome for a record or removal from the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replayed {
    /// The record is new to the index.
    Added,
    /// The record was in the index, and was removed.
    Removed,
    /// The number of records is the same: the index knew the record or removal, or something newer.
    Known,
    /// The index has no room for the record.
    Refused(Full),
}

impl Index {
    /// Applies records and removals from the log. One of them counts only if the index knows nothing of its record with
    /// the same time or a later one. So within one second the newest must come first. Calls `became` with each outcome,
    /// under a lock of the index.
    pub fn replay(&self, records: &[Named], mut became: impl FnMut(&Named, Replayed)) {
        self.by_shard(records, |shard, hash, record| {
            let outcome = match record.removed {
                false => self.replay_add(shard, hash, record),
                true => self.replay_remove(shard, hash, record),
            };
            became(record, outcome);
        });
    }

    /// Drops these records for garbage collection, unless newer ones are known. Calls `went` with each that was
    /// dropped, under a lock of the index.
    pub fn collect(&self, records: &[Named], mut went: impl FnMut(&Named)) {
        self.by_shard(records, |shard, hash, record| {
            if !record.removed && self.delete(shard, hash, &record.prefix, record.peer, |known| known <= record.time) {
                went(record);
            }
        });
    }

    fn replay_add(&self, shard: &mut Shard, hash: u64, record: &Named) -> Replayed {
        let Named { prefix, peer, time, .. } = *record;
        if shard.is_removed(&prefix, peer, time) {
            return Replayed::Known;
        }
        let others = match shard.slot(&self.secret, hash, &prefix, peer) {
            Slot::Known(known) => {
                *known = time.max(*known);
                return Replayed::Known;
            }
            Slot::Others(others) => others,
        };
        match self.room(true, others, &prefix) {
            Ok(()) => {
                self.insert(shard, hash, Record { prefix, peer, time }, others);
                Replayed::Added
            }
            Err(full) => Replayed::Refused(full),
        }
    }

    fn replay_remove(&self, shard: &mut Shard, hash: u64, record: &Named) -> Replayed {
        let Named { prefix, peer, time, .. } = *record;
        if matches!(shard.slot(&self.secret, hash, &prefix, peer), Slot::Known(known) if *known >= time) {
            return Replayed::Known;
        }
        shard.bury(&prefix, peer, time);
        match self.delete(shard, hash, &prefix, peer, |_| true) {
            true => Replayed::Removed,
            false => Replayed::Known,
        }
    }

    /// Calls `each` with all records, shard by shard. Within a shard they keep their order.
    fn by_shard(&self, records: &[Named], mut each: impl FnMut(&mut Shard, u64, &Named)) {
        let hashes: Vec<u64> = records.iter().map(|record| self.secret.of(&record.prefix)).collect();
        // A counting sort: first where the records of each shard begin, then the place of each record.
        let mut next = vec![0usize; SHARDS + 1];
        hashes.iter().for_each(|hash| next[shard_of(*hash) + 1] += 1);
        (0..SHARDS).for_each(|shard| next[shard + 1] += next[shard]);
        let mut order = vec![0usize; records.len()];
        for (i, hash) in hashes.iter().enumerate() {
            let at = &mut next[shard_of(*hash)];
            order[*at] = i;
            *at += 1;
        }
        for of_shard in order.chunk_by(|a, b| shard_of(hashes[*a]) == shard_of(hashes[*b])) {
            for some in of_shard.chunks(HELD) {
                let mut shard = self.write(hashes[some[0]]);
                some.iter().for_each(|i| each(&mut shard, hashes[*i], &records[*i]));
            }
        }
    }
}
