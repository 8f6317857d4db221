//! The node's own CIDs, in keyspace order, with when each was last announced.
//!
//! They are what the user asked to keep. So each change is in a journal of its own, fsynced, before it is
//! acknowledged, then in the `node/` database; and now and then in an export. Damage to one of them loses none.

pub(super) mod exports;
pub(super) mod shelf;

use super::{
    StoreError,
    engine::each_row,
    meta::{NodeDb, tree},
    records::entry::position,
    routing::RoutingState,
};
use crate::{
    clock::{Clock, UnixTime},
    kad::{Dht, keyspace::Key},
};
use cid::Cid;
use exports::{Change, Exports};
use shelf::{OwnRow, Position, Shelf, Stale};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

/// An export is due when something changed and the last one is older than this ...
const EXPORT_EVERY: Duration = Duration::from_secs(3600);
/// ... or when the journal is longer than this, in bytes, and than a quarter of the last export: reading it back at
/// start, and writing the export, then cost about the same.
const JOURNAL_BYTES: u64 = 1 << 20;

/// One CID that this node keeps announced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Own {
    /// As last given.
    pub cid: Cid,
    /// When it was first given.
    pub added: UnixTime,
    /// The last announcement, if any.
    pub announced: Option<UnixTime>,
    /// Servers that confirmed the last announcement.
    pub confirmed: u16,
}

/// Our own CIDs. Cheap to clone. One per multihash: the codec last given is kept for display.
#[derive(Clone, Debug)]
pub struct Provided {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shelf: RwLock<Shelf>,
    /// One writer at a time, journal before memory before database.
    disk: Mutex<Disk>,
    node: NodeDb,
    routing: RoutingState,
    clock: Arc<dyn Clock>,
    limit: usize,
}

#[derive(Debug)]
struct Disk {
    exports: Exports,
    /// Something changed since the last export.
    changed: bool,
    exported: Option<Duration>,
    routing_saves: u64,
    read_only: bool,
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
        let mut shelf =
            Shelf::load(rows.into_iter(), |key, why| notes.push(format!("own CIDs of {key:02x?} are damaged: {why}")));
        // Damage can take sled back to an earlier state that is sound in itself.
        let is_behind = node.meta.exported().unwrap_or(0) < exports::newest(&opening.exports);
        let is_complete = node.meta.own() == Some(shelf.len() as u64);
        let whole = !opening.lossy && notes.is_empty() && is_complete && !is_behind;
        let restored = exports::read(&opening.exports, !whole);
        notes.extend(if whole { Vec::new() } else { restored.notes });
        let damaged = opening.lossy || !notes.is_empty();
        let (mut from_export, mut from_journal) = (0, 0);
        for (position, row) in restored.own {
            let removed_since = matches!(restored.journal.get(&position), Some(None));
            if !removed_since && shelf.get(&position).is_none() {
                from_export += u64::from(shelf.put(position, row));
            }
        }
        for (position, last_word) in restored.journal {
            match last_word {
                Some(row) if shelf.get(&position).is_none() => from_journal += u64::from(shelf.put(position, row)),
                Some(_) => {}
                None => drop(shelf.take(&position)),
            }
        }
        match from_export + from_journal {
            0 => {}
            // A kill came after the journal and before the database: that is what the journal is for.
            back if !damaged && from_export == 0 => tracing::info!(cids = back, "own CIDs taken over from the journal"),
            back => notes.push(format!("{back} own CIDs restored from exports/")),
        }
        if !whole {
            notes.extend(restore_routing(&routing, restored.routing));
        }
        let disk = Disk {
            exports: Exports::open(opening.exports),
            changed: false,
            exported: None,
            routing_saves: routing.saves(),
            read_only: opening.read_only,
        };
        let inner =
            Inner { shelf: RwLock::new(shelf), disk: Mutex::new(disk), node, routing, clock, limit: opening.limit };
        let provided = Self { inner: Arc::new(inner) };
        if !opening.read_only {
            provided.inner.write_stale()?;
        }
        Ok((provided, notes))
    }

    /// Returns once they are flushed to disk: how many are new. All or none.
    ///
    /// # Errors
    /// [`StoreError::Full`] beyond `reprovide.max_cids`; [`StoreError::Io`] if the journal cannot be written.
    pub async fn add(&self, cids: Vec<Cid>) -> Result<usize, StoreError> {
        let inner = self.inner.clone();
        super::blocking(move || inner.add(&cids)).await
    }

    /// Own CIDs of a dump, with their times; of one that is there the later announcement counts. Returns once they are
    /// flushed to disk: for each whether it was news. All or none. Blocking.
    ///
    /// # Errors
    /// As [`Provided::add`].
    pub(super) fn load(&self, own: &[Own]) -> Result<Vec<bool>, StoreError> {
        self.inner.load(own)
    }

    /// Returns once flushed: how many were there.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the journal cannot be written.
    pub async fn remove(&self, multihashes: Vec<Vec<u8>>) -> Result<usize, StoreError> {
        let inner = self.inner.clone();
        super::blocking(move || inner.remove(multihashes)).await
    }

    /// The own CID of a multihash.
    pub fn get(&self, multihash: &[u8]) -> Option<Own> {
        self.inner.shelf().get(&position(multihash)).and_then(own)
    }

    /// Whether we provide it.
    pub fn contains(&self, multihash: &[u8]) -> bool {
        self.inner.shelf().get(&position(multihash)).is_some()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.inner.shelf().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Up to `limit` in keyspace order, from `from` on.
    pub fn range(&self, from: &Key, limit: usize) -> Vec<(Key, Own)> {
        let shelf = self.inner.shelf();
        let rows = shelf.from(from.as_bytes()).take(limit);
        rows.filter_map(|(position, row)| Some((Key::from_bytes(*position), own(row)?))).collect()
    }

    /// Notes announcements; on disk with the next flush (a crash repeats announcements, which is harmless).
    pub fn mark_announced(&self, done: &[(Key, u16)], at: UnixTime) {
        let mut shelf = self.inner.shelf.write().unwrap_or_else(PoisonError::into_inner);
        for (key, confirmed) in done {
            shelf.change(key.as_bytes(), |row| {
                row.announced = Some(at.0);
                row.confirmed = *confirmed;
            });
        }
    }

    /// Announcements to disk; an export when one is due, or something changed and it is the `last` time.
    pub(super) fn flush(&self, last: bool) -> Result<(), StoreError> {
        self.inner.flush(last)
    }

    /// Writes what the database does not have, once it was opened anew; all of it where that holds `nothing` now.
    pub(super) fn write_anew(&self, nothing: bool) -> Result<(), StoreError> {
        let _disk = self.inner.disk()?;
        if nothing {
            self.inner.shelf.write().unwrap_or_else(PoisonError::into_inner).all_stale();
        }
        self.inner.write_stale()
    }

    /// An export now, whether or not one is due.
    pub(super) fn export(&self) -> Result<(), StoreError> {
        let mut disk = self.inner.disk()?;
        self.inner.export(&mut disk)
    }
}

