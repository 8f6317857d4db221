//! The log of provider records: chunks by (seconds, sequence). sled has a row for each in the tree `log` of `records/`
//! that says where its body lies (`log/segments.rs`); beside it the trees `peers`, the address book by number, `segments`,
//! how far sled knows each segment, and `meta`, the reservation of numbers.
//!
//! Rows are inserted and removed one by one: sled's `apply_batch` and `transaction` take a lock of the whole process,
//! and look-ups stalled for 3 to 84 ms behind it.

pub mod segments;

use super::{
    book::{LOST_RESERVATION, PeerRow},
    entry,
};
use crate::clock::UnixTime;
use crate::{
    StoreError, codec,
    database::{Database, NumberedIn},
    engine::{Numbered, Rows, each_row, guard},
};
use parking_lot::{Mutex, MutexGuard};
use segments::{Location, Segments, Unindexed};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// The trees of `records/` by their places.
pub mod tree {
    /// The reservation of numbers.
    pub const META: usize = 0;
    /// Chunks.
    pub const LOG: usize = 1;
    /// The address book.
    pub const PEERS: usize = 2;
    /// See `store::values`.
    pub const VALUES: usize = 3;
    /// Segments.
    pub const SEGMENTS: usize = 4;
    /// All of them.
    pub const NAMES: [&str; 5] = ["meta", "log", "peers", "values", "segments"];
}

/// Row of `meta`: numbers of peers below are given out or reserved.
const RESERVED: &str = "peers-reserved";
/// No chunk.
const NONE: u64 = u64::MAX;
/// A chunk that cannot be read is looked up again so often: GC may have removed it between row and body.
const READ_TRIES: u32 = 3;

/// The database and the segments, and what is known of the log without asking them.
#[derive(Debug)]
pub struct Log {
    /// The database.
    pub database: Database<5>,
    dir: PathBuf,
    /// Held while a body is appended and its row inserted.
    segments: Mutex<Segments>,
    count: AtomicU64,
    oldest: AtomicU64,
    newest: AtomicU64,
    /// Rows of chunks that a crash kept from the disk, found when the log was opened.
    unwritten: u64,
}

/// The key of a chunk, as a number.
pub const fn chunk_key(time: u32, sequence: u32) -> u64 {
    (time as u64) << 32 | sequence as u64
}

/// The time of a chunk, from its key.
pub const fn chunk_time(key: u64) -> u32 {
    (key >> 32) as u32
}

/// A chunk's key, as messages show it.
pub fn chunk_name(key: u64) -> String {
    format!("log {}/{}", crate::clock::UnixTime(chunk_time(key)), key as u32)
}

