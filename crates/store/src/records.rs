//! Provider records: the log, the index and the address book behind one door.

mod announcements;
pub(super) mod book;
pub(super) mod entry;
mod gc;
pub(super) mod index;
mod indexing;
pub(super) mod load;
pub(super) mod log;
pub(super) mod log_frames;
mod pending;
mod progress;
mod replay;
pub(super) mod rewrite;
pub(super) mod salvage;
mod state;
pub(super) mod time;
mod unflushed;
mod writer;

use super::{Settings, StoreError, blocking::blocking, disk::Disk, meta::Meta};
use crate::{
    clock::UnixTime,
    kad::{Dht, PeerInfo},
};
use book::{Book, Peer};
pub use dhtstore_records::providers::{Added, MAX_MULTIHASH_LEN, Provider, Refused};
use entry::{KeyPrefix, key_prefix};
pub use gc::GcReport;
use index::{Index, Limits};
use libp2p_identity::PeerId;
use log::Log;
use multiaddr::Multiaddr;
use parking_lot::Mutex;
use pending::Pending;
use progress::Progress;
use rand::Rng;
pub(super) use state::{Before, RecordsState};
use std::{
    cmp::Reverse,
    sync::{
        Arc,
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
/// An entry of the log takes at least so many bytes: flags and number of the peer, and a digest.
const MIN_ENTRY_BYTES: u64 = 33;

/// The record store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Records {
    pub(super) state: Arc<RecordsState>,
    threads: Arc<Threads>,
}

/// The threads of a store; they end with it.
#[derive(Debug)]
struct Threads {
    state: Arc<RecordsState>,
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
        before: Before,
    ) -> Result<Self, StoreError> {
        let ttl_s = seconds(settings.ttl);
        let origin: KeyPrefix = std::array::from_fn(|i| settings.position[i]);
        let limits = Limits { records: settings.max_records, per_key: settings.max_providers_per_key, origin };
        let mut secret = rand::rng();
        let read_only = floor.is_none();
        let state = Arc::new(RecordsState {
            index: Index::new(limits, (secret.random(), secret.random())),
            book: Book::new(settings.max_peers, seconds(settings.address_ttl)),
            replay: Progress::default(),
            disk,
            before,
            metrics: Arc::default(),
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
        state.load_book();
        // Not more than the log can hold, whatever a damaged row says.
        let most = state.log.bytes() / MIN_ENTRY_BYTES;
        let records = state.floor.as_ref().and_then(Meta::records).unwrap_or(0).min(most);
        state.index.reserve(usize::try_from(records).unwrap_or(0));
        // Expired chunks are passed over only if it is sure that they are: else they may prove alive.
        let with_expired = read_only || state.time.unconfirmed().is_some();
        let mut handles = replay::start(&state, with_expired);
        if read_only {
            state.health().close_for_writes();
        } else {
            let writer = state.clone();
            let spawned = thread::Builder::new().name("record-log".into()).spawn(move || writer::run(&writer));
            handles.push(spawned.map_err(|e| StoreError::database("cannot start the writer thread", e))?);
        }
        Ok(Self { threads: Arc::new(Threads { state: state.clone(), handles: Mutex::new(handles) }), state })
    }

    /// Takes an announcement that came by `via`; waits while the writer is behind. Refreshes are always taken.
    /// `provider.addrs` (already filtered by that DHT's scope) replace those that came by the same DHT. It is on disk
    /// within 1.5 s, or with the next flush.
    ///
    /// # Errors
    /// [`Refused`]: a bound is reached, or the database takes no writes.
    pub async fn add(&self, multihash: &[u8], provider: &PeerInfo, via: Dht) -> Result<Added, Refused> {
        self.state.pending.room().await;
        self.state.add(multihash, provider, via)
    }

    /// [`Records::add`] for threads.
    ///
    /// # Errors
    /// As [`Records::add`].
    pub fn add_blocking(&self, multihash: &[u8], provider: &PeerInfo, via: Dht) -> Result<Added, Refused> {
        self.state.pending.room_blocking();
        self.state.add(multihash, provider, via)
    }

    /// Up to `limit` live providers, newest first; a random subset (by `seed`) when there are more.
    pub async fn providers(&self, multihash: &[u8], limit: usize, seed: u64) -> Vec<Provider> {
        self.providers_now(multihash, limit, seed)
    }

    /// The same for threads: memory only, it never waits for the disk.
    pub fn providers_now(&self, multihash: &[u8], limit: usize, seed: u64) -> Vec<Provider> {
        let state = &*self.state;
        let now = state.time.now();
        let is_live = |time| now.is_live(time, state.ttl_s);
        let mut found = state.index.providers(&key_prefix(multihash), limit, seed, is_live);
        found.sort_unstable_by_key(|(peer, time)| Reverse((*time, *peer)));
        let mut providers = Vec::with_capacity(found.len());
        for (id, time) in found {
            let provider = |peer: &Arc<Peer>| Provider {
                peer: peer.peer,
                addrs: state.book.live_addresses(peer, &now),
                received: UnixTime(time),
            };
            providers.extend(state.book.with(id, provider));
        }
        providers
    }

    /// Removes a record, for good: the removal is in the log. True if it was known.
    pub async fn remove(&self, multihash: &[u8], provider: &PeerId) -> bool {
        self.state.pending.room().await;
        self.state.remove(multihash, provider)
    }

    /// A provider's addresses from the address book, unless outlived or none.
    pub fn addresses(&self, peer: &PeerId) -> Option<Vec<Multiaddr>> {
        let peer = self.state.book.find(peer)?;
        let addrs = self.state.book.live_addresses(&peer, &self.state.time.now());
        (!addrs.is_empty()).then(|| addrs.to_vec())
    }

    /// Removes what is older than the ttl, in slices, off the async threads. Waits for the end of replay and for a
    /// collection that is under way. Deletes nothing while the wall clock is in doubt: then the report says why.
    ///
    /// # Errors
    /// [`StoreError::Database`]; what is expired is not served all the same.
    pub async fn collect_garbage(&self) -> Result<GcReport, StoreError> {
        // Goes into the thread: a caller who gives up does not let a second collection in.
        let only = self.state.gc.clone().lock_owned().await;
        let state = self.state.clone();
        blocking(move || {
            let _only = only;
            gc::collect(&state)
        })
        .await
    }

    /// True once the log has been replayed.
    pub fn is_replayed(&self) -> bool {
        self.state.replay.is_done()
    }

    /// Waits until the log is replayed. False if the store closes before.
    pub fn wait_replayed(&self) -> bool {
        self.state.replay.wait(|| self.state.is_closing())
    }

    /// Bytes that the index takes in memory.
    pub fn index_bytes(&self) -> usize {
        self.state.index.bytes()
    }

    /// Everything accepted so far to disk, fsynced, and the floor raised.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        self.state.flush()
    }

    /// Nothing is accepted from now on; what was is flushed, and the threads end.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        let was_open = !self.state.health().is_closed();
        self.state.health().close_for_writes();
        let outcome = if was_open { self.state.flush() } else { Ok(()) };
        self.threads.end();
        // What was under way when the door closed.
        outcome.and_then(|()| if was_open { self.state.flush_log() } else { Ok(()) })
    }
}

impl Threads {
    fn end(&self) {
        self.state.closing.store(true, Ordering::Release);
        self.state.pending.stop();
        let handles = std::mem::take(&mut *self.handles.lock());
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

/// Whole seconds, at least one.
pub(super) fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).max(1)
}
