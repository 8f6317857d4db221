//! The `records/` database: tree `log`, chunks by (seconds, sequence); tree `peers`, the address book by number; tree
//! `meta`, the reservation of numbers.
//!
//! Rows are inserted and removed one by one: sled's `apply_batch` and `transaction` take a lock of the whole process,
//! and look-ups stalled for 3 to 84 ms behind it.

use super::book::{LOST_RESERVATION, PeerRow};
use crate::store::{
    StoreError, codec,
    database::{Database, NumberedIn},
    engine::{Numbered, Rows, guard},
};
use std::{
    path::PathBuf,
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
    /// All of them.
    pub const NAMES: [&str; 4] = ["meta", "log", "peers", "values"];
}

/// Row of `meta`: numbers of peers below are given out or reserved.
const RESERVED: &str = "peers-reserved";
/// No chunk.
const NONE: u64 = u64::MAX;

/// The database, and what is known of the log without asking it.
#[derive(Debug)]
pub struct Log {
    /// The database.
    pub database: Database<4>,
    count: AtomicU64,
    oldest: AtomicU64,
    newest: AtomicU64,
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
    /// Opens the trees of `db`, which lies in `dir`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn open(db: sled::Db, dir: PathBuf) -> Result<Self, StoreError> {
        let log = Self {
            database: Database::new(db, dir, tree::NAMES)?,
            count: AtomicU64::new(0),
            oldest: AtomicU64::new(NONE),
            newest: AtomicU64::new(NONE),
        };
        log.look_at_ends();
        Ok(log)
    }

    /// Chunks, for walks.
    pub fn chunks(&self) -> NumberedIn<'_, 8, 4> {
        NumberedIn { database: &self.database, tree: tree::LOG }
    }

    /// The address book, for walks.
    pub fn peers(&self) -> NumberedIn<'_, 4, 4> {
        NumberedIn { database: &self.database, tree: tree::PEERS }
    }

    /// Reads again which chunk is the oldest and which the newest. What cannot be read stays as it was.
    pub fn look_at_ends(&self) {
        if let Ok(oldest) = self.chunks().first(0, u64::MAX) {
            self.oldest.store(oldest.map_or(NONE, |(key, _)| key), Ordering::Relaxed);
        }
        if let Ok(newest) = self.chunks().last(0, u64::MAX) {
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

    /// Chunks, as far as they are counted: those that replay passed over as expired are not.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Replay has come by a chunk.
    pub fn counted(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// The key of the next chunk of this second, after `last` (the one written before).
    pub fn next_key(&self, time: u32, last: Option<u64>) -> Result<u64, StoreError> {
        let last = match last {
            Some(last) if chunk_time(last) == time => Some(last),
            // Another run, or the time before the clock was set back, may have left chunks of this second.
            _ => self.chunks().last(chunk_key(time, 0), chunk_key(time, u32::MAX))?.map(|(key, _)| key),
        };
        Ok(last.map_or(chunk_key(time, 0), |key| key + 1))
    }

    /// Writes a chunk.
    pub fn insert(&self, key: u64, chunk: sled::IVec) -> Result<(), StoreError> {
        self.replace(key, chunk)?;
        self.count.fetch_add(1, Ordering::Relaxed);
        self.oldest.fetch_min(key, Ordering::Relaxed);
        let newer = |newest| (newest == NONE || newest < key).then_some(key);
        let _ = self.newest.fetch_update(Ordering::Relaxed, Ordering::Relaxed, newer);
        Ok(())
    }

    /// A chunk.
    pub fn get(&self, key: u64) -> Result<Option<sled::IVec>, StoreError> {
        self.database.read(tree::LOG, |tree| tree.get(Numbered::<8>::key(key)))
    }

    /// Writes a chunk that was lost, or is there and damaged.
    pub fn restore(&self, key: u64, chunk: sled::IVec) -> Result<(), StoreError> {
        match self.database.read(tree::LOG, |tree| tree.contains_key(Numbered::<8>::key(key)))? {
            true => self.replace(key, chunk),
            false => self.insert(key, chunk),
        }
    }

    /// Writes a chunk that is there in another form.
    pub fn replace(&self, key: u64, chunk: sled::IVec) -> Result<(), StoreError> {
        self.database.write(tree::LOG, |tree| tree.insert(Numbered::<8>::key(key), chunk)).map(|_| ())
    }

    /// Removes a chunk; `counted` if it is among [`Log::count`].
    pub fn remove(&self, key: u64, counted: bool) -> Result<(), StoreError> {
        self.database.write(tree::LOG, |tree| tree.remove(Numbered::<8>::key(key)))?;
        if counted {
            let less = |n: u64| n.checked_sub(1);
            let _ = self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
        Ok(())
    }

    /// Numbers below the answer may be in use. When the row is lost but chunks are there, far above all that is known.
    pub fn reserved(&self, above: u64) -> u64 {
        let row = self.database.read(tree::META, |tree| tree.get(RESERVED));
        match row.ok().flatten().and_then(|row| codec::decode::<u64>(&row).ok()) {
            Some(reserved) => reserved,
            None if self.oldest().is_some() => above + LOST_RESERVATION,
            None => 0,
        }
    }

    /// Reserves numbers below.
    pub fn reserve(&self, below: u64) -> Result<(), StoreError> {
        let row = codec::encode(&below).map_err(|e| StoreError::Database(e.to_string()))?;
        self.database.write(tree::META, |tree| tree.insert(RESERVED, row))?;
        Ok(())
    }

    /// Writes the row of a peer.
    pub fn put_peer(&self, id: u32, row: &PeerRow) -> Result<(), StoreError> {
        let row = codec::encode(row).map_err(|e| StoreError::Database(e.to_string()))?;
        self.database.write(tree::PEERS, |tree| tree.insert(Numbered::<4>::key(u64::from(id)), row)).map(|_| ())
    }

    /// Removes the row of a peer.
    pub fn remove_peer(&self, id: u32) -> Result<(), StoreError> {
        self.database.write(tree::PEERS, |tree| tree.remove(Numbered::<4>::key(u64::from(id)))).map(|_| ())
    }

    /// Bytes of the database's files; 0 if they cannot be told.
    pub fn bytes(&self) -> u64 {
        self.database.bytes()
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
