//! Provider records: the log, the index and the address book behind one door.

pub(super) mod book;
mod counters;
pub(super) mod entry;
pub(super) mod export;
pub(super) mod frames;
mod gc;
pub(super) mod index;
pub(super) mod load;
pub(super) mod log;
mod pending;
mod replay;
mod restore;
mod salvage;
pub(super) mod time;
mod unflushed;
mod writer;

use super::{
    Settings, StoreError,
    disk::Disk,
    engine::{Found, Walk},
    health::Health,
    meta::Meta,
};
use crate::{
    clock::UnixTime,
    kad::{Dht, PeerInfo},
};
use book::{Book, BookFull, Peer};
use counters::Counters;
use entry::{Entry, Hashed, MAX_MULTIHASH, Place, place};
use export::Exports;
use index::{Full, Index, Limits, Upsert};
use libp2p::{Multiaddr, PeerId};
use log::Log;
use pending::Pending;
use rand::Rng;
use replay::Replay;
use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use time::Timekeeper;
use unflushed::Unflushed;

/// A repeat of an announcement within this time is not written to the log again.
const REPEAT: Duration = Duration::from_secs(300);
/// ... but never more than this part of the ttl, so that a record that is announced steadily does not run out.
const REPEAT_PART_OF_TTL: u32 = 10;
/// ... while the data directory takes nine tenths of what it may, the repeats of a record cost it at most so many copies
/// of it in the log.
const CROWDED_PART_OF_TTL: u32 = 4;
/// An entry of the log takes at least so many bytes: flags and number of the peer, and a digest.
const MIN_ENTRY_BYTES: u64 = 33;
/// Most notes kept about damage; more of the same tell nobody anything.
const MAX_NOTES: usize = 100;

/// The record store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Records {
    pub(super) shared: Arc<Shared>,
    threads: Arc<Threads>,
}

/// A provider of a key, as GET_PROVIDERS answers it.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The provider.
    pub peer: PeerId,
    /// All known addresses, whichever DHT they came by; empty when older than the address ttl. Filter by scope. They are
    /// shared with the address book, since copies would cost more than the rest of a look-up.
    pub addrs: Arc<[Multiaddr]>,
    /// When its announcement came (to about a second; a repeat within five minutes does not count).
    pub received: UnixTime,
}

/// What became of an announcement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Added {
    /// No such record was known.
    New,
    /// The record was known; it lives on.
    Refreshed,
}

/// Why an announcement was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Refused {
    /// `records.max`.
    #[error("record limit reached")]
    RecordsFull,
    /// `records.max` was reached, and records as far from this node as this one are not taken until there are fewer.
    #[error("record limit reached, and this record is far from this node")]
    RecordsFar,
    /// `records.max_per_provider`.
    #[error("record limit of this provider reached")]
    ProviderFull,
    /// `records.max_providers_per_key`.
    #[error("provider limit of this key reached")]
    KeyFull,
    /// `records.max_peers`.
    #[error("peer limit reached")]
    PeersFull,
    /// After an error of the disk, while it is nearly full, and when the store is closed.
    #[error("the database does not take writes")]
    ReadOnly,
    /// `store.max_disk`: what is held is refreshed, and nothing new taken.
    #[error("the data directory takes as much of the disk as it may")]
    DiskFull,
    /// A multihash longer than [`MAX_MULTIHASH_LEN`]. The protocol's own bound (PRV-1) is lower.
    #[error("multihash longer than {MAX_MULTIHASH} bytes")]
    KeyTooLong,
}

/// Longest multihash that the store takes, in bytes.
pub const MAX_MULTIHASH_LEN: usize = MAX_MULTIHASH;

/// What one garbage collection did.
#[derive(Clone, Debug, Default)]
pub struct GcReport {
    /// Chunks popped from the log.
    pub chunks: u64,
    /// Records dropped from the index.
    pub expired: u64,
    /// Why it did not go on, if so.
    pub paused: Option<String>,
}

/// What one export of the log did.
#[derive(Clone, Debug, Default)]
pub struct ExportReport {
    /// Files written.
    pub segments: u64,
    /// Chunks in them.
    pub chunks: u64,
    /// Rows of peers in them.
    pub peers: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were older than the ttl, or out of date otherwise, and removed.
    pub removed: u64,
    /// Why it did not go on, if so.
    pub paused: Option<String>,
}

/// What threads and callers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub time: Timekeeper,
    pub index: Index,
    pub book: Book,
    pub log: Log,
    pub replay: Replay,
    pub disk: Disk,
    pub exports: Exports,
    pub counters: Counters,
    pub ttl_s: u32,
    max_per_provider: u64,
    max_records: usize,
    pub pending: Pending,
    unflushed: Unflushed,
    repeat_s: u32,
    /// Where the floor is noted; not while a directory is only read.
    floor: Option<Meta>,
    floor_held: AtomicBool,
    /// Held while rows of peers are written: whoever finds none to write must know that they are written.
    rows: Mutex<()>,
    /// The log cannot name all that it must drop.
    must_sweep: AtomicBool,
    closing: AtomicBool,
    notes: Mutex<Vec<String>>,
    gc: Arc<tokio::sync::Mutex<()>>,
}

