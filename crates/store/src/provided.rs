//! The node's own CIDs, in keyspace order, with when each was last announced.
//!
//! They are what the user asked to keep. So each change is in a journal of its own, fsynced, before it is
//! acknowledged, then in the `node/` database; and now and then in an export. Damage to one of them loses none.

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

/// Our own CIDs. Cheap to clone. One per multihash: the codec last given is kept for display.
#[derive(Clone, Debug)]
pub struct Provided {
    state: Arc<ProvidedState>,
}

/// How to open.
#[derive(Debug)]
pub(super) struct Opening {
    /// `exports/` of the data directory.
    pub exports: PathBuf,
    /// `settings.max_provided`.
    pub limit: usize,
    /// The database is not as it was: the exports have the last word on what is missing.
    pub lossy: bool,
    /// Write nothing.
    pub read_only: bool,
}

impl Provided {
    /// Reads the own CIDs; restores from `exports/` what the database lost. Says what it found.
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
        // Damage can take sled back to an earlier state that is sound in itself.
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
            // A kill came after the journal and before the database: that is what the journal is for.
            back if !damaged && from_export == 0 => tracing::info!(cids = back, "own CIDs taken over from the journal"),
            back => notes.push(format!("{back} own CIDs restored from exports/")),
        }
        if !whole {
            notes.extend(load_routing(&routing, exported.routing));
        }
        let files = OwnFiles {
            exports: Exports::open(opening.exports),
            // A journal that is damaged holds less than it did: an export makes up for it.
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

    /// Returns once they are flushed to disk: how many are new. All or none.
    ///
    /// # Errors
    /// [`StoreError::Full`] beyond `reprovide.max_cids`; [`StoreError::Io`] if the journal cannot be written.
    pub async fn add<const S: usize>(&self, cids: Vec<CidGeneric<S>>) -> Result<usize, StoreError> {
        let state = self.state.clone();
        blocking(move || state.add(&cids)).await
    }

    /// Own CIDs of a dump, with their times; of one that is there the later announcement counts. Returns once they are
    /// flushed to disk: for each whether it was news. All or none. Blocking.
    ///
    /// # Errors
    /// As [`Provided::add`].
    pub(super) fn load(&self, own: &[Own]) -> Result<Vec<bool>, StoreError> {
        self.state.load(own)
    }

    /// Returns once flushed: how many were there.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the journal cannot be written.
    pub async fn remove(&self, multihashes: Vec<Vec<u8>>) -> Result<usize, StoreError> {
        let state = self.state.clone();
        blocking(move || state.remove(multihashes)).await
    }

    /// The own CID of a multihash.
    pub fn get(&self, multihash: &[u8]) -> Option<Own> {
        self.state.trie().get(&position(multihash)).and_then(OwnRow::own)
    }

    /// Whether we provide it.
    pub fn contains(&self, multihash: &[u8]) -> bool {
        self.state.trie().get(&position(multihash)).is_some()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.state.trie().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Up to `limit` in keyspace order, from `from` on.
    pub fn range(&self, from: &Key, limit: usize) -> Vec<(Key, Own)> {
        let trie = self.state.trie();
        let rows = trie.from(from.as_bytes()).take(limit);
        rows.filter_map(|(position, row)| Some((Key::from_bytes(*position), row.own()?))).collect()
    }

    /// Notes announcements; on disk with the next flush (a crash repeats announcements, which is harmless).
    pub fn mark_announced(&self, done: &[(Key, u16)], at: UnixTime) {
        let mut trie = self.state.trie.write();
        for (key, confirmed) in done {
            trie.change(key.as_bytes(), |row| {
                row.announced = Some(at.0);
                row.confirmed = *confirmed;
            });
        }
    }

    /// No announcement counts any more: each named another peer. All are due at once. Returns how many there are; on disk,
    /// but for what the `announced` of an older export says. Blocking, 1 s for a million.
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

    /// Announcements to disk; an export when one is due, or something changed and it is the `last` time.
    pub(super) fn flush(&self, last: bool) -> Result<(), StoreError> {
        self.state.flush(last)
    }

    /// Writes what the database does not have, once it was opened anew; all of it where that holds `nothing` now.
    pub(super) fn write_anew(&self, nothing: bool) -> Result<(), StoreError> {
        let _files = self.state.files()?;
        if nothing {
            self.state.trie.write().all_stale();
        }
        self.state.write_stale()
    }

    /// An export now, whether or not one is due.
    pub(super) fn export(&self) -> Result<(), StoreError> {
        let mut files = self.state.files()?;
        self.state.export(&mut files)
    }
}

/// Key and value.
type RawRow = (Vec<u8>, Vec<u8>);

/// All rows that can be read, and why some cannot.
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
