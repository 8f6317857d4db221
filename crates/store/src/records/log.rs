//! The log of provider records: chunks in the order of their keys, which are (seconds, sequence).
//!
//! The database `records/` has these trees for it:
//! - `log`: one row per chunk, which says where in the segments its body lies (`log/segments.rs`);
//! - `peers`: the address book, by number;
//! - `segments`: how far each segment is indexed, that is, up to which byte its chunks have rows;
//! - `meta`: how many peer numbers are reserved.
//!
//! Rows are inserted and removed one by one. sled's `apply_batch` and `transaction` take a lock of the whole process,
//! and look-ups stalled for 3 to 84 ms behind it.

mod chunks;
pub mod segments;
mod survey;

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
pub use chunks::Chunks;
use parking_lot::{Mutex, MutexGuard};
use segments::{Location, Segments, Unindexed};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};
use survey::{Survey, survey};

/// Indexes of the trees of `records/` in [`NAMES`](tree::NAMES).
pub mod tree {
    /// The reservation of peer numbers.
    pub const META: usize = 0;
    /// Rows of chunks.
    pub const LOG: usize = 1;
    /// The address book.
    pub const PEERS: usize = 2;
    /// Values of others. See `store::values`.
    pub const VALUES: usize = 3;
    /// How far each segment is indexed.
    pub const SEGMENTS: usize = 4;
    /// Names of all trees.
    pub const NAMES: [&str; 5] = ["meta", "log", "peers", "values", "segments"];
}

/// Key of a row of `meta`: all peer numbers below its value are given out or reserved.
const RESERVED: &str = "peers-reserved";
/// Stands for "no chunk" in place of a key.
const NONE: u64 = u64::MAX;

/// The log: the database and the segments. It keeps the number of chunks and the oldest and newest key in memory.
#[derive(Debug)]
pub struct Log {
    /// The database `records/`.
    pub database: Database<5>,
    dir: PathBuf,
    /// Locked while a body is appended and its row inserted.
    segments: Mutex<Segments>,
    count: AtomicU64,
    oldest: AtomicU64,
    newest: AtomicU64,
    /// Number of rows without a chunk, found when the log was opened: a crash kept those chunks from the disk.
    unwritten: u64,
}

/// Returns the key of a chunk: its time in the upper half, its sequence number in that second in the lower half.
pub const fn chunk_key(time: u32, sequence: u32) -> u64 {
    (time as u64) << 32 | sequence as u64
}

/// Returns the time of a chunk from its key.
pub const fn chunk_time(key: u64) -> u32 {
    (key >> 32) as u32
}

/// Formats the key of a chunk for messages.
pub fn chunk_name(key: u64) -> String {
    format!("log {}/{}", crate::clock::UnixTime(chunk_time(key)), key as u32)
}

impl Log {
    /// Opens the log in the database `db` of the directory `dir`, with its segments in the directory `segments`.
    /// Removes rows whose chunks never reached the disk because the power failed.
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