impl Log {
    /// Opens the trees of `db`, which lies in `dir`; segments are in `segments`. Rows whose chunks never came to the disk,
    /// because the power failed, are removed.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn open(db: sled::Db, dir: PathBuf, segments: PathBuf) -> Result<Self, StoreError> {
        let database = Database::new(db, dir, tree::NAMES)?;
        let Survey { known, rows, unwritten } = survey(&database, &segments)?;
        let log = Self {
            segments: Mutex::new(Segments::open(segments.clone(), &known)),
            dir: segments,
            database,
            count: AtomicU64::new(rows),
            oldest: AtomicU64::new(NONE),
            newest: AtomicU64::new(NONE),
            unwritten: unwritten.len() as u64,
        };
        for key in unwritten {
            log.remove(key)?;
        }
        log.look_at_ends();
        Ok(log)
    }

    /// Chunks with their bodies, for walks.
    pub fn chunks(&self) -> Chunks<'_> {
        Chunks(self)
    }

    /// Chunks without their bodies, for walks.
    pub fn keys(&self) -> NumberedIn<'_, 8, 5> {
        NumberedIn { database: &self.database, tree: tree::LOG }
    }

    /// The address book, for walks.
    pub fn peers(&self) -> NumberedIn<'_, 4, 5> {
        NumberedIn { database: &self.database, tree: tree::PEERS }
    }

    /// Reads again which chunk is the oldest and which the newest. What cannot be read stays as it was.
    pub fn look_at_ends(&self) {
        // Else a chunk that is appended meanwhile would not count.
        let _no_append = self.segments();
        if let Ok(oldest) = self.keys().first(0, u64::MAX) {
            self.oldest.store(oldest.map_or(NONE, |(key, _)| key), Ordering::Relaxed);
        }
        if let Ok(newest) = self.keys().last(0, u64::MAX) {
            self.newest.store(newest.map_or(NONE, |(key, _)| key), Ordering::Relaxed);
        }
    }

    /// Key of the oldest chunk.
    pub fn oldest(&self) -> Option<u64> {
        Some(self.oldest.load(Ordering::Relaxed)).filter(|key| *key != NONE)
    }

    /// Key of the newest chunk.
    pub fn newest(&self) -> Option<u64> {
        Some(self.newest.load(Ordering::Relaxed)).filter(|key| *key != NONE)
    }

    /// Key of the newest chunk that is not dated later than `time`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn newest_until(&self, time: UnixTime) -> Result<Option<u64>, StoreError> {
        Ok(self.keys().last(0, chunk_key(time.0, u32::MAX))?.map(|(key, _)| key))
    }

    /// How far sled knows each segment, in bytes.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn ends(&self) -> Result<BTreeMap<u32, u64>, StoreError> {
        let tree = self.database.read(tree::SEGMENTS, |tree| Ok(tree.clone()))?;
        let mut ends = BTreeMap::new();
        // What cannot be read is as unknown as what is not there.
        let _ = each_row(&tree, |key, row| {
            if let (Ok(segment), Ok(end)) = (key.try_into(), codec::decode::<u64>(row)) {
                ends.insert(u32::from_be_bytes(segment), end);
            }
        });
        Ok(ends)
    }

    /// Chunks, those that have expired and are not collected yet included.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Rows of chunks that were never on disk, removed when the log was opened.
    pub fn unwritten(&self) -> u64 {
        self.unwritten
    }

    /// Writes a chunk of `time`, behind all others of that second. Its key.
    pub fn append(&self, time: u32, chunk: &[u8]) -> Result<u64, StoreError> {
        self.append_to(&mut self.segments(), time, chunk)
    }

    fn append_to(&self, segments: &mut Segments, time: u32, chunk: &[u8]) -> Result<u64, StoreError> {
        // What sled says, and nothing else: a key that is given twice costs the chunk that had it.
        let last = self.last_of(time)?;
        let key = last.map_or(chunk_key(time, 0), |key| key + 1);
        self.write(segments, key, chunk)?;
        Ok(key)
    }

    /// The last chunk of a second.
    fn last_of(&self, time: u32) -> Result<Option<u64>, StoreError> {
        let last = self.keys().last(chunk_key(time, 0), chunk_key(time, u32::MAX))?;
        Ok(last.map(|(key, _)| key))
    }

    fn write(&self, segments: &mut Segments, key: u64, chunk: &[u8]) -> Result<(), StoreError> {
        let location = self.store(segments, key, chunk)?;
        self.point_to(segments, key, location)?;
        segments.indexed();
        Ok(())
    }

    /// Appends a body.
    fn store(&self, segments: &mut Segments, key: u64, chunk: &[u8]) -> Result<Location, StoreError> {
        let entries = entry::decode(chunk).map_err(|e| StoreError::Database(e.into()))?;
        let peers = entries.iter().map(|entry| entry.peer);
        let row = |id: u32| {
            let row = self.database.read(tree::PEERS, |tree| tree.get(Numbered::<4>::key(id.into())));
            row.ok().flatten().map(|row| row.to_vec())
        };
        segments.append(key, chunk, peers, row).inspect_err(|error| self.database.fault(error))
    }

    fn point_to(&self, segments: &mut Segments, key: u64, location: Location) -> Result<(), StoreError> {
        let row = location.to_row()?;
        let before = self.database.write(tree::LOG, |tree| tree.insert(Numbered::<8>::key(key), row))?;
        segments.pointed(location.segment);
        match before {
            Some(before) => {
                if let Ok(Some(before)) = Location::of_row(&before) {
                    segments.unpointed(before.segment);
                }
            }
            None => drop(self.count.fetch_add(1, Ordering::Relaxed)),
        }
        self.oldest.fetch_min(key, Ordering::Relaxed);
        let newer = |newest| (newest == NONE || newest < key).then_some(key);
        let _ = self.newest.fetch_update(Ordering::Relaxed, Ordering::Relaxed, newer);
        Ok(())
    }

    /// Moves bodies out of their rows, where schema 2 had them: first all bodies, synced, then the rows.
    pub fn move_out(&self, chunks: &[(u64, Vec<u8>)]) -> Result<(), StoreError> {
        let mut segments = self.segments();
        let stored = chunks.iter().map(|(key, chunk)| self.store(&mut segments, *key, chunk).map(|at| (*key, at)));
        let stored: Vec<_> = stored.collect::<Result<_, _>>()?;
        segments.take_unsynced().sync(&self.dir)?;
        for (key, location) in stored {
            self.point_to(&mut segments, key, location)?;
        }
        segments.indexed();
        Ok(())
    }

    /// The row of a `chunk` that is in a segment already. If a run that began in the same second has given its key to
    /// another chunk, it is written behind all of that second.
    pub fn found(&self, key: u64, location: Location, chunk: &[u8]) -> Result<(), StoreError> {
        let mut segments = self.segments();
        match self.is_free(key, chunk) {
            true => self.point_to(&mut segments, key, location),
            false => self.append_to(&mut segments, chunk_time(key), chunk).map(drop),
        }
    }

    /// Writes a `chunk` under the key that it had, `as_here`, since its peers may have other numbers now; also where it is
    /// there, which may not be on disk. If another chunk has its key by now, behind all of that second.
    pub fn put_back(&self, key: u64, chunk: &[u8], as_here: &[u8]) -> Result<(), StoreError> {
        let mut segments = self.segments();
        match self.is_free(key, chunk) {
            true => self.write(&mut segments, key, as_here),
            false => self.append_to(&mut segments, chunk_time(key), as_here).map(drop),
        }
    }

    /// Whether no chunk but this one can be read under the key: it stays so as long as the lock of the segments is held.
    fn is_free(&self, key: u64, chunk: &[u8]) -> bool {
        !matches!(self.get(key), Ok(Some(held)) if held != chunk && entry::decode(&held).is_ok())
    }

    /// A chunk.
    pub fn get(&self, key: u64) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.chunks().first(key, key)?.map(|(_, chunk)| chunk))
    }

    /// Removes a chunk.
    pub fn remove(&self, key: u64) -> Result<(), StoreError> {
        let removed = self.database.write(tree::LOG, |tree| tree.remove(Numbered::<8>::key(key)))?;
        let Some(row) = removed else { return Ok(()) };
        if let Ok(Some(location)) = Location::of_row(&row) {
            self.segments().unpointed(location.segment);
        }
        let less = |n: u64| n.checked_sub(1);
        let _ = self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        Ok(())
    }

    /// Everything written before to disk, fsynced: bodies first, then the rows that point to them; then segments that no
    /// row points to are removed. After a failure the database is degraded.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Io`], [`StoreError::Degraded`].
    pub fn flush(&self) -> Result<(), StoreError> {
        let unsynced = self.segments().take_unsynced();
        let outcome = unsynced.sync(&self.dir).inspect_err(|error| self.database.fault(error));
        let outcome = outcome.and_then(|()| {
            let row = |end: u64| codec::encode(&end).map_err(|e| StoreError::Database(e.into()));
            for (segment, end) in &unsynced.ends {
                let (key, row) = (Numbered::<4>::key(u64::from(*segment)), row(*end)?);
                self.database.write(tree::SEGMENTS, |tree| tree.insert(key, row))?;
            }
            self.database.flush()
        });
        if let Err(error) = outcome {
            self.segments().give_up();
            return Err(error);
        }
        let removed = self.segments().synced(&unsynced);
        for segment in removed {
            let key = Numbered::<4>::key(u64::from(segment));
            self.database.write(tree::SEGMENTS, |tree| tree.remove(key))?;
        }
        Ok(())
    }

    /// Segments with chunks that sled does not know; all of them, if it may have `lost` rows that it had.
    pub fn unindexed(&self, lost: bool) -> Vec<Unindexed> {
        self.segments().unindexed(lost)
    }

    /// What sled did not know of a segment has been salvaged.
    pub fn salvaged(&self, segment: u32) {
        self.segments().salvaged(segment);
    }

    /// The database was opened anew: rows that had not come to the disk are gone. The next chunk begins another segment.
    pub fn reopened(&self) -> Result<(), StoreError> {
        let Survey { known, rows, unwritten } = survey(&self.database, &self.dir)?;
        self.segments().reopened(&known);
        self.count.store(rows, Ordering::Relaxed);
        unwritten.into_iter().try_for_each(|key| self.remove(key))?;
        self.look_at_ends();
        Ok(())
    }

    /// Numbers below the answer may be in use. When the row is lost but chunks are there, far above all that is known.
    pub fn reserved(&self, above: u64) -> u64 {
        let row = self.database.read(tree::META, |tree| tree.get(RESERVED));
        match row.ok().flatten().and_then(|row| codec::decode::<u64>(&row).ok()) {
            Some(reserved) => reserved,
            // Segments name them too, and are looked through only later.
            None if self.oldest().is_some() || !self.unindexed(false).is_empty() => above + LOST_RESERVATION,
            None => 0,
        }
    }

    /// Reserves numbers below.
    pub fn reserve(&self, below: u64) -> Result<(), StoreError> {
        let row = codec::encode(&below).map_err(|e| StoreError::Database(e.into()))?;
        self.database.write(tree::META, |tree| tree.insert(RESERVED, row))?;
        Ok(())
    }

    /// Writes the row of a peer.
    pub fn put_peer(&self, id: u32, row: &PeerRow) -> Result<(), StoreError> {
        let row = codec::encode(row).map_err(|e| StoreError::Database(e.into()))?;
        self.database.write(tree::PEERS, |tree| tree.insert(Numbered::<4>::key(u64::from(id)), row)).map(|_| ())
    }

    /// Removes the row of a peer.
    pub fn remove_peer(&self, id: u32) -> Result<(), StoreError> {
        self.database.write(tree::PEERS, |tree| tree.remove(Numbered::<4>::key(u64::from(id)))).map(|_| ())
    }

    /// Bytes of segments and of the database's files; 0 if they cannot be told.
    pub fn bytes(&self) -> u64 {
        self.database.bytes() + self.segments().bytes()
    }

    fn segments(&self) -> MutexGuard<'_, Segments> {
        self.segments.lock()
    }
}

