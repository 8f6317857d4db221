//! Many records of the log at once, shard by shard: a lock is taken once for all records of its shard, and what they
//! need of its table is in the processor's caches. At millions of records one at a time waits for memory at each step.

use super::{Full, Index, KeyPrefix, Record, SHARDS, Shard, Slot, shard_of};

/// Records that are best handed over together: some 16 for each shard, 3 MB with what is needed to sort them.
pub const BATCH: usize = 1 << 16;
/// Records for which the lock of a shard is held: some 10 us. All of a batch may be of one key.
const HELD: usize = 64;

/// A record, or its removal, as a chunk names it.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// Its key.
    pub prefix: KeyPrefix,
    /// Its provider.
    pub peer: u32,
    /// Time of the chunk, Unix seconds.
    pub time: u32,
    /// Taken back then, and not announced.
    pub removed: bool,
}

/// What became of a record of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replayed {
    /// It is new to the index.
    Added,
    /// It was in the index, and is no more.
    Removed,
    /// Something as new is known.
    Known,
    /// There is no room for it.
    Refused(Full),
}

impl Index {
    /// Records and removals from the log: each counts unless something not older is known. Of one second, the newest
    /// must come first. `became` is called under a lock of the index.
    pub fn replay(&self, records: &[Named], mut became: impl FnMut(&Named, Replayed)) {
        self.by_shard(records, |shard, hash, record| {
            let outcome = match record.removed {
                false => self.replay_add(shard, hash, record),
                true => self.replay_remove(shard, hash, record),
            };
            became(record, outcome);
        });
    }

    /// Garbage collection: drops these records unless newer ones are known. `went` is told of each that was there, under
    /// a lock of the index.
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

    /// Calls `each` with all records, those of one shard one after the other and in the order given.
    fn by_shard(&self, records: &[Named], mut each: impl FnMut(&mut Shard, u64, &Named)) {
        let hashes: Vec<u64> = records.iter().map(|record| self.secret.of(&record.prefix)).collect();
        // A counting sort: where each shard begins, then who stands where.
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
