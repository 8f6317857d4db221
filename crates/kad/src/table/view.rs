//! An immutable snapshot of a routing table.

use super::Entry;
use crate::keyspace::Key;
use libp2p_identity::PeerId;
use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

/// An immutable snapshot of the table, sorted by key, from which many tasks can answer.
#[derive(Clone, Debug)]
pub struct TableView {
    /// Separate from the entries, so that a search touches few cache lines.
    keys: Vec<Key>,
    entries: Vec<Arc<Entry>>,
}

impl TableView {
    pub(super) fn new(mut entries: Vec<Arc<Entry>>) -> Arc<Self> {
        entries.sort_unstable_by_key(|entry| entry.key);
        Arc::new(Self { keys: entries.iter().map(|entry| entry.key).collect(), entries })
    }

    /// Returns the snapshot of an empty table, always the same one.
    pub fn empty() -> Arc<Self> {
        static EMPTY: OnceLock<Arc<TableView>> = OnceLock::new();
        EMPTY.get_or_init(|| Self::new(Vec::new())).clone()
    }

    /// Returns the number of peers.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether the table has no peers.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Iterates over all entries in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(AsRef::as_ref)
    }

    /// Returns the `n` entries closest to `target`, closest first.
    pub fn closest(&self, target: &Key, n: usize) -> Vec<&Entry> {
        self.closest_where(target, n, |_| true)
    }

    /// Returns the `n` entries closest to `target` for which `wanted` holds, closest first.
    ///
    /// Sorted keys form a binary trie: keys with a common prefix are adjacent, and where they differ, all keys on the
    /// target's side are closer than all keys on the other side. The walk costs some n binary searches in short ranges.
    pub fn closest_where(&self, target: &Key, n: usize, wanted: impl Fn(&Entry) -> bool) -> Vec<&Entry> {
        let mut found = Vec::with_capacity(n.min(self.len()));
        // Ranges still to walk, the closest last. Each split goes at least one bit deeper, so there are at most 257.
        let mut waiting: Vec<Range<usize>> = Vec::with_capacity(16);
        waiting.push(0..self.len());
        while let Some(range) = waiting.pop() {
            if found.len() >= n {
                break;
            }
            let keys = &self.keys[range.clone()];
            let (Some(first), Some(last)) = (keys.first(), keys.last()) else { continue };
            let depth = first.common_prefix_length(last);
            if depth == crate::keyspace::BITS {
                // One key. (Two peers with equal keys, a SHA-256 collision, are both found.)
                found.extend(self.entries[range].iter().map(AsRef::as_ref).filter(|entry| wanted(entry)));
                continue;
            }
            let middle = range.start + keys.partition_point(|key| !key.bit(depth));
            let (zeros, ones) = (range.start..middle, middle..range.end);
            let (near, far) = if target.bit(depth) { (ones, zeros) } else { (zeros, ones) };
            waiting.push(far);
            waiting.push(near);
        }
        found.truncate(n);
        found
    }

    /// Returns the entry of a peer.
    pub fn get(&self, peer: &PeerId) -> Option<&Entry> {
        self.get_by_key(&Key::for_peer(peer))
    }

    /// Returns the entry with this key.
    pub fn get_by_key(&self, key: &Key) -> Option<&Entry> {
        let at = self.keys.binary_search(key).ok()?;
        Some(&self.entries[at])
    }
}