/// The threads of a store; they end with it.
#[derive(Debug)]
struct Threads {
    shared: Arc<Shared>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Records {
    /// Loads the address book, then starts the replay of the log and the writer; without `floor` there is no writer,
    /// nothing is accepted and expired records are shown.
    pub(super) fn open(
        log: Log,
        settings: &Settings,
        time: Timekeeper,
        floor: Option<Meta>,
        disk: Disk,
        exports: Exports,
    ) -> Result<Self, StoreError> {
        let ttl_s = seconds(settings.ttl);
        let origin: Place = std::array::from_fn(|i| settings.position[i]);
        let limits = Limits { records: settings.max_records, per_key: settings.max_providers_per_key, origin };
        let mut secret = rand::rng();
        let read_only = floor.is_none();
        let shared = Arc::new(Shared {
            index: Index::new(limits, (secret.random(), secret.random())),
            book: Book::new(settings.max_peers, seconds(settings.address_ttl)),
            replay: Replay::default(),
            disk,
            exports,
            counters: Counters::default(),
            pending: Pending::default(),
            unflushed: Unflushed::default(),
            repeat_s: seconds(REPEAT).min(ttl_s / REPEAT_PART_OF_TTL),
            ttl_s,
            max_records: settings.max_records,
            max_per_provider: settings.max_records_per_provider as u64,
            floor_held: AtomicBool::new(false),
            rows: Mutex::default(),
            must_sweep: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            notes: Mutex::default(),
            gc: Arc::default(),
            log,
            time,
            floor,
        });
        shared.load_book();
        // Not more than the log can hold, whatever a damaged row says.
        let most = shared.log.bytes() / MIN_ENTRY_BYTES;
        let records = shared.floor.as_ref().and_then(Meta::records).unwrap_or(0).min(most);
        shared.index.reserve(usize::try_from(records).unwrap_or(0));
        // Expired chunks are passed over only if it is sure that they are: else they may prove alive.
        let with_expired = read_only || shared.time.unconfirmed().is_some();
        let mut handles = replay::start(&shared, with_expired);
        if read_only {
            shared.health().close_for_writes();
        } else {
            let writer = shared.clone();
            let spawned = thread::Builder::new().name("record-log".into()).spawn(move || writer::run(&writer));
            handles.push(spawned.map_err(|e| StoreError::Database(format!("cannot start the writer thread: {e}")))?);
        }
        Ok(Self { threads: Arc::new(Threads { shared: shared.clone(), handles: Mutex::new(handles) }), shared })
    }

    /// Takes an announcement that came by `via`; waits while the writer is behind. Refreshes are always taken.
    /// `provider.addrs` (already filtered by that DHT's scope) replace those that came by the same DHT. It is on disk
    /// within 1.5 s, or with the next flush.
    ///
    /// # Errors
    /// [`Refused`]: a bound is reached, or the database takes no writes.
    pub async fn add(&self, multihash: &[u8], provider: &PeerInfo, via: Dht) -> Result<Added, Refused> {
        self.shared.pending.room().await;
        self.shared.add(multihash, provider, via)
    }

    /// [`Records::add`] for threads.
    ///
    /// # Errors
    /// As [`Records::add`].
    pub fn add_blocking(&self, multihash: &[u8], provider: &PeerInfo, via: Dht) -> Result<Added, Refused> {
        self.shared.pending.room_blocking();
        self.shared.add(multihash, provider, via)
    }

    /// Up to `limit` live providers, newest first; a random subset (by `seed`) when there are more.
    pub async fn providers(&self, multihash: &[u8], limit: usize, seed: u64) -> Vec<Provider> {
        self.providers_now(multihash, limit, seed)
    }

    /// The same for threads: memory only, it never waits for the disk.
    pub fn providers_now(&self, multihash: &[u8], limit: usize, seed: u64) -> Vec<Provider> {
        let shared = &*self.shared;
        let now = shared.time.now();
        let is_live = |time| now.is_live(time, shared.ttl_s);
        let mut found = shared.index.providers(&place(multihash), limit, seed, is_live);
        found.sort_unstable_by_key(|(peer, time)| Reverse((*time, *peer)));
        let mut providers = Vec::with_capacity(found.len());
        for (id, time) in found {
            let provider = |peer: &Arc<Peer>| Provider {
                peer: peer.peer,
                addrs: shared.book.live_addresses(peer, &now),
                received: UnixTime(time),
            };
            providers.extend(shared.book.with(id, provider));
        }
        providers
    }

    /// Removes a record, for good: the removal is in the log. True if it was known.
    pub async fn remove(&self, multihash: &[u8], provider: &PeerId) -> bool {
        self.shared.pending.room().await;
        self.shared.remove(multihash, provider)
    }

    /// A provider's addresses from the address book, unless outlived or none.
    pub fn addresses(&self, peer: &PeerId) -> Option<Vec<Multiaddr>> {
        let peer = self.shared.book.find(peer)?;
        let addrs = self.shared.book.live_addresses(&peer, &self.shared.time.now());
        (!addrs.is_empty()).then(|| addrs.to_vec())
    }

    /// Removes what is older than the ttl, in slices, off the async threads. Waits for the end of replay and for a
    /// collection that is under way. Deletes nothing while the wall clock is in doubt: then the report says why.
    ///
    /// # Errors
    /// [`StoreError::Database`]; what is expired is not served all the same.
    pub async fn collect_garbage(&self) -> Result<GcReport, StoreError> {
        // Goes into the thread: a caller who gives up does not let a second collection in.
        let only = self.shared.gc.clone().lock_owned().await;
        let shared = self.shared.clone();
        super::blocking(move || {
            let _only = only;
            gc::collect(&shared)
        })
        .await
    }

    /// Copies what the log has taken since the last export to `exports/`, slowly, off the async threads, and removes there
    /// what is older than the ttl. The report says why, if it has to wait: for the end of replay, for space on the disk.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a file cannot be written.
    pub async fn export(&self) -> Result<ExportReport, StoreError> {
        let shared = self.shared.clone();
        super::blocking(move || export::run(&shared)).await
    }

    /// True once the log has been replayed.
    pub fn is_replayed(&self) -> bool {
        self.shared.replay.is_done()
    }

    /// Waits until the log is replayed. False if the store closes before.
    pub fn wait_replayed(&self) -> bool {
        self.shared.replay.wait(|| self.shared.is_closing())
    }

    /// Bytes that the index takes in memory.
    pub fn index_bytes(&self) -> usize {
        self.shared.index.bytes()
    }

    /// Everything accepted so far to disk, fsynced, and the floor raised.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        self.shared.flush()
    }

