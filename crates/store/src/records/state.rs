//! State that the threads and the callers of the record store share.

use super::{
    book::Book, index::Index, log::Log, pending::Pending, progress::Progress, time::Timekeeper, unflushed::Unflushed,
};
use crate::{
    StoreError,
    disk::Disk,
    engine::{Walk, Walked},
    health::Health,
    meta::{Floor, Meta},
    metrics::Metrics,
};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Limit of the notes kept about damage. More of the same would tell the operator nothing new.
const MAX_NOTES: usize = 100;

/// Facts about the log from before the store was opened.
#[derive(Debug)]
pub struct Before {
    /// The floor: what the log must hold at least.
    pub floor: Option<Floor>,
    /// True if the database was recovered. All segments must be salvaged then.
    pub recovered: bool,
    /// The directory to which older versions exported the log.
    pub exports: PathBuf,
}

/// The shared state of the record store.
#[derive(Debug)]
pub struct RecordsState {
    pub time: Timekeeper,
    pub index: Index,
    pub book: Book,
    pub log: Log,
    pub replay: Progress,
    pub disk: Disk,
    pub before: Before,
    pub metrics: Arc<Metrics>,
    pub ttl_s: u32,
    pub(super) max_per_provider: u64,
    pub(super) max_records: usize,
    pub pending: Pending,
    pub(super) unflushed: Unflushed,
    pub(super) repeat_s: u32,
    /// Where the floor is written. `None` if the store is read-only.
    pub(super) floor: Option<Meta>,
    /// True while the floor must not promise the newest chunk.
    pub(super) floor_held: AtomicBool,
    /// Locked while rows of peers are written: a caller that finds no row to write must know that all are written.
    pub(super) rows: Mutex<()>,
    /// True after damage to the log: the index may hold records that no chunk names when they expire.
    pub(super) must_sweep: AtomicBool,
    pub(super) closing: AtomicBool,
    pub(super) notes: Mutex<Vec<String>>,
    pub(super) gc: Arc<tokio::sync::Mutex<()>>,
}

impl RecordsState {
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let outcome = self.pending.drain().and_then(|()| self.write_peers()).and_then(|()| self.flush_log());
        if let Err(error) = &outcome {
            self.health().failed("flush the log", error, self.time.now().mono);
        }
        outcome?;
        self.write_floor()
    }

    /// Fsyncs everything written to the log before.
    pub fn flush_log(&self) -> Result<(), StoreError> {
        self.unflushed.flush(|| {
            let mono = self.time.now().mono;
            self.log.flush().map(|()| mono)
        })
    }

    /// Writes the rows of peers that are new or changed. If one is new, writes sled's buffers to its file.
    pub(super) fn write_peers(&self) -> Result<(), StoreError> {
        let _only = self.rows.lock();
        let (rows, new) = self.book.take_dirty();
        let outcome = rows.iter().try_for_each(|peer| self.log.put_peer(peer.id, &peer.row()));
        let outcome = outcome.and_then(|()| {
            if let Some(below) = self.book.reservation() {
                self.log.reserve(below)?;
                self.book.reserved(below);
            }
            // No fsync is needed: the rows of the chunks come later in the same file of sled.
            if new { self.log.database.write_out() } else { Ok(()) }
        });
        match outcome {
            Ok(()) => {
                self.book.written(&rows);
                self.unflushed.peers(&rows, self.time.now().mono);
            }
            Err(_) => rows.iter().for_each(|peer| self.book.mark_dirty(peer)),
        }
        outcome
    }

    /// Flushes the log, then writes the floor to `node/`: what a later open must find at least.
    pub(super) fn write_floor(&self) -> Result<(), StoreError> {
        let Some(meta) = &self.floor else { return Ok(()) };
        let held = self.is_floor_held();
        // Taken before the flush, so that it promises only what the flush covers.
        let floor = Floor {
            chunks: self.replay.is_done().then(|| self.log.count()),
            oldest: self.log.oldest(),
            newest: self.log.newest().filter(|_| !held),
            last_seen: self.time.now().log,
        };
        self.flush_log()?;
        if self.replay.is_done() {
            meta.set_records(self.index.len() as u64)?;
        }
        meta.set_floor(&floor)
    }

    pub(super) fn load_book(&self) {
        let now = self.time.now().log;
        for found in Walk::forwards(self.log.peers(), 0, u64::from(u32::MAX)) {
            match found {
                Walked::Row(id, row) => {
                    if let Err(error) = self.book.load(id as u32, &row, now) {
                        self.damaged(format!("peer {id} is damaged: {error}"));
                    }
                }
                Walked::Lost(from, to, error) => {
                    self.health().failed("read the address book", &error, self.time.now().mono);
                    self.damaged(format!("peers {from} to {to} cannot be read: {error}"));
                }
            }
        }
        self.book.resume_above(self.log.reserved(self.book.next_id()));
    }

    /// Waits until everything accepted is in the database, but not fsynced.
    pub fn drain(&self) -> Result<(), StoreError> {
        self.pending.drain()
    }

    /// Counts and notes damage on disk that was skipped.
    pub fn damaged(&self, note: String) {
        self.must_sweep.store(true, Ordering::Release);
        self.metrics.damaged.inc();
        self.note(note);
    }

    /// Logs a note and keeps it for `dhtstore stat`.
    pub(super) fn note(&self, note: String) {
        let mut notes = self.notes.lock();
        if notes.len() < MAX_NOTES {
            tracing::error!("{note}");
            notes.push(note);
        }
    }

    /// Returns the notes about damage, and those of [`RecordsState::passing_notes`].
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.notes.lock().clone();
        notes.extend(self.passing_notes());
        notes
    }

    /// Returns notes about conditions that pass: why announcements are refused, or soon will be.
    pub fn passing_notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        notes.extend(self.health().note("records"));
        notes.extend(self.disk.notes());
        if self.is_crowded() {
            notes.push(format!(
                "{} records are stored, and records.max is {}: those farthest from this node will soon be dropped; \
                 raise records.max, or lower records.ttl",
                self.index.len(),
                self.max_records
            ));
        }
        notes
    }

    /// Returns the counts of events since the start, by name.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let mut counters = self.metrics.by_name();
        counters.insert("unwritten_chunks".to_owned(), self.log.unwritten());
        counters.insert("records_database_failures".to_owned(), self.health().failures());
        counters.insert("records_database_reopened".to_owned(), self.health().reopened());
        counters
    }

    /// Returns the health of the database.
    pub fn health(&self) -> &Health {
        &self.log.database.health
    }

    /// Returns true at nine tenths of the limit of records, or more.
    pub fn is_crowded(&self) -> bool {
        self.index.len() >= self.max_records - self.max_records / 10
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Returns true if the store is read-only.
    pub(super) fn reads_only(&self) -> bool {
        self.floor.is_none()
    }

    pub(super) fn hold_floor(&self, hold: bool) {
        self.floor_held.store(hold, Ordering::Release);
    }

    pub(super) fn is_floor_held(&self) -> bool {
        self.floor_held.load(Ordering::Acquire)
    }
}
