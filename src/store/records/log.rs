//! The `records/` database: tree `log`, chunks by (seconds, sequence); tree `peers`, the address book by number; tree
//! `meta`, the reservation of numbers.
//!
//! Rows are inserted and removed one by one: sled's `apply_batch` and `transaction` take a lock of the whole process,
//! and look-ups stalled for 3 to 84 ms behind it.

use super::book::LOST_RESERVATION;
use crate::store::{
    StoreError, codec,
    engine::{Numbered, Rows, guard},
};
use std::sync::atomic::{AtomicU64, Ordering};

/// Row of `meta`: numbers of peers below are given out or reserved.
const RESERVED: &str = "peers-reserved";
/// No chunk.
const NONE: u64 = u64::MAX;

/// Open trees, and what is known of the log without asking them.
#[derive(Debug)]
pub struct Log {
    /// The database.
    pub db: sled::Db,
    /// Chunks.
    pub chunks: Numbered<8>,
    /// Address book.
    pub peers: Numbered<4>,
    meta: sled::Tree,
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
    /// Opens the trees.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn open(db: sled::Db) -> Result<Self, StoreError> {
        let tree = |name: &str| guard(|| db.open_tree(name));
        let log = Self {
            chunks: Numbered(tree("log")?),
            peers: Numbered(tree("peers")?),
            meta: tree("meta")?,
            db,
            count: AtomicU64::new(0),
            oldest: AtomicU64::new(NONE),
            newest: AtomicU64::new(NONE),
        };
        log.look_at_ends();
        Ok(log)
    }

    /// Reads again which chunk is the oldest and which the newest. What cannot be read stays as it was.
    pub fn look_at_ends(&self) {
        if let Ok(oldest) = self.chunks.first(0, u64::MAX) {
            self.oldest.store(oldest.map_or(NONE, |(key, _)| key), Ordering::Relaxed);
        }
        if let Ok(newest) = self.chunks.last(0, u64::MAX) {
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
            _ => self.chunks.last(chunk_key(time, 0), chunk_key(time, u32::MAX))?.map(|(key, _)| key),
        };
        Ok(last.map_or(chunk_key(time, 0), |key| key + 1))
    }

    /// Writes a chunk.
    pub fn insert(&self, key: u64, chunk: Vec<u8>) -> Result<(), StoreError> {
        guard(|| self.chunks.0.insert(Numbered::<8>::key(key), chunk))?;
        self.count.fetch_add(1, Ordering::Relaxed);
        self.oldest.fetch_min(key, Ordering::Relaxed);
        let newer = |newest| (newest == NONE || newest < key).then_some(key);
        let _ = self.newest.fetch_update(Ordering::Relaxed, Ordering::Relaxed, newer);
        Ok(())
    }

    /// Writes a chunk that was lost, or is there and damaged.
    pub fn restore(&self, key: u64, chunk: Vec<u8>) -> Result<(), StoreError> {
        match guard(|| self.chunks.0.contains_key(Numbered::<8>::key(key)))? {
            true => self.replace(key, chunk),
            false => self.insert(key, chunk),
        }
    }

    /// Writes a chunk that is there in another form.
    pub fn replace(&self, key: u64, chunk: Vec<u8>) -> Result<(), StoreError> {
        guard(|| self.chunks.0.insert(Numbered::<8>::key(key), chunk)).map(|_| ())
    }

    /// Removes a chunk; `counted` if it is among [`Log::count`].
    pub fn remove(&self, key: u64, counted: bool) -> Result<(), StoreError> {
        guard(|| self.chunks.0.remove(Numbered::<8>::key(key)))?;
        if counted {
            let less = |n: u64| n.checked_sub(1);
            let _ = self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
        Ok(())
    }

    /// Numbers below the answer may be in use. When the row is lost but chunks are there, far above all that is known.
    pub fn reserved(&self, above: u64) -> u64 {
        let row = guard(|| self.meta.get(RESERVED));
        match row.ok().flatten().and_then(|row| codec::decode::<u64>(&row).ok()) {
            Some(reserved) => reserved,
            None if self.oldest().is_some() => above + LOST_RESERVATION,
            None => 0,
        }
    }

    /// Reserves numbers below.
    pub fn reserve(&self, below: u64) -> Result<(), StoreError> {
        let row = codec::encode(&below).map_err(|e| StoreError::Database(e.to_string()))?;
        guard(|| self.meta.insert(RESERVED, row))?;
        Ok(())
    }

    /// Bytes of the database's files; 0 if they cannot be told.
    pub fn bytes(&self) -> u64 {
        guard(|| self.db.size_on_disk()).unwrap_or(0)
    }

    /// Everything to disk, fsynced.
    pub fn flush(&self) -> Result<(), StoreError> {
        guard(|| self.db.flush()).map(|_| ())
    }
}
