//! Own CIDs, which this node keeps announced: in keyspace order, each with the time of its last announcement.
//!
//! The user asked to keep them. So each change goes to a journal of its own, fsynced before the change is acknowledged;
//! then to the `node/` database; and from time to time to an export. Damage to one of the three loses no CID.

pub(super) mod exports;
pub(super) mod own;
mod state;
pub(super) mod trie;

use super::{
    StoreError,
    blocking::blocking,
    engine::each_row,
    meta::{NodeDb, tree},
    records::entry::position,
    routing::RoutingState,
};
use crate::{
    clock::{Clock, UnixTime},
    kad::{Dht, keyspace::Key},
};
use cid::CidGeneric;
use exports::Exports;
pub use own::Own;
use own::OwnRow;
use parking_lot::{Mutex, RwLock};
use state::{OwnFiles, ProvidedState};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};
use trie::Trie;

/// The own CIDs of this node, one for each multihash: the codec last given is kept for display. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Provided {
    state: Arc<ProvidedState>,
}

/// How to open the own CIDs.
#[derive(Debug)]
pub(super) struct Opening {
    /// Path of `exports/` in the data directory.
    pub exports: PathBuf,
    /// Maximum number of own CIDs.
    pub limit: usize,
    /// The database holds less than before: the exports decide what is missing.
    pub lossy: bool,
    /// Write nothing to disk.
    pub read_only: bool,
}

impl Provided {
    /// Reads the own CIDs, and restores from `exports/` those that the database lost. Returns notes on what it found.
    pub(super) fn open(
        node: NodeDb,
        routing: RoutingState,
        clock: Arc<dyn Clock>,
        opening: Opening,
    ) -> Result<(Self, Vec<String>), StoreError> {
        let tree = node.database.read(tree::PROVIDED, |tree| Ok(tree.clone()))?;
        let mut notes = Vec::new();
        let (rows, unread) = read_rows(&tree);
        notes.extend(unread);
        let mut trie =
            Trie::load(rows.into_iter(), |key, why| notes.push(format!("own CIDs of {key:02x?} are damaged: {why}")));
        // Damage can take sled back to an earlier state that is intact in itself.
        let is_behind = node.meta.exported().unwrap_or(0) < exports::newest(&opening.exports);
        let is_complete = node.meta.own() == Some(trie.len() as u64);
        let whole = !opening.lossy && notes.is_empty() && is_complete && !is_behind;
        let exported = exports::read(&opening.exports, !whole);
        let is_unread = !exported.notes.is_empty();
        notes.extend(if whole { Vec::new() } else { exported.notes });
        let damaged = opening.lossy || !notes.is_empty();
        let (mut from_export, mut from_journal) = (0, 0);
        for (position, row) in exported.own {
            let removed_since = matches!(exported.journal.get(&position), Some(None));
            if !removed_since && trie.get(&position).is_none() {
                from_export += u64::from(trie.put(position, row));
            }
        }
        for (position, last_word) in exported.journal {
            match last_word {
                Some(row) if trie.get(&position).is_none() => from_journal += u64::from(trie.put(position, row)),
                Some(_) => {}
                None => drop(trie.take(&position)),
            }
        }
        match from_export + from_journal {
            0 => {}
            // A kill came between the write to the journal and the write to the database. The journal is kept for this
            // case.
            back if !damaged && from_export == 0 => {
                tracing::info!(cids = back, "took own CIDs from the journal that a kill kept from the database")
            }
            back => notes.push(format!("{back} own CIDs restored from exports/")),
        }
        if !whole {
            notes.extend(load_routing(&routing, exported.routing));
        }
        let files = OwnFiles {
            exports: Exports::open(opening.exports),
            // A damaged journal holds less than before: write an export.
            changed: is_unread,
            exported: None,
            routing_saves: routing.saves(),
            read_only: opening.read_only,
        };
        let state = ProvidedState {
            trie: RwLock::new(trie),
            files: Mutex::new(files),
            node,
            routing,
            clock,
            limit: opening.limit,
        };
        let provided = Self { state: Arc::new(state) };
        if !opening.read_only {
            provided.state.write_stale()?;
        }
        Ok((provided, notes))
    }

    /// Adds own CIDs. Returns the number of new ones, once they are flushed to disk. Adds all or none.
    ///
    /// # Errors
    /// [`StoreError::Full`] beyond `reprovide.max_cids`; [`StoreError::Io`] if the journal cannot be written.
    pub async fn add<const S: usize>(&self, cids: Vec<CidGeneric<S>>) -> Result<usize, StoreError> {
        let state = self.state.clone();
        blocking(move || state.add(&cids)).await
    }

