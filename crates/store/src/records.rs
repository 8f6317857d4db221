//! The store of provider records. It joins the log, the index and the address book.

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

/// A repeated announcement is not logged again within this time ...
const REPEAT: Duration = Duration::from_secs(300);
/// ... or within the ttl divided by this, if that is shorter. So a record that is announced steadily does not expire.
const REPEAT_PART_OF_TTL: u32 = 10;
/// Minimum size of an entry of the log, in bytes: one for the flags and the number of the peer, 32 for a digest.
const MIN_ENTRY_BYTES: u64 = 33;

/// The record store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Records {
    pub(super) state: Arc<RecordsState>,
    threads: Arc<Threads>,
}

/// The threads of a store. They end when the last clone of [`Records`] is dropped.
#[derive(Debug)]
struct Threads {
    state: Arc<RecordsState>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Records {
    /// Loads the address book, then starts the replay of the log and the writer. Without `floor` the store is
    /// read-only: it has no writer, accepts nothing, and replays expired records too.
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
        // The number comes from a row that may be damaged. It is capped at what the log has room for.
        let most = state.log.bytes() / MIN_ENTRY_BYTES;
        let records = state.floor.as_ref().and_then(Meta::records).unwrap_or(0).min(most);
        state.index.reserve(usize::try_from(records).unwrap_or(0));
        // Expired chunks are skipped only if the clock is certain. If it is in doubt, they may turn out to be live.
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

    /// Adds the record of an announcement that came by the DHT `via`. Waits while the writer is behind. Limits on
    /// records do not apply to refreshes. `provider.addrs`, already filtered by the scope of that DHT, replace the
    /// addresses that came by it before. The record is on disk within 2 s, or after the next flush.
    ///
    /// # Errors
    /// [`Refused`] if a limit is reached, or if the database is read-only.
    pub async fn add(&self, multihash: &[u8], provider: &PeerInfo, via: Dht) -> Result<Added, Refused> {
        self.state.pending.room().await;
        self.state.add(multihash, provider, via)
    }

    /// Does the same as [`Records::add`], for threads that may block.
    ///
    /// # Errors
    /// Those of [`Records::add`].
    pub fn add_blocking(&self, multihash: &[u8], provider: &PeerInfo, via: Dht) -> Result<Added, Refused> {
        self.state.pending.room_blocking();
        self.state.add(multihash, provider, via)
    }

    /// Returns up to `limit` live providers, newest first. If there are more, `seed` picks a random subset.
    pub async fn providers(&self, multihash: &[u8], limit: usize, seed: u64) -> Vec<Provider> {
        self.providers_now(multihash, limit, seed)
    }

    /// Does the same as [`Records::providers`], for threads. Reads only memory and never waits for the disk.
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

    /// Removes a record and logs the removal, so that it stays removed. Returns true if the record was known.
    pub async fn remove(&self, multihash: &[u8], provider: &PeerId) -> bool {
        self.state.pending.room().await;
        self.state.remove(multihash, provider)
    }

    /// Returns the addresses of a provider from the address book. `None` if there are none or they have expired.
    pub fn addresses(&self, peer: &PeerId) -> Option<Vec<Multiaddr>> {
        let peer = self.state.book.find(peer)?;
        let addrs = self.state.book.live_addresses(&peer, &self.state.time.now());
        (!addrs.is_empty()).then(|| addrs.to_vec())
    }

    /// Removes records older than the ttl, in slices, on a blocking thread. First waits for the end of replay and for a
    /// collection that is under way. While the wall clock is in doubt it deletes nothing, and the report says why.
    ///
    /// # Errors
    /// [`StoreError::Database`]. Expired records are still not served.
    pub async fn collect_garbage(&self) -> Result<GcReport, StoreError> {
        // The thread holds the lock: if the caller is cancelled, a second collection still waits for this one.
        let only = self.state.gc.clone().lock_owned().await;
        let state = self.state.clone();
        blocking(move || {
            let _only = only;
            gc::collect(&state)
        })
        .await
    }

    /// Returns true once the log is replayed.
    pub fn is_replayed(&self) -> bool {
        self.state.replay.is_done()
    }

    /// Waits until the log is replayed. Returns false if the store closes before that.
    pub fn wait_replayed(&self) -> bool {
        self.state.replay.wait(|| self.state.is_closing())
    }

    /// Returns the memory that the index takes, in bytes.
    pub fn index_bytes(&self) -> usize {
        self.state.index.bytes()
    }

    /// Writes and fsyncs everything accepted so far, then raises the floor.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        self.state.flush()
    }

    /// Accepts nothing more, flushes what was accepted, and ends the threads.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        let was_open = !self.state.health().is_closed();
        self.state.health().close_for_writes();
        let outcome = if was_open { self.state.flush() } else { Ok(()) };
        self.threads.end();
        // Calls that passed the check before writes were closed may have added something since the first flush.
        outcome.and_then(|()| if was_open { self.state.flush_log() } else { Ok(()) })
    }
}

impl Threads {
    fn end(&self) {
        self.state.closing.store(true, Ordering::Release);
        self.state.pending.stop();
        let handles = std::mem::take(&mut *self.handles.lock());
        for handle in handles {
            // The panic hook has logged a panic of the thread.
            let _ = handle.join();
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.end();
    }
}

/// Returns a duration in whole seconds, at least one.
pub(super) fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).max(1)
}
