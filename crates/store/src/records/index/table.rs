//! A hash table of records, three to a cache line. If the table is in no cache, a probe waits for memory once; a table
//! that keeps its tags apart from its records waits twice. The table grows by a third, so it takes 25 to 34 bytes per
//! record. A table that doubles would take up to 48.
//!
//! A record stands in its home line, or, if that line is full, in the next line with room. Each line counts the records
//! that have passed it and remembers their kinds. So a search ends at the first line that no record of its kind has
//! passed.

use super::record::Record;

/// Number of records in a line.
const IN_LINE: usize = 3;
/// A table grows when it is fuller than this, in 64ths. In a fuller table searches would be long.
const FULLEST: usize = 54;
/// Size of a table after it has grown, in 64ths of the old size. While a table fills, a record is moved three times on
/// average.
const GROWTH: usize = 84;
/// A count of passed records that reaches this value keeps it until the table is rebuilt.
const MANY: u16 = u16::MAX;

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct RecordLine {
    /// Only the first `used` hold records.
    records: [Record; IN_LINE],
    used: u8,
    /// One bit for each kind of record that has passed the line. Cleared when `passed` falls to 0.
    kinds: u8,
    /// Number of records that have passed the line and are still in the table.
    passed: u16,
}

const _: () = assert!(size_of::<RecordLine>() == 64);

impl RecordLine {
    const EMPTY: Self =
        Self { records: [Record { prefix: [0; 12], peer: 0, time: 0 }; IN_LINE], used: 0, kinds: 0, passed: 0 };

    fn records(&self) -> &[Record] {
        &self.records[..usize::from(self.used).min(IN_LINE)]
    }
}

/// The hash table. See the module.
#[derive(Debug, Default)]
pub struct RecordTable {
    lines: Box<[RecordLine]>,
    len: usize,
}

impl RecordTable {
    /// Returns the number of records.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns the number of records for which there is room.
    pub fn capacity(&self) -> usize {
        self.lines.len() * IN_LINE * FULLEST / 64
    }

    /// Iterates over all records.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.lines.iter().flat_map(RecordLine::records)
    }

    /// Iterates over the records that may have this hash. There may be others among them.
    pub fn near(&self, hash: u64) -> impl Iterator<Item = &Record> {
        self.way(hash).flat_map(|at| self.lines[at].records())
    }

    /// Returns the first record near `hash` for which `is_it` returns true.
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(&Record) -> bool) -> Option<&Record> {
        self.near(hash).find(|record| is_it(record))
    }

    /// Does the same as [`RecordTable::find`], for a record to be changed.
    pub fn find_mut(&mut self, hash: u64, is_it: impl FnMut(&Record) -> bool) -> Option<&mut Record> {
        let (at, nth) = self.position(hash, is_it)?;
        Some(&mut self.lines[at].records[nth])
    }

    /// Inserts a record that is not there yet.
    pub fn insert(&mut self, hash: u64, record: Record, hash_of: impl Fn(&Record) -> u64) {
        if self.len >= self.capacity() {
            self.resize((self.lines.len() * GROWTH / 64).max(self.lines.len() + 1), hash_of);
        }
        self.place(hash, record);
    }

    /// Removes and returns the first record near `hash` for which `is_it` returns true.
    pub fn remove(&mut self, hash: u64, is_it: impl FnMut(&Record) -> bool) -> Option<Record> {
        let (at, nth) = self.position(hash, is_it)?;
        let line = &mut self.lines[at];
        line.used -= 1;
        let last = usize::from(line.used);
        line.records.swap(nth, last);
        let gone = line.records[last];
        let mut passed = self.home(hash);
        while passed != at {
            let line = &mut self.lines[passed];
            if line.passed != MANY {
                line.passed -= 1;
            }
            if line.passed == 0 {
                line.kinds = 0;
            }
            passed = self.after(passed);
        }
        self.len -= 1;
        Some(gone)
    }

    /// Makes room for `more` records in addition to those in the table.
    pub fn reserve(&mut self, more: usize, hash_of: impl Fn(&Record) -> u64) {
        let lines = lines_for(self.len + more);
        if lines > self.lines.len() {
            self.resize(lines, hash_of);
        }
    }

    /// Gives back memory that the records in the table do not need.
    pub fn shrink(&mut self, hash_of: impl Fn(&Record) -> u64) {
        let lines = lines_for(self.len);
        if lines < self.lines.len() {
            self.resize(lines, hash_of);
        }
    }

    /// Returns the allocated memory, in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.lines)
    }

    fn resize(&mut self, lines: usize, hash_of: impl Fn(&Record) -> u64) {
        let old = std::mem::replace(&mut self.lines, vec![RecordLine::EMPTY; lines].into());
        self.len = 0;
        old.iter().flat_map(RecordLine::records).for_each(|record| self.place(hash_of(record), *record));
    }

    /// Puts a record into the first line with room from its home line on. The caller makes sure that there is one.
    fn place(&mut self, hash: u64, record: Record) {
        let mut at = self.home(hash);
        while usize::from(self.lines[at].used) == IN_LINE {
            let line = &mut self.lines[at];
            line.passed = line.passed.saturating_add(1);
            line.kinds |= kind(hash);
            at = self.after(at);
        }
        let line = &mut self.lines[at];
        line.records[usize::from(line.used)] = record;
        line.used += 1;
        self.len += 1;
    }

    fn position(&self, hash: u64, mut is_it: impl FnMut(&Record) -> bool) -> Option<(usize, usize)> {
        self.way(hash).find_map(|at| Some((at, self.lines[at].records().iter().position(&mut is_it)?)))
    }

    /// Iterates over the lines in which a record with this hash may stand.
    fn way(&self, hash: u64) -> impl Iterator<Item = usize> {
        let first = (!self.lines.is_empty()).then(|| self.home(hash));
        let kind = kind(hash);
        let next = move |at: &usize| (self.lines[*at].kinds & kind != 0).then(|| self.after(*at));
        std::iter::successors(first, next).take(self.lines.len())
    }

    /// Returns the home line of a hash. Uses its low half; the shard is chosen by bits of the high half.
    fn home(&self, hash: u64) -> usize {
        ((u64::from(hash as u32) * self.lines.len() as u64) >> 32) as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.lines.len() { 0 } else { at + 1 }
    }
}