    /// Adds own CIDs of a dump, with their times. For a known CID, the later announcement counts. Once all are flushed
    /// to disk, returns for each CID whether it changed something. Adds all or none. Blocking.
    ///
    /// # Errors
    /// As [`Provided::add`].
    pub(super) fn load(&self, own: &[Own]) -> Result<Vec<bool>, StoreError> {
        self.state.load(own)
    }

    /// Removes own CIDs. Returns the number of those that were known, once the change is flushed to disk.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the journal cannot be written.
    pub async fn remove(&self, multihashes: Vec<Vec<u8>>) -> Result<usize, StoreError> {
        let state = self.state.clone();
        blocking(move || state.remove(multihashes)).await
    }

    /// Returns the own CID of a multihash.
    pub fn get(&self, multihash: &[u8]) -> Option<Own> {
        self.state.trie().get(&position(multihash)).and_then(OwnRow::own)
    }

    /// Returns whether this node provides a multihash.
    pub fn contains(&self, multihash: &[u8]) -> bool {
        self.state.trie().get(&position(multihash)).is_some()
    }

    /// Returns the number of own CIDs.
    pub fn len(&self) -> usize {
        self.state.trie().len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns up to `limit` own CIDs in keyspace order, from `from` on.
    pub fn range(&self, from: &Key, limit: usize) -> Vec<(Key, Own)> {
        let trie = self.state.trie();
        let rows = trie.from(from.as_bytes()).take(limit);
        rows.filter_map(|(position, row)| Some((Key::from_bytes(*position), row.own()?))).collect()
    }

    /// Records announcements; on disk with the next flush. A crash before that repeats announcements, which is
    /// harmless.
    pub fn mark_announced(&self, done: &[(Key, u16)], at: UnixTime) {
        let mut trie = self.state.trie.write();
        for (key, confirmed) in done {
            trie.change(key.as_bytes(), |row| {
                row.announced = Some(at.0);
                row.confirmed = *confirmed;
            });
        }
    }

    /// Marks all own CIDs as never announced, so that they are due at once: their announcements named another peer.
    /// Returns their number. On disk when this returns, except that an older export still has the times. Blocking, 1 s
    /// for a million.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(super) fn forget_announcements(&self) -> Result<usize, StoreError> {
        let mut files = self.state.files()?;
        let own = {
            let mut trie = self.state.trie.write();
            trie.change_all(|row| (row.announced, row.confirmed) = (None, 0));
            trie.len()
        };
        files.changed = true;
        self.state.write_stale()?;
        Ok(own)
    }

    /// Writes announcements to disk. Makes an export when one is due, or if something changed and it is the `last`
    /// flush.
    pub(super) fn flush(&self, last: bool) -> Result<(), StoreError> {
        self.state.flush(last)
    }

    /// Writes to a reopened database what it lacks; everything if it holds `nothing`.
    pub(super) fn write_anew(&self, nothing: bool) -> Result<(), StoreError> {
        let _files = self.state.files()?;
        if nothing {
            self.state.trie.write().all_stale();
        }
        self.state.write_stale()
    }

    /// Makes an export, whether or not one is due.
    pub(super) fn export(&self) -> Result<(), StoreError> {
        let mut files = self.state.files()?;
        self.state.export(&mut files)
    }
}

/// Key and value of a row.
type RawRow = (Vec<u8>, Vec<u8>);

/// Returns all rows that can be read, and why others cannot.
fn read_rows(tree: &sled::Tree) -> (Vec<RawRow>, Option<String>) {
    let mut rows = Vec::new();
    let error = each_row(tree, |key, value| rows.push((key.to_vec(), value.to_vec())));
    rows.sort();
    (rows, error.map(|error| format!("some own CIDs cannot be read from node/: {error}")))
}

fn load_routing(routing: &RoutingState, saved: BTreeMap<String, Vec<super::routing::SavedPeer>>) -> Option<String> {
    let mut peers = 0;
    for (name, saved) in saved {
        let dht = Dht::ALL.into_iter().find(|dht| dht.name() == name)?;
        if routing.load(dht).is_empty() && !saved.is_empty() {
            peers += saved.len();
            routing.save_blocking(dht, saved).ok()?;
        }
    }
    (peers > 0).then(|| format!("{peers} peers of routing tables restored from exports/"))
}
