//! A binary trie over the keyspace that holds the own CIDs, and knows which of its leaves are stale on disk. A leaf
//! holds the CIDs below one keyspace prefix, and is one row of the tree `provided`.
//!
//! With one row for each CID, sled took some 800 MB of memory for a million. Leaves of some 170 CIDs take only
//! the memory of their content.

use super::own::{OwnRow, Position};
use crate::{StoreError, codec};
use std::collections::{BTreeMap, BTreeSet};

/// Maximum number of rows of a leaf; a larger one is split in two. 256 rows of some 60 bytes are 15 kB, and those of
/// the longest CIDs 30 kB.
const SPLIT: usize = 256;

/// Key of a leaf on disk: its first position, then the length of its prefix in bits.
pub type LeafKey = [u8; 33];

/// The rows below a prefix.
#[derive(Clone, Copy, Debug)]
struct Leaf {
    bits: u8,
    rows: usize,
}

/// The rows on disk that have to change.
#[derive(Debug)]
pub struct Stale {
    /// Rows to write, or to remove where there is no value, in this order.
    pub rows: Vec<(LeafKey, Option<Vec<u8>>)>,
    dirty: BTreeSet<Position>,
    gone: BTreeSet<LeafKey>,
}

/// See the module.
#[derive(Debug)]
pub struct Trie {
    rows: BTreeMap<Position, OwnRow>,
    /// Leaves by their first position; together they cover the keyspace.
    leaves: BTreeMap<Position, Leaf>,
    dirty: BTreeSet<Position>,
    /// Leaves that were split, and whose rows are still on disk.
    gone: BTreeSet<LeafKey>,
}

impl Default for Trie {
    fn default() -> Self {
        let whole = Leaf { bits: 0, rows: 0 };
        Self {
            rows: BTreeMap::new(),
            leaves: BTreeMap::from([([0; 32], whole)]),
            dirty: BTreeSet::new(),
            gone: BTreeSet::new(),
        }
    }
}