    /// Returns the chunks with their bodies, for walks.
    pub fn chunks(&self) -> Chunks<'_> {
        Chunks(self)
    }

    /// Returns the rows of chunks without their bodies, for walks over keys.
    pub fn keys(&self) -> NumberedIn<'_, 8, 5> {
        NumberedIn { database: &self.database, tree: tree::LOG }
    }

    /// Returns the rows of the address book, for walks.
    pub fn peers(&self) -> NumberedIn<'_, 4, 5> {
        NumberedIn { database: &self.database, tree: tree::PEERS }
    }

    /// Reads the oldest and the newest key from the database. A key that cannot be read keeps its value.
    pub fn look_at_ends(&self) {
        // Without the lock a chunk that is appended during this call would be missed.
        let _no_append = self.segments();
        if let Ok(oldest) = self.keys().first(0, u64::MAX) {
            self.oldest.store(oldest.map_or(NONE, |(key, _)| key), Ordering::Relaxed);
        }
        if let Ok(newest) = self.keys().last(0, u64::MAX) {
            self.newest.store(newest.map_or(NONE, |(key, _)| key), Ordering::Relaxed);
        }
    }

    /// Returns the key of the oldest chunk.
    pub fn oldest(&self) -> Option<u64> {
        Some(self.oldest.load(Ordering::Relaxed)).filter(|key| *key != NONE)
    }

    /// Returns the key of the newest chunk.
    pub fn newest(&self) -> Option<u64> {
        Some(self.newest.load(Ordering::Relaxed)).filter(|key| *key != NONE)
    }

    /// Returns the key of the newest chunk that is dated `time` or earlier.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn newest_until(&self, time: UnixTime) -> Result<Option<u64>, StoreError> {
        Ok(self.keys().last(0, chunk_key(time.0, u32::MAX))?.map(|(key, _)| key))
    }

    /// Returns how far each segment is indexed, in bytes.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn ends(&self) -> Result<BTreeMap<u32, u64>, StoreError> {
        let tree = self.database.read(tree::SEGMENTS, |tree| Ok(tree.clone()))?;
        let mut ends = BTreeMap::new();
        // A row that cannot be read counts as missing.
        let _ = each_row(&tree, |key, row| {
            if let (Ok(segment), Ok(end)) = (key.try_into(), codec::decode::<u64>(row)) {
                ends.insert(u32::from_be_bytes(segment), end);
            }
        });
        Ok(ends)
    }

    /// Returns the number of chunks. Chunks that have expired but are not collected yet count.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Returns how many rows were removed at the open because their chunks never reached the disk.
    pub fn unwritten(&self) -> u64 {
        self.unwritten
    }

    /// Writes a chunk of `time` after all others of that second. Returns its key.
    pub fn append(&self, time: u32, chunk: &[u8]) -> Result<u64, StoreError> {
        self.append_to(&mut self.segments(), time, chunk)
    }

    fn append_to(&self, segments: &mut Segments, time: u32, chunk: &[u8]) -> Result<u64, StoreError> {
        // Only sled knows for certain: a key that is given out twice destroys the chunk that had it first.
        let last = self.last_of(time)?;
        let key = last.map_or(chunk_key(time, 0), |key| key + 1);
        self.write(segments, key, chunk)?;
        Ok(key)
    }

    /// Returns the key of the last chunk of a second.
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

    /// Appends a body to a segment.
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

    /// Moves bodies from their rows, where schema 2 kept them, to segments. Syncs all bodies before it changes a row.
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

    /// Inserts the row of a `chunk` that is already in a segment at `location`. If another chunk has its key, because a
    /// run began in the same second, appends the chunk after all others of that second.
    pub fn found(&self, key: u64, location: Location, chunk: &[u8]) -> Result<(), StoreError> {
        let mut segments = self.segments();
        match self.is_free(key, chunk) {
            true => self.point_to(&mut segments, key, location),
            false => self.append_to(&mut segments, chunk_time(key), chunk).map(drop),
        }
    }

    /// Writes a `chunk` again under its old key. The bytes written are `as_here`: the same chunk with the numbers that
    /// its peers have now. Writes it even if the log holds it, since that copy may not be on disk. If another chunk has
    /// the key by now, appends this one after all others of that second.
    pub fn put_back(&self, key: u64, chunk: &[u8], as_here: &[u8]) -> Result<(), StoreError> {
        let mut segments = self.segments();
        match self.is_free(key, chunk) {
            true => self.write(&mut segments, key, as_here),
            false => self.append_to(&mut segments, chunk_time(key), as_here).map(drop),
        }
    }

    /// Returns true unless another chunk can be read under the key. The caller holds the lock of the segments, so the
    /// answer stays true until it writes.
    fn is_free(&self, key: u64, chunk: &[u8]) -> bool {
        !matches!(self.get(key), Ok(Some(held)) if held != chunk && entry::decode(&held).is_ok())
    }

    /// Reads a chunk.
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

    /// Fsyncs everything written before: first the bodies, then the rows that point to them. Then removes the segments
    /// to which no row points. A failure makes the database degraded.
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

    /// Returns the segments that may hold chunks without rows. These are all segments if the database may have `lost`
    /// rows.
    pub fn unindexed(&self, lost: bool) -> Vec<Unindexed> {
        self.segments().unindexed(lost)
    }

    /// Notes that the chunks of a segment without rows have been salvaged.
    pub fn salvaged(&self, segment: u32) {
        self.segments().salvaged(segment);
    }

    /// Notes that the database was reopened. Rows that had not reached the disk are gone, and the next chunk
    /// begins another segment.
    pub fn reopened(&self) -> Result<(), StoreError> {
        let Survey { known, rows, unwritten } = survey(&self.database, &self.dir)?;
        self.segments().reopened(&known);
        self.count.store(rows, Ordering::Relaxed);
        unwritten.into_iter().try_for_each(|key| self.remove(key))?;
        self.look_at_ends();
        Ok(())
    }

    /// Returns an upper bound: all peer numbers in use are below it. `above` is the first number after all known ones.
    /// If the row of the reservation is lost but there are chunks, the bound is far above it.
    pub fn reserved(&self, above: u64) -> u64 {
        let row = self.database.read(tree::META, |tree| tree.get(RESERVED));
        match row.ok().flatten().and_then(|row| codec::decode::<u64>(&row).ok()) {
            Some(reserved) => reserved,
            // Chunks without rows name peers too, but the segments are salvaged only later.
            None if self.oldest().is_some() || !self.unindexed(false).is_empty() => above + LOST_RESERVATION,
            None => 0,
        }
    }

    /// Reserves all peer numbers below `below`.
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

    /// Returns the size of the segments and of the database's files, in bytes. A size that cannot be read counts as 0.
    pub fn bytes(&self) -> u64 {
        self.database.bytes() + self.segments().bytes()
    }

    fn segments(&self) -> MutexGuard<'_, Segments> {
        self.segments.lock()
    }
}

/// Returns the key of the newest chunk of a database that no [`Log`] has opened yet.
///
/// # Errors
/// [`StoreError::Database`].
pub fn newest_chunk(db: &sled::Db) -> Result<Option<u64>, StoreError> {
    let tree = guard(|| db.open_tree(tree::NAMES[tree::LOG]))?;
    Ok(Numbered::<8>(tree).last(0, u64::MAX)?.map(|(key, _)| key))
}

#[cfg(test)]
mod tests;
