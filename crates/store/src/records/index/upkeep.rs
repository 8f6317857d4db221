//! Operations on the whole index, shard by shard: dropping records near the limit, reserving memory, and giving it
//! back.

use super::{CLASSES, Index, KeyPrefix, Ordering, SHARDS, ShardLine, shard::share};

/// Spare room of a shard, in square roots of its expected number of records. With up to ten providers per key this is
/// three standard deviations.
const SPREAD: f64 = 6.0;

impl Index {
    /// Keeps the index below its limit. From 31/32 of the limit on, drops the farthest records until 15/16 are left,
    /// and calls `dropped` with the peer of each. New records as far away are refused until expiry has brought the
    /// index down to 7/8. Returns the number of dropped records.
    ///
    /// Records are dropped by whole classes, so up to a sixteenth of all may be dropped in addition. The log keeps
    /// them: after a restart they are back until the next call.
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

    /// Drops every record for whose key prefix and time `goes` returns true, and calls `dropped` with its peer. Used
    /// when the log cannot name the records to drop.
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

    /// Drops tombstones that have expired: all older announcements have expired, too.
    pub fn forget_tombstones(&self, is_live: impl Fn(u32) -> bool) {
        for ShardLine(lock) in &self.shards {
            lock.write().forget_tombstones(&is_live);
        }
    }

    /// Gives back memory of tables that have become much too large.
    pub fn shrink(&self) {
        for ShardLine(lock) in &self.shards {
            lock.write().shrink(&self.secret);
        }
    }

    /// Makes room for the expected number of records. A table that grows leaves a hole in memory.
    pub fn reserve(&self, records: usize) {
        let records = records.min(self.limits.records);
        for (n, ShardLine(lock)) in self.shards.iter().enumerate() {
            let mut shard = lock.write();
            let expected = records as f64 * share(n);
            // Half of the shards get more than `expected`. If those tables grew, the holes that they leave would take a
            // third of the memory with 100 million records.
            let most = expected + (SPREAD * expected.sqrt()).min(expected / 4.0);
            let more = (most as usize).saturating_sub(shard.table.len());
            shard.table.reserve(more, |r| self.secret.of(&r.prefix));
        }
    }

    /// Returns the memory allocated for records, in bytes.
    pub fn bytes(&self) -> usize {
        let shard = |ShardLine(lock): &ShardLine| lock.read().bytes();
        self.shards.iter().map(shard).sum::<usize>() + SHARDS * size_of::<ShardLine>()
    }
}