impl Trie {
    /// Loads the leaves from disk. A kill may have left both a leaf and the halves into which it was split; the halves
    /// are newer. `damaged` is called with the key of what cannot be read.
    pub fn load(stored: impl Iterator<Item = (Vec<u8>, Vec<u8>)>, mut damaged: impl FnMut(&[u8], String)) -> Self {
        let mut leaves: Vec<(LeafKey, Vec<OwnRow>)> = Vec::new();
        for (key, value) in stored {
            match (LeafKey::try_from(key.as_slice()), codec::decode(&value)) {
                (Ok(key), Ok(rows)) => leaves.push((key, rows)),
                (Err(_), _) => damaged(&key, "the key is not that of a leaf".into()),
                (_, Err(error)) => damaged(&key, error.to_string()),
            }
        }
        leaves.sort_by_key(|(key, _)| key[32]);
        let mut trie = Self::default();
        for (key, rows) in &leaves {
            let (first, last) = bounds(key);
            if leaves.len() > 1 {
                let stale: Vec<Position> = trie.rows.range(first..=last).map(|(p, _)| *p).collect();
                stale.iter().for_each(|position| {
                    trie.take(position);
                });
            }
            for row in rows {
                match row.read() {
                    Some((_, position)) if (first..=last).contains(&position) => {
                        trie.put(position, row.clone());
                    }
                    Some(_) => damaged(key, "a CID that belongs to another leaf".into()),
                    None => damaged(key, "no CID".into()),
                }
            }
        }
        // A row on disk stays if the trie has a leaf with its key. All other rows are removed.
        let stored: BTreeSet<LeafKey> = leaves.iter().map(|(key, _)| *key).collect();
        let wanted: BTreeSet<LeafKey> =
            trie.leaves.iter().filter(|(_, c)| c.rows > 0).map(|(first, c)| leaf_key(first, c.bits)).collect();
        trie.dirty = wanted.difference(&stored).map(|key| bounds(key).0).collect();
        trie.gone = stored.difference(&wanted).copied().collect();
        // These leaves now hold the CIDs of the rows to be removed. So they must be written, even if they are on disk.
        let heirs: Vec<Position> = trie
            .gone
            .iter()
            .map(bounds)
            .flat_map(|(first, last)| trie.leaves.range(trie.leaf_of(&first).0..=last).map(|(first, _)| *first))
            .collect();
        trie.dirty.extend(heirs);
        trie
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns a row.
    pub fn get(&self, position: &Position) -> Option<&OwnRow> {
        self.rows.get(position)
    }

    /// Returns the rows in keyspace order, from a position on.
    pub fn from(&self, position: &Position) -> impl Iterator<Item = (&Position, &OwnRow)> {
        self.rows.range(*position..)
    }

    /// Adds or replaces a row. Returns true if it is new.
    pub fn put(&mut self, position: Position, row: OwnRow) -> bool {
        let (first, bits) = self.leaf_of(&position);
        self.dirty.insert(first);
        let new = self.rows.insert(position, row).is_none();
        if new {
            self.count(&first, 1);
            self.split_if_large(first, bits);
        }
        new
    }

    /// Removes a row.
    pub fn take(&mut self, position: &Position) -> Option<OwnRow> {
        let row = self.rows.remove(position)?;
        let (first, _) = self.leaf_of(position);
        self.count(&first, -1);
        self.dirty.insert(first);
        Some(row)
    }

    /// Changes a row, if it exists.
    pub fn change(&mut self, position: &Position, change: impl FnOnce(&mut OwnRow)) {
        let (first, _) = self.leaf_of(position);
        if let Some(row) = self.rows.get_mut(position) {
            change(row);
            self.dirty.insert(first);
        }
    }

    /// Changes every row.
    pub fn change_all(&mut self, change: impl FnMut(&mut OwnRow)) {
        self.rows.values_mut().for_each(change);
        self.all_stale();
    }

    /// Returns the rows to write. They count as written from now on, unless they are put back.
    ///
    /// # Errors
    /// [`StoreError::Database`] if a leaf cannot be encoded.
    pub fn take_stale(&mut self) -> Result<Stale, StoreError> {
        let mut rows = Vec::with_capacity(self.dirty.len() + self.gone.len());
        for first in &self.dirty {
            let Some(leaf) = self.leaves.get(first) else { continue };
            let key = leaf_key(first, leaf.bits);
            let (first, last) = bounds(&key);
            let below: Vec<&OwnRow> = self.rows.range(first..=last).map(|(_, row)| row).collect();
            let value = match below.is_empty() {
                true => None,
                false => Some(codec::encode(&below).map_err(|e| StoreError::Database(e.into()))?),
            };
            rows.push((key, value));
        }
        rows.extend(self.gone.iter().map(|key| (*key, None)));
        Ok(Stale { rows, dirty: std::mem::take(&mut self.dirty), gone: std::mem::take(&mut self.gone) })
    }

    /// Marks every leaf as stale: the database holds nothing any more.
    pub fn all_stale(&mut self) {
        self.dirty.extend(self.leaves.keys().copied());
    }

    /// Marks rows that could not be written as stale again.
    pub fn put_back(&mut self, stale: Stale) {
        self.dirty.extend(stale.dirty);
        self.gone.extend(stale.gone);
    }

    fn leaf_of(&self, position: &Position) -> (Position, u8) {
        self.leaves.range(..=*position).next_back().map_or(([0; 32], 0), |(first, leaf)| (*first, leaf.bits))
    }

    fn count(&mut self, first: &Position, by: isize) {
        if let Some(leaf) = self.leaves.get_mut(first) {
            leaf.rows = leaf.rows.saturating_add_signed(by);
        }
    }

    fn split_if_large(&mut self, first: Position, bits: u8) {
        let mut open = vec![(first, bits)];
        while let Some((first, bits)) = open.pop() {
            let rows = self.leaves.get(&first).map_or(0, |c| c.rows);
            if rows <= SPLIT || bits == u8::MAX {
                continue;
            }
            let mut second = first;
            second[usize::from(bits / 8)] |= 0x80 >> (bits % 8);
            let upper = self.rows.range(second..=bounds(&leaf_key(&second, bits + 1)).1).count();
            self.gone.insert(leaf_key(&first, bits));
            for (first, rows) in [(first, rows - upper), (second, upper)] {
                self.leaves.insert(first, Leaf { bits: bits + 1, rows });
                self.dirty.insert(first);
                // A leaf with this key may have been split before; now its row is in use again.
                self.gone.remove(&leaf_key(&first, bits + 1));
                open.push((first, bits + 1));
            }
        }
    }
}

fn leaf_key(first: &Position, bits: u8) -> LeafKey {
    let mut key = [bits; 33];
    key[..32].copy_from_slice(first);
    key
}

/// Returns the first and last position of a leaf.
fn bounds(key: &LeafKey) -> (Position, Position) {
    let mut first = [0; 32];
    first.copy_from_slice(&key[..32]);
    let bits = usize::from(key[32]);
    let mut last = first;
    for (i, byte) in last.iter_mut().enumerate() {
        let fixed = bits.saturating_sub(i * 8).min(8);
        *byte |= 0xffu8.checked_shr(fixed as u32).unwrap_or(0);
    }
    (first, last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kad::Cid, records::entry::position};
    use proptest::prelude::*;

    fn row(n: u32, added: u32) -> (Position, OwnRow) {
        let hash = cid::multihash::Multihash::wrap(0x12, &position(&n.to_le_bytes())).unwrap();
        let row = OwnRow { cid: Cid::new_v1(0x55, hash).to_bytes().into(), added, announced: None, confirmed: 0 };
        (row.read().unwrap().1, row)
    }

    /// Writes the stale rows to `disk`, up to `most` of them, as a kill would leave it.
    fn write(trie: &mut Trie, disk: &mut BTreeMap<Vec<u8>, Vec<u8>>, most: usize) {
        let stale = trie.take_stale().unwrap();
        for (key, value) in stale.rows.iter().take(most) {
            match value {
                Some(value) => disk.insert(key.to_vec(), value.clone()),
                None => disk.remove(key.as_slice()),
            };
        }
        if most != usize::MAX {
            trie.put_back(stale);
        }
    }

    fn load(disk: &BTreeMap<Vec<u8>, Vec<u8>>) -> Trie {
        Trie::load(disk.clone().into_iter(), |key, why| panic!("{key:?}: {why}"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn what_is_written_comes_back(ops in proptest::collection::vec((any::<bool>(), 0..1500u32), 0..2500), every in 50..900usize) {
            let (mut trie, mut disk) = (Trie::default(), BTreeMap::new());
            let mut model = BTreeMap::new();
            for (i, (add, n)) in ops.into_iter().enumerate() {
                let (position, row) = row(n, i as u32);
                match add || n < 900 {
                    true => prop_assert_eq!(trie.put(position, row.clone()), model.insert(position, row).is_none()),
                    false => prop_assert_eq!(trie.take(&position), model.remove(&position)),
                }
                if i % every == 0 {
                    write(&mut trie, &mut disk, usize::MAX);
                }
            }
            write(&mut trie, &mut disk, usize::MAX);
            prop_assert!(trie.rows == model);
            let again = load(&disk);
            prop_assert!(again.rows == model);
            prop_assert!(again.leaves.values().all(|c| c.rows <= SPLIT));
        }

        #[test]
        fn a_kill_while_leaves_are_split_loses_nothing_that_was_there(before in 200..600u32, after in 1..900u32, most in 0..12usize) {
            let (mut trie, mut disk) = (Trie::default(), BTreeMap::new());
            for n in 0..before {
                let (position, row) = row(n, 0);
                trie.put(position, row);
            }
            write(&mut trie, &mut disk, usize::MAX);
            for n in before..before + after {
                let (position, row) = row(n, 0);
                trie.put(position, row);
            }
            write(&mut trie, &mut disk, most);
            let mut again = load(&disk);
            for n in 0..before {
                prop_assert!(again.get(&row(n, 0).0).is_some());
            }
            write(&mut again, &mut disk, usize::MAX);
            prop_assert!(load(&disk).rows == again.rows);
            prop_assert!(load(&disk).take_stale().unwrap().rows.is_empty(), "in order after one write");
        }
    }

    #[test]
    fn a_damaged_leaf_is_told_and_the_others_are_read() {
        let (mut trie, mut disk) = (Trie::default(), BTreeMap::new());
        for n in 0..1000 {
            let (position, row) = row(n, 0);
            trie.put(position, row);
        }
        write(&mut trie, &mut disk, usize::MAX);
        disk.values_mut().next().unwrap()[0] = 99;
        let mut told = 0;
        let again = Trie::load(disk.into_iter(), |_, _| told += 1);
        assert_eq!(told, 1);
        assert!(again.len() >= 1000 - SPLIT && again.len() < 1000);
    }
}
