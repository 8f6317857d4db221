//! Changes to own CIDs. There is one writer at a time. It changes the journal first, then memory, then the database.
//! From time to time it writes an export.

use super::{
    exports::{Change, Exports},
    own::{Own, OwnRow, Position},
    trie::{Stale, Trie},
};
use crate::{
    StoreError,
    clock::Clock,
    kad::Dht,
    meta::{NodeDb, tree},
    records::entry::position,
    routing::RoutingState,
};
use cid::CidGeneric;
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// An export is due when something changed and the last one is older than this ...
const EXPORT_EVERY: Duration = Duration::from_secs(3600);
/// ... or when the journal is longer than this, in bytes, and longer than a quarter of the last export. Then reading
/// the journal at a start costs about as much as writing an export.
const JOURNAL_BYTES: u64 = 1 << 20;

/// What the clones of [`super::Provided`] share.
#[derive(Debug)]
pub struct ProvidedState {
    pub trie: RwLock<Trie>,
    /// Held by the writer: there is one at a time.
    pub files: Mutex<OwnFiles>,
    pub node: NodeDb,
    pub routing: RoutingState,
    pub clock: Arc<dyn Clock>,
    pub limit: usize,
}

/// Exports and journal, and whether an export is out of date.
#[derive(Debug)]
pub struct OwnFiles {
    pub exports: Exports,
    /// True if something changed since the last export.
    pub changed: bool,
    pub exported: Option<Duration>,
    pub routing_saves: u64,
    pub read_only: bool,
}