impl Inner {
    fn shelf(&self) -> std::sync::RwLockReadGuard<'_, Shelf> {
        self.shelf.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk(&self) -> Result<MutexGuard<'_, Disk>, StoreError> {
        let disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        match disk.read_only {
            true => Err(StoreError::Database("opened for reading only".into())),
            false => Ok(disk),
        }
    }

    fn add(&self, cids: &[Cid]) -> Result<usize, StoreError> {
        let mut disk = self.disk()?;
        let now = self.clock.wall().0;
        let mut put: BTreeMap<Position, OwnRow> = BTreeMap::new();
        let mut new = 0;
        {
            let shelf = self.shelf();
            for cid in cids {
                let (position, bytes) = (position(&cid.hash().to_bytes()), cid.to_bytes().into_boxed_slice());
                let known = put.get(&position).or_else(|| shelf.get(&position));
                if known.is_some_and(|row| row.cid == bytes) {
                    continue;
                }
                new += usize::from(known.is_none());
                let row = OwnRow { cid: bytes, added: now, announced: None, confirmed: 0 };
                let row = known.map_or(row.clone(), |known| OwnRow { cid: row.cid, ..known.clone() });
                put.insert(position, row);
            }
            if shelf.len() + new > self.limit && new > 0 {
                return Err(StoreError::Full { what: "own CIDs", limit: self.limit });
            }
        }
        self.put(&mut disk, put)?;
        Ok(new)
    }

    fn load(&self, own: &[Own]) -> Result<Vec<bool>, StoreError> {
        let mut disk = self.disk()?;
        let mut put: BTreeMap<Position, OwnRow> = BTreeMap::new();
        let mut new = 0;
        let mut news = Vec::with_capacity(own.len());
        {
            let shelf = self.shelf();
            for own in own {
                let position = position(&own.cid.hash().to_bytes());
                let known = put.get(&position).or_else(|| shelf.get(&position));
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
            if shelf.len() + new > self.limit && new > 0 {
                return Err(StoreError::Full { what: "own CIDs", limit: self.limit });
            }
        }
        self.put(&mut disk, put)?;
        Ok(news)
    }

    /// Journal, memory, database.
    fn put(&self, disk: &mut Disk, put: BTreeMap<Position, OwnRow>) -> Result<(), StoreError> {
        if put.is_empty() {
            return Ok(());
        }
        let rows: Vec<OwnRow> = put.values().cloned().collect();
        disk.exports.append(&Change::Put(&rows))?;
        {
            let mut shelf = self.shelf.write().unwrap_or_else(PoisonError::into_inner);
            for (position, row) in put {
                shelf.put(position, row);
            }
        }
        self.changed(disk);
        Ok(())
    }

    fn remove(&self, multihashes: Vec<Vec<u8>>) -> Result<usize, StoreError> {
        let mut disk = self.disk()?;
        let known: Vec<Vec<u8>> = {
            let shelf = self.shelf();
            multihashes.into_iter().filter(|m| shelf.get(&position(m)).is_some()).collect()
        };
        if known.is_empty() {
            return Ok(0);
        }
        disk.exports.append(&Change::Take(&known))?;
        let removed = {
            let mut shelf = self.shelf.write().unwrap_or_else(PoisonError::into_inner);
            known.iter().filter(|m| shelf.take(&position(m)).is_some()).count()
        };
        self.changed(&mut disk);
        Ok(removed)
    }

    /// The journal has the change, which is safe; now the database. If that fails, the journal brings it back at the
    /// next start, and it is not the caller's trouble.
    fn changed(&self, disk: &mut Disk) {
        disk.changed = true;
        let outcome = self.write_stale().and_then(|()| self.export_if_due(disk));
        if let Err(error) = outcome {
            self.node.database.health.failed("write own CIDs", &error, self.clock.monotonic());
        }
    }

    fn flush(&self, last: bool) -> Result<(), StoreError> {
        let mut disk = self.disk()?;
        self.write_stale()?;
        match last && (disk.changed || disk.routing_saves != self.routing.saves()) {
            true => self.export(&mut disk),
            false => self.export_if_due(&mut disk),
        }
    }

    /// Chunks that changed to the database, flushed. The caller holds `disk`, so that this is the only one.
    fn write_stale(&self) -> Result<(), StoreError> {
        let (stale, own) = {
            let mut shelf = self.shelf.write().unwrap_or_else(PoisonError::into_inner);
            (shelf.take_stale()?, shelf.len() as u64)
        };
        let written = self.write(&stale, own);
        if written.is_err() {
            self.shelf.write().unwrap_or_else(PoisonError::into_inner).put_back(stale);
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

    fn export_if_due(&self, disk: &mut Disk) -> Result<(), StoreError> {
        let saves = self.routing.saves();
        if !disk.changed && disk.routing_saves == saves {
            return Ok(());
        }
        let old = match disk.exported {
            Some(at) => self.clock.monotonic().saturating_sub(at) >= EXPORT_EVERY,
            None => true,
        };
        let long = disk.exports.export_bytes().unwrap_or(0).max(4 * JOURNAL_BYTES) / 4;
        match old || disk.exports.journal_bytes() > long {
            true => self.export(disk),
            false => Ok(()),
        }
    }

    fn export(&self, disk: &mut Disk) -> Result<(), StoreError> {
        disk.routing_saves = self.routing.saves();
        let routing: Vec<_> = Dht::ALL.into_iter().map(|dht| (dht, self.routing.load(dht))).collect();
        let shelf = self.shelf();
        let own = shelf.from(&[0; 32]).map(|(_, row)| row);
        let generation = disk.exports.export(self.clock.wall(), own, &routing)?;
        drop(shelf);
        self.node.meta.set_exported(generation)?;
        disk.changed = false;
        disk.exported = Some(self.clock.monotonic());
        Ok(())
    }
}

fn own(row: &OwnRow) -> Option<Own> {
    let cid = Cid::try_from(&*row.cid).ok()?;
    Some(Own { cid, added: UnixTime(row.added), announced: row.announced.map(UnixTime), confirmed: row.confirmed })
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

fn restore_routing(routing: &RoutingState, saved: BTreeMap<String, Vec<super::routing::SavedPeer>>) -> Option<String> {
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
