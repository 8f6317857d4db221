//! The open chunk of the log, and the closed chunks that wait for the writer.
//!
//! An announcement appends its entry to the open chunk, a copy of some 40 bytes. The writer thread takes chunks of up
//! to 850 entries. An announcement waits for the disk only if the writer is a whole queue behind.

use super::{entry::Entry, time::Now};
use crate::{StoreError, codec};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::{
    collections::VecDeque,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::sync::Notify;

/// Limit of an entry, in bytes: 5 for the number of a peer, one for the length of a multihash, and 255 for the
/// multihash.
const MAX_ENTRY: usize = 5 + 1 + u8::MAX as usize;
/// A chunk closes at this size, in bytes. So some 850 records share the cost of a row in sled, and the chunk stays well
/// below the codec's limit. Replay, GC and dumps hold one chunk at a time ...
pub const CHUNK_BYTES: usize = 30_000;
/// ... or at this number of entries. So a chunk of tiny multihashes stays below the codec's limit too, which counts 32
/// bytes of memory for each entry ...
pub const CHUNK_ENTRIES: u32 = 1024;
/// ... or at this age. A crash may lose the records of this time and of the 500 ms until a flush. Measured at 1.5k
/// records/s: 138 B written per record with 1 s, 254 B with 100 ms.
pub const CHUNK_AGE: Duration = Duration::from_secs(1);
/// Limit of the closed chunks that wait: 2 MB, 50,000 records. At the limit `add` waits.
const QUEUE: usize = 64;

/// A closed chunk.
#[derive(Debug)]
pub struct Sealed {
    /// Time of its entries, Unix seconds.
    pub time: u32,
    /// Encoded entries.
    pub body: Vec<u8>,
    /// Number of entries.
    pub count: u32,
}

#[derive(Debug, Default)]
struct OpenChunk {
    time: u32,
    opened: Duration,
    body: Vec<u8>,
    count: u32,
}

#[derive(Debug, Default)]
struct State {
    open: OpenChunk,
    sealed: VecDeque<Sealed>,
    /// Number of chunks closed, and of chunks written, since the start.
    closed: u64,
    written: u64,
    failed: bool,
    stop: bool,
}

/// The open chunk and the queue of closed ones. See the module.
#[derive(Debug, Default)]
pub struct Pending {
    state: Mutex<State>,
    queued: AtomicUsize,
    /// Notified when there is something to write.
    work: Condvar,
    /// Notified when chunks were written, or when writing failed or stopped.
    progress: Condvar,
    room: Notify,
}

impl Pending {
    /// Returns true if [`Pending::room`] would wait.
    pub fn is_behind(&self) -> bool {
        self.queued.load(Ordering::Acquire) >= QUEUE
    }

    /// Waits until the queue has room.
    pub async fn room(&self) {
        while self.is_behind() {
            let notified = self.room.notified();
            if !self.is_behind() {
                return;
            }
            notified.await;
        }
    }

    /// Does the same as [`Pending::room`], for threads.
    pub fn room_blocking(&self) {
        if !self.is_behind() {
            return;
        }
        let mut state = self.lock();
        while state.sealed.len() >= QUEUE && !state.failed && !state.stop {
            self.progress.wait(&mut state);
        }
    }

    /// Appends an entry. Returns the time of its chunk, which is the time of the entry. Never waits for room: callers
    /// that passed [`Pending::room`] together may exceed the queue by one entry each.
    pub fn append(&self, now: &Now, entry: Entry<'_>) -> u32 {
        // Encoded before the lock is taken, because all callers share that lock.
        let mut buffer = [0; MAX_ENTRY];
        let encoded = match codec::fill(&mut buffer, &entry) {
            Ok(len) => &buffer[..len],
            Err(error) => {
                // Cannot happen with these types.
                tracing::error!(%error, "cannot encode an entry of the log; the record is served until a restart");
                return now.log;
            }
        };
        let mut state = self.lock();
        let open = &state.open;
        let full = open.count >= CHUNK_ENTRIES || open.body.len() + MAX_ENTRY > CHUNK_BYTES;
        // Log time is behind the chunk's time if its base was moved back.
        let stale = now.mono.saturating_sub(open.opened) >= CHUNK_AGE || now.log < open.time;
        let closes = open.count > 0 && (full || stale);
        if closes {
            self.seal(&mut state);
        }
        let open = &mut state.open;
        if open.count == 0 {
            open.time = now.log;
            open.opened = now.mono;
            open.body.reserve(CHUNK_BYTES);
        }
        open.body.extend_from_slice(encoded);
        open.count += 1;
        let time = open.time;
        drop(state);
        // Without the lock: parking_lot would hand the lock to the writer, and the next caller would wait until the
        // writer runs, some 0.1 ms for each chunk.
        if closes {
            self.work.notify_one();
        }
        time
    }

    /// Appends a chunk of another time, from a dump. Waits for room, as announcements do.
    pub fn push(&self, chunk: Sealed) {
        self.room_blocking();
        let mut state = self.lock();
        state.sealed.push_back(chunk);
        state.closed += 1;
        if !state.failed {
            self.queued.store(state.sealed.len(), Ordering::Release);
        }
        drop(state);
        self.work.notify_one();
    }

    /// Waits up to `patience` for work. Returns up to `most` closed chunks, and whether the writer must stop. First
    /// closes the open chunk if it has reached its age. Only the writer calls this.
    pub fn take(&self, most: usize, patience: Duration, now: impl Fn() -> Now) -> (Vec<Sealed>, bool) {
        let mut state = self.lock();
        if (state.sealed.is_empty() || state.failed) && !state.stop {
            self.work.wait_for(&mut state, patience);
        }
        let old = now().mono.saturating_sub(state.open.opened) >= CHUNK_AGE;
        if state.open.count > 0 && (old || state.stop) {
            self.seal(&mut state);
        }
        if state.failed {
            return (Vec::new(), state.stop);
        }
        let n = state.sealed.len().min(most);
        let batch = state.sealed.drain(..n).collect();
        (batch, state.stop && state.sealed.is_empty())
    }

    /// Notes that `n` chunks are in the database.
    pub fn written(&self, n: usize) {
        let mut state = self.lock();
        state.written += n as u64;
        self.queued.store(state.sealed.len(), Ordering::Release);
        drop(state);
        self.progress.notify_all();
        self.room.notify_waiters();
    }

    /// Puts chunks that could not be written back into the queue. Nothing more is written before [`Pending::resume`].
    pub fn failed(&self, batch: Vec<Sealed>) {
        let mut state = self.lock();
        for chunk in batch.into_iter().rev() {
            state.sealed.push_front(chunk);
        }
        state.failed = true;
        // No caller may wait for room now: announcements are refused.
        self.queued.store(0, Ordering::Release);
        drop(state);
        self.progress.notify_all();
        self.room.notify_waiters();
    }

    /// Lets the writer write the queue again, because the database was reopened.
    pub fn resume(&self) {
        let mut state = self.lock();
        state.failed = false;
        self.queued.store(state.sealed.len(), Ordering::Release);
        self.work.notify_all();
    }

    /// Returns true if the queue has room.
    pub fn has_room(&self) -> bool {
        self.lock().sealed.len() < QUEUE
    }

    /// Closes the open chunk. Waits until everything appended before this call is in the database, but not fsynced.
    ///
    /// # Errors
    /// [`StoreError::Database`] if the database is degraded, or if the writer has ended before it wrote everything.
    pub fn drain(&self) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.open.count > 0 {
            self.seal(&mut state);
            self.work.notify_one();
        }
        let goal = state.closed;
        while state.written < goal {
            if state.failed {
                return Err(StoreError::Database(
                    "cannot write the log: a write to the disk failed; see `dhtstore stat`".into(),
                ));
            }
            self.progress.wait(&mut state);
        }
        Ok(())
    }

    /// Makes the writer write the whole queue and end.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.work.notify_all();
        self.progress.notify_all();
    }

    /// Moves the open chunk to the queue. Callers other than the writer then notify it.
    fn seal(&self, state: &mut State) {
        let open = std::mem::take(&mut state.open);
        state.sealed.push_back(Sealed { time: open.time, body: open.body, count: open.count });
        state.closed += 1;
        if !state.failed {
            self.queued.store(state.sealed.len(), Ordering::Release);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}