impl ProvidedState {
    pub(super) fn trie(&self) -> RwLockReadGuard<'_, Trie> {
        self.trie.read()
    }

    pub(super) fn files(&self) -> Result<MutexGuard<'_, OwnFiles>, StoreError> {
        let files = self.files.lock();
        match files.read_only {
            true => Err(StoreError::Database("the store was opened for reading only".into())),
            false => Ok(files),
        }
    }

    pub(super) fn add<const S: usize>(&self, cids: &[CidGeneric<S>]) -> Result<usize, StoreError> {
        let mut files = self.files()?;
        let now = self.clock.wall().0;
        let mut put: BTreeMap<Position, OwnRow> = BTreeMap::new();
        let mut new = 0;
        {
            let trie = self.trie();
            for cid in cids {
                let (position, bytes) = (position(&cid.hash().to_bytes()), cid.to_bytes().into_boxed_slice());
                let known = put.get(&position).or_else(|| trie.get(&position));
                if known.is_some_and(|row| row.cid == bytes) {
                    continue;
                }
                new += usize::from(known.is_none());
                let row = OwnRow { cid: bytes, added: now, announced: None, confirmed: 0 };
                let row = known.map_or(row.clone(), |known| OwnRow { cid: row.cid, ..known.clone() });
                put.insert(position, row);
            }
            if trie.len() + new > self.limit && new > 0 {
                return Err(StoreError::Full { what: "own CIDs", limit: self.limit });
            }
        }
        self.put(&mut files, put)?;
        Ok(new)
    }

    pub(super) fn load(&self, own: &[Own]) -> Result<Vec<bool>, StoreError> {
        let mut files = self.files()?;
        let mut put: BTreeMap<Position, OwnRow> = BTreeMap::new();
        let mut new = 0;
        let mut news = Vec::with_capacity(own.len());
        {
            let trie = self.trie();
            for own in own {
                let position = position(&own.cid.hash().to_bytes());
                let known = put.get(&position).or_else(|| trie.get(&position));
                let announced = own.announced.map(|time| time.0);
                let is_news = known.is_none_or(|known| known.announced < announced);
                news.push(is_news);
                if !is_news {
                    continue;
                }
                new += usize::from(known.is_none());
                let row = match known {
                    Some(known) => OwnRow { announced, confirmed: own.confirmed, ..known.clone() },
                    None => {
                        let cid = own.cid.to_bytes().into_boxed_slice();
                        OwnRow { cid, added: own.added.0, announced, confirmed: own.confirmed }
                    }
                };
                put.insert(position, row);
            }
            if trie.len() + new > self.limit && new > 0 {
                return Err(StoreError::Full { what: "own CIDs", limit: self.limit });
            }
        }
        self.put(&mut files, put)?;
        Ok(news)
    }

    /// Writes to the journal, to memory and to the database.
    fn put(&self, files: &mut OwnFiles, put: BTreeMap<Position, OwnRow>) -> Result<(), StoreError> {
        if put.is_empty() {
            return Ok(());
        }
        let rows: Vec<OwnRow> = put.values().cloned().collect();
        files.exports.append(&Change::Put(&rows))?;
        {
            let mut trie = self.trie.write();
            for (position, row) in put {
                trie.put(position, row);
            }
        }
        self.changed(files);
        Ok(())
    }

    pub(super) fn remove(&self, multihashes: Vec<Vec<u8>>) -> Result<usize, StoreError> {
        let mut files = self.files()?;
        let known: Vec<Vec<u8>> = {
            let trie = self.trie();
            multihashes.into_iter().filter(|m| trie.get(&position(m)).is_some()).collect()
        };
        if known.is_empty() {
            return Ok(0);
        }
        files.exports.append(&Change::Take(&known))?;
        let removed = {
            let mut trie = self.trie.write();
            known.iter().filter(|m| trie.take(&position(m)).is_some()).count()
        };
        self.changed(&mut files);
        Ok(removed)
    }

    /// Writes a change, which is safe in the journal, to the database. The caller gets no error if that fails: the next
    /// start takes the change from the journal.
    fn changed(&self, files: &mut OwnFiles) {
        files.changed = true;
        let outcome = self.write_stale().and_then(|()| self.export_if_due(files));
        if let Err(error) = outcome {
            self.node.database.health.failed("write own CIDs", &error, self.clock.monotonic());
        }
    }

    pub(super) fn flush(&self, last: bool) -> Result<(), StoreError> {
        let mut files = self.files()?;
        self.write_stale()?;
        match last && (files.changed || files.routing_saves != self.routing.saves()) {
            true => self.export(&mut files),
            false => self.export_if_due(&mut files),
        }
    }

    /// Writes leaves that changed to the database and flushes it. The caller holds `files`, so that only one call runs
    /// at a time.
    pub(super) fn write_stale(&self) -> Result<(), StoreError> {
        let (stale, own) = {
            let mut trie = self.trie.write();
            (trie.take_stale()?, trie.len() as u64)
        };
        let written = self.write(&stale, own);
        if written.is_err() {
            self.trie.write().put_back(stale);
        }
        written
    }

    fn write(&self, stale: &Stale, own: u64) -> Result<(), StoreError> {
        for (key, value) in &stale.rows {
            let _before = match value {
                Some(value) => self.node.database.write(tree::PROVIDED, |tree| tree.insert(key, value.as_slice()))?,
                None => self.node.database.write(tree::PROVIDED, |tree| tree.remove(key))?,
            };
        }
        if !stale.rows.is_empty() {
            self.node.meta.set_own(own)?;
        }
        self.node.flush()
    }

    fn export_if_due(&self, files: &mut OwnFiles) -> Result<(), StoreError> {
        let saves = self.routing.saves();
        if !files.changed && files.routing_saves == saves {
            return Ok(());
        }
        let old = match files.exported {
            Some(at) => self.clock.monotonic().saturating_sub(at) >= EXPORT_EVERY,
            None => true,
        };
        let long = files.exports.export_bytes().unwrap_or(0).max(4 * JOURNAL_BYTES) / 4;
        match old || files.exports.journal_bytes() > long {
            true => self.export(files),
            false => Ok(()),
        }
    }

    pub(super) fn export(&self, files: &mut OwnFiles) -> Result<(), StoreError> {
        files.routing_saves = self.routing.saves();
        let routing: Vec<_> = Dht::ALL.into_iter().map(|dht| (dht, self.routing.load(dht))).collect();
        let trie = self.trie();
        let own = trie.from(&[0; 32]).map(|(_, row)| row);
        let generation = files.exports.export(self.clock.wall(), own, &routing)?;
        drop(trie);
        self.node.meta.set_exported(generation)?;
        files.changed = false;
        files.exported = Some(self.clock.monotonic());
        Ok(())
    }
}
