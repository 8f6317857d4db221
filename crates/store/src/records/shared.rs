//! What the threads of the record store and its callers share, and how an announcement goes through it.

use super::{
    Added, Refused, Upsert,
    book::{Book, BookFull, Peer},
    counters::Counters,
    entry::{Entry, Hashed, MAX_MULTIHASH, place},
    index::{Full, Index},
    log::Log,
    pending::Pending,
    replay::Replay,
    time::Timekeeper,
    unflushed::Unflushed,
    writer,
};
use crate::{
    StoreError,
    disk::Disk,
    engine::{Found, Walk},
    health::Health,
    kad::{Dht, PeerInfo},
    meta::{Floor, Meta},
};
use libp2p_identity::PeerId;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// ... while the data directory takes nine tenths of what it may, the repeats of a record cost it at most so many copies
/// of it in the log.
const CROWDED_PART_OF_TTL: u32 = 4;
/// Most notes kept about damage; more of the same tell nobody anything.
const MAX_NOTES: usize = 100;

/// What was known of the log when the store was opened.
#[derive(Debug)]
pub struct Before {
    /// What it was to hold.
    pub floor: Option<Floor>,
    /// The database was recovered: look through all segments.
    pub recovered: bool,
    /// Where older versions exported it to.
    pub exports: PathBuf,
}

/// What threads and callers share.
#[derive(Debug)]
pub struct Shared {
    pub time: Timekeeper,
    pub index: Index,
    pub book: Book,
    pub log: Log,
    pub replay: Replay,
    pub disk: Disk,
    pub before: Before,
    pub counters: Counters,
    pub ttl_s: u32,
    pub(super) max_per_provider: u64,
    pub(super) max_records: usize,
    pub pending: Pending,
    pub(super) unflushed: Unflushed,
    pub(super) repeat_s: u32,
    /// Where the floor is noted; not while a directory is only read.
    pub(super) floor: Option<Meta>,
    pub(super) floor_held: AtomicBool,
    /// Held while rows of peers are written: whoever finds none to write must know that they are written.
    pub(super) rows: Mutex<()>,
    /// The log cannot name all that it must drop.
    pub(super) must_sweep: AtomicBool,
    pub(super) closing: AtomicBool,
    pub(super) notes: Mutex<Vec<String>>,
    pub(super) gc: Arc<tokio::sync::Mutex<()>>,
}

impl Shared {
    pub fn add(&self, multihash: &[u8], provider: &PeerInfo, via: Dht) -> Result<Added, Refused> {
        let outcome = self.try_add(multihash, provider, via);
        self.counters.count(&outcome);
        outcome.map(|upsert| if upsert == Upsert::New { Added::New } else { Added::Refreshed })
    }

    fn try_add(&self, multihash: &[u8], provider: &PeerInfo, via: Dht) -> Result<Upsert, Refused> {
        if multihash.len() > MAX_MULTIHASH {
            return Err(Refused::KeyTooLong);
        }
        if self.health().is_read_only() || self.disk.is_short() {
            return Err(Refused::ReadOnly);
        }
        let now = self.time.now();
        // With no room for records a new peer would only fill the book.
        let disk_full = self.disk.is_full();
        let may_enter = !self.index.is_full() && !disk_full;
        let peer = self.book.announce(provider, via, &now, may_enter).map_err(|BookFull| match may_enter {
            true => Refused::PeersFull,
            false if disk_full => Refused::DiskFull,
            false => Refused::RecordsFull,
        })?;
        // Why a record that is not there cannot enter, whatever room there is.
        let barred = self.barred(&peer, disk_full);
        let repeat_s =
            if self.disk.is_near() { self.repeat_s.max(self.ttl_s / CROWDED_PART_OF_TTL) } else { self.repeat_s };
        let fresh = |time: u32| time <= now.log && now.log - time < repeat_s;
        let hashed = Hashed::new(multihash);
        let log = || self.pending.append(&now, Entry { multihash: hashed, peer: peer.id, removed: false });
        let upsert = self.index.add(&hashed.place(), peer.id, barred.is_none(), fresh, log);
        if upsert == Ok(Upsert::New) {
            peer.count(1);
        }
        upsert.map_err(|full| refused(full, barred))
    }

