//! Many records of the log at once, shard by shard: a lock is taken once for all records of its shard, and what they
//! need of its table is in the processor's caches. At millions of records one at a time waits for memory at each step.

use super::{Full, Index, Place, PoisonError, Record, SHARDS, Shard, shard_of};

/// Records that are best handed over together: some 16 for each shard, 3 MB with what is needed to sort them.
pub const BATCH: usize = 1 << 16;

/// A record, or its removal, as a chunk names it.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// Its key.
    pub place: Place,
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
            if !record.removed && self.delete(shard, hash, &record.place, record.peer, |known| known <= record.time) {
                went(record);
            }
        });
    }

    fn replay_add(&self, shard: &mut Shard, hash: u64, record: &Named) -> Replayed {
        let Named { place, peer, time, .. } = *record;
        if shard.is_removed(&place, peer, time) {
            return Replayed::Known;
        }
        if let Some(known) = shard.find_mut(hash, &place, peer) {
            *known = time.max(*known);
            return Replayed::Known;
        }
        match self.room(shard, hash, &place) {
            Ok(others) => {
                self.insert(shard, hash, Record { place, peer, time }, others);
                Replayed::Added
            }
            Err(full) => Replayed::Refused(full),
        }
    }

    fn replay_remove(&self, shard: &mut Shard, hash: u64, record: &Named) -> Replayed {
        let Named { place, peer, time, .. } = *record;
        if shard.find_mut(hash, &place, peer).is_some_and(|known| *known >= time) {
            return Replayed::Known;
        }
        let tombstone = shard.tombstones.entry((place, peer)).or_insert(time);
        *tombstone = time.max(*tombstone);
        match self.delete(shard, hash, &place, peer, |_| true) {
            true => Replayed::Removed,
            false => Replayed::Known,
        }
    }

    /// Calls `each` with all records, those of one shard one after the other and in the order given.
    fn by_shard(&self, records: &[Named], mut each: impl FnMut(&mut Shard, u64, &Named)) {
        let hashes: Vec<u64> = records.iter().map(|record| self.hash(&record.place)).collect();
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
            let mut shard = self.write(hashes[of_shard[0]]);
            of_shard.iter().for_each(|i| each(&mut shard, hashes[*i], &records[*i]));
        }
    }

    /// Records that are expected, so that tables need not grow (and leave holes in memory) on the way there.
    pub fn reserve(&self, records: usize) {
        let records = records.min(self.limits.records);
        for (n, lock) in self.shards.iter().enumerate() {
            let mut shard = lock.write().unwrap_or_else(PoisonError::into_inner);
            let more = ((records as f64 * share(n)) as usize).saturating_sub(shard.table.len());
            shard.table.reserve(more, |r| self.hash(&r.place));
        }
    }
}

/// The part of all records that a shard gets, by [`shard_of`].
fn share(shard: usize) -> f64 {
    let u = |x: f64| (1.34 - (1.34f64.powi(2) - 4.0 * 0.34 * x).max(0.0).sqrt()) / (2.0 * 0.34);
    (u((shard + 1) as f64 / SHARDS as f64) - u(shard as f64 / SHARDS as f64)).max(0.0)
}
