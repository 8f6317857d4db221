//! What goes over the whole index, shard by shard: room near the limit, memory given back, and expected, sums.

use super::{CLASSES, Index, KeyPrefix, Ordering, SHARDS, ShardLine, shard::share};

/// How many records a shard may have beyond what is expected, in roots of that: three standard deviations, where keys have
/// up to ten providers.
const SPREAD: f64 = 6.0;

impl Index {
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
        self.sweep(|prefix, _| self.class(prefix) < cutoff, dropped);
        before.saturating_sub(self.len())
    }

    /// Drops every record that `goes` by its key prefix and time, telling its peer: for when the log cannot name what to drop.
    pub fn sweep(&self, goes: impl Fn(&KeyPrefix, u32) -> bool, mut dropped: impl FnMut(u32)) {
        for ShardLine(lock) in &self.shards {
            let mut shard = lock.write();
            let few = shard.table.iter().filter(|r| goes(&r.prefix, r.time)).map(|r| (r.prefix, r.peer));
            let big = shard.bigs().flat_map(|big| {
                let goes = |(peer, time)| goes(&big.prefix, time).then_some((big.prefix, peer));
                big.iter().filter_map(goes)
            });
            let old: Vec<(KeyPrefix, u32)> = few.chain(big).collect();
            for (prefix, peer) in old {
                if self.delete(&mut shard, self.secret.of(&prefix), &prefix, peer, |_| true) {
                    dropped(peer);
                }
            }
        }
    }

    /// Removals older than the ttl hide nothing any more.
    pub fn forget_tombstones(&self, is_live: impl Fn(u32) -> bool) {
        for ShardLine(lock) in &self.shards {
            lock.write().forget_tombstones(&is_live);
        }
    }

    /// Gives memory back where a table has become much too large.
    pub fn shrink(&self) {
        for ShardLine(lock) in &self.shards {
            lock.write().shrink(&self.secret);
        }
    }

    /// Records that are expected, so that tables need not grow (and leave holes in memory) on the way there.
    pub fn reserve(&self, records: usize) {
        let records = records.min(self.limits.records);
        for (n, ShardLine(lock)) in self.shards.iter().enumerate() {
            let mut shard = lock.write();
            let expected = records as f64 * share(n);
            // Half of the shards get more than that, and a table that grows leaves a hole where it was: with 100 million
            // records a third of the memory.
            let most = expected + (SPREAD * expected.sqrt()).min(expected / 4.0);
            let more = (most as usize).saturating_sub(shard.table.len());
            shard.table.reserve(more, |r| self.secret.of(&r.prefix));
        }
    }

    /// Bytes allocated for records.
    pub fn bytes(&self) -> usize {
        let shard = |ShardLine(lock): &ShardLine| lock.read().bytes();
        self.shards.iter().map(shard).sum::<usize>() + SHARDS * size_of::<ShardLine>()
    }
}