    /// Why a record of this provider is taken only if it is there already.
    pub(super) fn barred(&self, peer: &Peer, disk_full: bool) -> Option<Refused> {
        if disk_full {
            return Some(Refused::DiskFull);
        }
        (peer.records() >= self.max_per_provider).then_some(Refused::ProviderFull)
    }

    pub(super) fn remove(&self, multihash: &[u8], provider: &PeerId) -> bool {
        let now = self.time.now();
        let Some(peer) = self.book.name(provider, &now).filter(|_| multihash.len() <= MAX_MULTIHASH) else {
            return false;
        };
        let log = || match self.health().is_closed() || !self.pending.has_room() && self.health().is_degraded() {
            // It may come back with a restart; nothing can be done about it.
            true => now.log,
            false => {
                self.pending.append(&now, Entry { multihash: Hashed::new(multihash), peer: peer.id, removed: true })
            }
        };
        let removed = self.index.remove(&place(multihash), peer.id, !self.replay.is_done(), log);
        if removed {
            peer.count(-1);
            self.counters.removed.fetch_add(1, Ordering::Relaxed);
        }
        removed
    }

    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let outcome = self.pending.drain().and_then(|()| writer::write_peers(self)).and_then(|()| self.flush_log());
        if let Err(error) = &outcome {
            self.health().failed("flush the log", error, self.time.now().mono);
        }
        outcome?;
        writer::write_floor(self)
    }

    pub(super) fn load_book(&self) {
        let now = self.time.now().log;
        for found in Walk::forwards(self.log.peers(), 0, u64::from(u32::MAX)) {
            match found {
                Found::Row(id, row) => {
                    if let Err(error) = self.book.load(id as u32, &row, now) {
                        self.damaged(format!("peer {id} is damaged: {error}"));
                    }
                }
                Found::Lost(from, to, error) => {
                    self.health().failed("read the address book", &error, self.time.now().mono);
                    self.damaged(format!("peers {from} to {to} cannot be read: {error}"));
                }
            }
        }
        self.book.resume_above(self.log.reserved(self.book.next_id()));
    }

    /// Waits until what was accepted is in the database (not fsynced).
    pub fn drain(&self) -> Result<(), StoreError> {
        self.pending.drain()
    }

    /// Something on disk could not be read, and is passed over.
    pub fn damaged(&self, note: String) {
        self.must_sweep.store(true, Ordering::Release);
        self.counters.damaged.fetch_add(1, Ordering::Relaxed);
        self.note(note);
    }

    /// For the operator, in plain words.
    pub(super) fn note(&self, note: String) {
        let mut notes = self.notes.lock();
        if notes.len() < MAX_NOTES {
            tracing::error!("{note}");
            notes.push(note);
        }
    }

    /// What was found damaged, and what stands in the way of announcements.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.notes.lock().clone();
        notes.extend(self.passing_notes());
        notes
    }

    /// What stands in the way of announcements, now or soon: no damage.
    pub fn passing_notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        notes.extend(self.health().note("records"));
        notes.extend(self.disk.notes());
        if self.is_crowded() {
            notes.push(format!(
                "{} records of records.max = {}: soon the farthest from this node are dropped; raise it, or lower records.ttl",
                self.index.len(),
                self.max_records
            ));
        }
        notes
    }

    /// Events since start, by name.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let mut counters = self.counters.by_name();
        counters.insert("unwritten_chunks".to_owned(), self.log.unwritten());
        counters.insert("records_database_failures".to_owned(), self.health().failures());
        counters.insert("records_database_reopened".to_owned(), self.health().reopened());
        counters
    }

    /// How the database is doing.
    pub fn health(&self) -> &Health {
        &self.log.database.health
    }

    /// Whether there are nine tenths of the records that may be.
    pub fn is_crowded(&self) -> bool {
        self.index.len() >= self.max_records - self.max_records / 10
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// A directory that is only read.
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

/// What a bound of the index is to those who announce; `barred` is why nothing was let in, if so.
pub(super) fn refused(full: Full, barred: Option<Refused>) -> Refused {
    match full {
        Full::Records => Refused::RecordsFull,
        Full::Far => Refused::RecordsFar,
        Full::Key => Refused::KeyFull,
        Full::Barred => barred.unwrap_or(Refused::RecordsFull),
    }
}