/// What sled knows when it is opened.
struct Survey {
    /// ... of each segment.
    known: segments::SegmentRows,
    /// Rows of chunks.
    rows: u64,
    /// Keys of those whose chunks are not there because they never were.
    unwritten: Vec<u64>,
}

fn survey(database: &Database<5>, dir: &Path) -> Result<Survey, StoreError> {
    let mut known = segments::SegmentRows::new();
    let (ends, rows) = [tree::SEGMENTS, tree::LOG].map(|tree| database.read(tree, |tree| Ok(tree.clone()))).into();
    let number = |key: &[u8]| Some(u32::from_be_bytes(key.try_into().ok()?));
    // What cannot be read is told by replay.
    let _ = each_row(&ends?, |key, row| {
        if let (Some(segment), Ok(end)) = (number(key), codec::decode::<u64>(row)) {
            known.insert(segment, (0, Some(end)));
        }
    });
    let (mut count, mut unwritten) = (0, Vec::new());
    let _ = each_row(&rows?, |key, row| {
        count += 1;
        let (Ok(Some(location)), Ok(key)) = (Location::of_row(row), key.try_into()) else { return };
        let (key, known) = (u64::from_be_bytes(key), known.entry(location.segment).or_default());
        known.0 += 1;
        if segments::may_be_unwritten(location, known.1) && segments::is_absent(&segments::read(dir, key, location)) {
            unwritten.push(key);
        }
    });
    Ok(Survey { known, rows: count, unwritten })
}