    /// Nothing is accepted from now on; what was is flushed, and the threads end.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        let was_open = !self.shared.health().is_closed();
        self.shared.health().close_for_writes();
        let outcome = if was_open { self.shared.flush() } else { Ok(()) };
        self.threads.end();
        // What was under way when the door closed.
        outcome.and_then(|()| if was_open { self.shared.flush_log() } else { Ok(()) })
    }
}

impl Shared {
    fn add(&self, multihash: &[u8], provider: &PeerInfo, via: Dht) -> Result<Added, Refused> {
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
    fn barred(&self, peer: &Peer, disk_full: bool) -> Option<Refused> {
        if disk_full {
            return Some(Refused::DiskFull);
        }
        (peer.records() >= self.max_per_provider).then_some(Refused::ProviderFull)
    }

    fn remove(&self, multihash: &[u8], provider: &PeerId) -> bool {
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

    fn flush(&self) -> Result<(), StoreError> {
        let outcome = self.pending.drain().and_then(|()| writer::write_peers(self)).and_then(|()| self.flush_log());
        if let Err(error) = &outcome {
            self.health().failed("flush the log", error, self.time.now().mono);
        }
        outcome?;
        writer::write_floor(self)
    }

    fn load_book(&self) {
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
    fn note(&self, note: String) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() < MAX_NOTES {
            tracing::error!("{note}");
            notes.push(note);
        }
    }

    /// What was found damaged, and what stands in the way of announcements.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
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
    fn reads_only(&self) -> bool {
        self.floor.is_none()
    }

    fn hold_floor(&self, hold: bool) {
        self.floor_held.store(hold, Ordering::Release);
    }

    fn is_floor_held(&self) -> bool {
        self.floor_held.load(Ordering::Acquire)
    }
}

impl Threads {
    fn end(&self) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.pending.stop();
        let handles = std::mem::take(&mut *self.handles.lock().unwrap_or_else(PoisonError::into_inner));
        for handle in handles {
            // What it panicked with has been logged by the panic hook.
            let _ = handle.join();
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a bound of the index is to those who announce; `barred` is why nothing was let in, if so.
fn refused(full: Full, barred: Option<Refused>) -> Refused {
    match full {
        Full::Records => Refused::RecordsFull,
        Full::Far => Refused::RecordsFar,
        Full::Key => Refused::KeyFull,
        Full::Barred => barred.unwrap_or(Refused::RecordsFull),
    }
}

/// Whole seconds, at least one.
pub(super) fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).max(1)
}
