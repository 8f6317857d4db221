//! The open chunk of the log, and the closed ones that wait for the writer.
//!
//! Whoever announces appends to the open chunk: a copy of some 40 bytes. The writer thread takes chunks of up to 850
//! entries. Nobody waits for the disk, unless the writer is a whole queue behind.

use super::{entry::Entry, time::Now};
use crate::{StoreError, codec};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::{
    collections::VecDeque,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::sync::Notify;

/// No entry can be longer, in bytes: the number of a peer, a length of one byte, and as many bytes as that can tell.
const MAX_ENTRY: usize = 5 + 1 + u8::MAX as usize;
/// A chunk closes at this size, in bytes: the cost of its row in sled is spread over some 850 records, and it stays well
/// below the codec's limit. Replay, GC and dumps hold one at a time.
pub const CHUNK_BYTES: usize = 30_000;
/// ... at this many entries, so that a chunk of tiny multihashes decodes under the codec's limit as well (it counts
/// 32 bytes of memory for each) ...
pub const CHUNK_ENTRIES: u32 = 1024;
/// ... or at this age: what a crash may lose, with sled's 500 ms. Measured at 1.5k records/s: 138 B written per record
/// with 1 s, 254 B with 100 ms.
pub const CHUNK_AGE: Duration = Duration::from_secs(1);
/// Closed chunks that may wait: 2 MB, 50,000 records. Beyond, `add` waits.
const QUEUE: usize = 64;

/// A closed chunk.
#[derive(Debug)]
pub struct Sealed {
    /// Unix seconds.
    pub time: u32,
    /// Encoded entries.
    pub body: Vec<u8>,
    /// How many.
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
    /// Chunks closed, and chunks written, since start.
    closed: u64,
    written: u64,
    failed: bool,
    stop: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Pending {
    state: Mutex<State>,
    queued: AtomicUsize,
    /// There is something to write.
    work: Condvar,
    /// Something was written, or never will be.
    progress: Condvar,
    room: Notify,
}

impl Pending {
    /// Whether [`Pending::room`] would wait.
    pub fn is_behind(&self) -> bool {
        self.queued.load(Ordering::Acquire) >= QUEUE
    }

    /// Waits until the writer is less than a queue behind.
    pub async fn room(&self) {
        while self.is_behind() {
            let notified = self.room.notified();
            if !self.is_behind() {
                return;
            }
            notified.await;
        }
    }

    /// The same for threads.
    pub fn room_blocking(&self) {
        if !self.is_behind() {
            return;
        }
        let mut state = self.lock();
        while state.sealed.len() >= QUEUE && !state.failed && !state.stop {
            self.progress.wait(&mut state);
        }
    }

    /// Appends an entry and returns its time, that of its chunk. Never waits; callers that came through
    /// [`Pending::room`] together may exceed the queue by one entry each.
    pub fn append(&self, now: &Now, entry: Entry<'_>) -> u32 {
        // Before the lock, which is everybody's.
        let mut buffer = [0; MAX_ENTRY];
        let encoded = match codec::fill(&mut buffer, &entry) {
            Ok(len) => &buffer[..len],
            Err(error) => {
                // Cannot happen to these types; the index has the record all the same.
                tracing::error!(%error, "an entry of the log cannot be encoded");
                return now.log;
            }
        };
        let mut state = self.lock();
        let open = &state.open;
        let full = open.count >= CHUNK_ENTRIES || open.body.len() + MAX_ENTRY > CHUNK_BYTES;
        // Behind the chunk's time: the base of log time was moved back.
        let stale = now.mono.saturating_sub(open.opened) >= CHUNK_AGE || now.log < open.time;
        if open.count > 0 && (full || stale) {
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
        open.time
    }

    /// A chunk of another time, from a dump. Waits for room, as announcements do.
    pub fn push(&self, chunk: Sealed) {
        self.room_blocking();
        let mut state = self.lock();
        state.sealed.push_back(chunk);
        state.closed += 1;
        if !state.failed {
            self.queued.store(state.sealed.len(), Ordering::Release);
        }
        self.work.notify_one();
    }

    /// For the writer: waits up to `patience`, then gives up to `most` closed chunks, the open one with them if it is
    /// old, and whether to stop.
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

    /// `n` chunks are in the database.
    pub fn written(&self, n: usize) {
        let mut state = self.lock();
        state.written += n as u64;
        self.queued.store(state.sealed.len(), Ordering::Release);
        drop(state);
        self.progress.notify_all();
        self.room.notify_waiters();
    }

    /// These chunks could not be written, nor will others be before [`Pending::resume`]. They stay in the queue.
    pub fn failed(&self, batch: Vec<Sealed>) {
        let mut state = self.lock();
        for chunk in batch.into_iter().rev() {
            state.sealed.push_front(chunk);
        }
        state.failed = true;
        // Nobody may wait for room: what comes is refused.
        self.queued.store(0, Ordering::Release);
        drop(state);
        self.progress.notify_all();
        self.room.notify_waiters();
    }

    /// The database was opened anew: what is in the queue is written.
    pub fn resume(&self) {
        let mut state = self.lock();
        state.failed = false;
        self.queued.store(state.sealed.len(), Ordering::Release);
        self.work.notify_all();
    }

    /// Whether there is room for an entry that was not waited for.
    pub fn has_room(&self) -> bool {
        self.lock().sealed.len() < QUEUE
    }

    /// Closes the open chunk and waits until everything appended before this call is in the database (not fsynced).
    ///
    /// # Errors
    /// [`StoreError::Database`] if the writer has failed or ended.
    pub fn drain(&self) -> Result<(), StoreError> {
        let mut state = self.lock();
        if state.open.count > 0 {
            self.seal(&mut state);
        }
        let goal = state.closed;
        while state.written < goal {
            if state.failed {
                return Err(StoreError::Database(
                    "takes no writes since an error of the disk; see `dhtstore stat`".into(),
                ));
            }
            self.progress.wait(&mut state);
        }
        Ok(())
    }

    /// Tells the writer to write what there is and end.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.work.notify_all();
        self.progress.notify_all();
    }

    fn seal(&self, state: &mut State) {
        let open = std::mem::take(&mut state.open);
        state.sealed.push_back(Sealed { time: open.time, body: open.body, count: open.count });
        state.closed += 1;
        if !state.failed {
            self.queued.store(state.sealed.len(), Ordering::Release);
        }
        self.work.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}
