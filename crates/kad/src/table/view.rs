//! An immutable picture of a routing table.

use super::Entry;
use crate::keyspace::Key;
use libp2p_identity::PeerId;
use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

/// An immutable picture of the table for answering from many tasks: sorted by key.
#[derive(Clone, Debug)]
pub struct TableView {
    /// Apart from the entries, so that a search touches few cache lines.
    keys: Vec<Key>,
    entries: Vec<Arc<Entry>>,
}

impl TableView {
    pub(super) fn new(mut entries: Vec<Arc<Entry>>) -> Arc<Self> {
        entries.sort_unstable_by_key(|entry| entry.key);
        Arc::new(Self { keys: entries.iter().map(|entry| entry.key).collect(), entries })
    }

    /// A picture of a table without peers. Always the same one.
    pub fn empty() -> Arc<Self> {
        static EMPTY: OnceLock<Arc<TableView>> = OnceLock::new();
        EMPTY.get_or_init(|| Self::new(Vec::new())).clone()
    }

    /// Peers in the table.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries, by key.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(AsRef::as_ref)
    }

    /// The `n` closest to `target`, closest first.
    pub fn closest(&self, target: &Key, n: usize) -> Vec<&Entry> {
        self.closest_where(target, n, |_| true)
    }

    /// The `n` closest to `target` that `wanted` lets pass, closest first.
    ///
    /// Sorted keys are a binary trie laid flat: keys that share a prefix stand together, and where they part, all on
    /// the target's side are closer than all on the other. Walking it costs some n binary searches in short ranges.
    pub fn closest_where(&self, target: &Key, n: usize, wanted: impl Fn(&Entry) -> bool) -> Vec<&Entry> {
        let mut found = Vec::with_capacity(n.min(self.len()));
        // Ranges yet to be walked, the closest on top. Each split goes at least one bit deeper: at most 257.
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
                // One key. (Equal keys of two peers would take a SHA-256 collision; they are all found.)
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

    /// The entry of a peer.
    pub fn get(&self, peer: &PeerId) -> Option<&Entry> {
        self.get_by_key(&Key::for_peer(peer))
    }

    /// The entry at a place.
    pub fn get_by_key(&self, key: &Key) -> Option<&Entry> {
        let at = self.keys.binary_search(key).ok()?;
        Some(&self.entries[at])
    }
}