/// The chunks of a log, for walks.
#[derive(Debug)]
pub struct Chunks<'a>(&'a Log);

impl Chunks<'_> {
    /// The body of the chunk that `row` finds.
    fn with_body(
        &self,
        row: impl Fn() -> Result<Option<(u64, sled::IVec)>, StoreError>,
    ) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let mut tries = 1;
        loop {
            let Some((key, found)) = row()? else { return Ok(None) };
            let Some(location) = Location::of_row(&found)? else { return Ok(Some((key, found.to_vec()))) };
            match segments::read(&self.0.dir, key, location) {
                Ok(chunk) => return Ok(Some((key, chunk))),
                // Unless it is another one by now.
                Err(error) if tries >= READ_TRIES || row()?.is_some_and(|again| again == (key, found)) => {
                    return Err(error);
                }
                Err(_) => tries += 1,
            }
        }
    }
}

impl Rows for Chunks<'_> {
    type Value = Vec<u8>;

    fn first(&self, from: u64, to: u64) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        self.with_body(|| self.0.keys().first(from, to))
    }

    fn last(&self, from: u64, to: u64) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        self.with_body(|| self.0.keys().last(from, to))
    }
}

/// Key of the newest chunk of a database that nobody uses yet.
///
/// # Errors
/// [`StoreError::Database`].
pub fn newest_chunk(db: &sled::Db) -> Result<Option<u64>, StoreError> {
    let tree = guard(|| db.open_tree(tree::NAMES[tree::LOG]))?;
    Ok(Numbered::<8>(tree).last(0, u64::MAX)?.map(|(key, _)| key))
}

#[cfg(test)]
mod tests;