/// Returns the kind of a hash, as one of eight bits. Uses bits of the hash that choose neither the shard nor the line.
fn kind(hash: u64) -> u8 {
    1 << (hash >> 61)
}

/// Returns the number of lines that have room for `records` and one more.
fn lines_for(records: usize) -> usize {
    if records == 0 { 0 } else { (records + 1) * 64 / (IN_LINE * FULLEST) + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(n: u32) -> Record {
        Record { prefix: [0; 12], peer: n, time: n + 1 }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u32),
        Remove(u32),
        Reserve(usize),
        Shrink,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            8 => (0..300u32).prop_map(Op::Insert),
            8 => (0..300u32).prop_map(Op::Remove),
            1 => (0..100usize).prop_map(Op::Reserve),
            1 => Just(Op::Shrink),
        ]
    }

    proptest! {
        /// Runs with hashes that spread and with hashes that all collide.
        #[test]
        fn a_table_holds_what_was_put_in_and_not_taken_out(
            ops in proptest::collection::vec(op(), 0..800),
            spread in prop_oneof![Just(0u64), Just(1 << 26), Just(0x9e37_79b9_7f4a_7c15)],
        ) {
            let hash = |n: u32| u64::from(n).wrapping_mul(spread);
            let hash_of = |record: &Record| hash(record.peer);
            let mut table = RecordTable::default();
            let mut model = std::collections::BTreeSet::new();
            for op in ops {
                match op {
                    Op::Insert(n) => {
                        if model.insert(n) {
                            table.insert(hash(n), record(n), hash_of);
                        }
                    }
                    Op::Remove(n) => {
                        let gone = table.remove(hash(n), |r| r.peer == n).map(|r| r.time);
                        prop_assert_eq!(gone, model.remove(&n).then_some(n + 1));
                    }
                    Op::Reserve(more) => {
                        table.reserve(more, hash_of);
                        prop_assert!(table.capacity() >= table.len() + more);
                    }
                    Op::Shrink => table.shrink(hash_of),
                }
                prop_assert_eq!(table.len(), model.len());
            }
            let held: std::collections::BTreeSet<u32> = table.iter().map(|r| r.peer).collect();
            prop_assert_eq!(&held, &model);
            for n in 0..300 {
                prop_assert_eq!(table.find(hash(n), |r| r.peer == n).is_some(), model.contains(&n));
            }
        }
    }
}
