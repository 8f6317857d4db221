//! The progress of the replay of the log.

use parking_lot::{Condvar, Mutex, MutexGuard};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

/// Limit of the progress that is shown before replay has ended.
const NOT_DONE: f64 = 0.99;

/// The progress of a replay.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicBool,
    /// First key that is replayed. Chunks below it had expired.
    pub first: AtomicU64,
    /// Last key that is replayed.
    pub last: AtomicU64,
    unclaimed: Mutex<Unclaimed>,
    /// Number of chunks that were read whole.
    found: AtomicU64,
    ended: Mutex<()>,
    end: Condvar,
}

/// The keys that no thread has claimed yet.
#[derive(Debug, Default)]
pub struct Unclaimed {
    /// The highest of them; `None` once all are claimed.
    pub to: Option<u64>,
    /// Number of threads that are reading claimed keys.
    pub reading: usize,
}

impl Unclaimed {
    /// Returns true if no key is left to claim, and none is being read.
    pub fn is_read(&self) -> bool {
        self.to.is_none() && self.reading == 0
    }
}

impl Progress {
    /// Returns true once all of the log is in the index.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Returns the progress from 0.0 to 1.0, as a share of the time that the log spans. It is 1.0 only once all of the
    /// log is in the index.
    pub fn progress(&self) -> f64 {
        if self.is_done() {
            return 1.0;
        }
        let (first, last) = (self.first.load(Ordering::Relaxed), self.last.load(Ordering::Relaxed));
        let to = self.lock().to.unwrap_or(first);
        let read = last.saturating_sub(to) as f64 / last.saturating_sub(first).max(1) as f64;
        // The last claims are still being read or entered into the index.
        read.min(NOT_DONE)
    }

    /// Returns the number of chunks that were read whole.
    pub fn found(&self) -> u64 {
        self.found.load(Ordering::Relaxed)
    }

    /// Counts a chunk that was read whole.
    pub fn count(&self) {
        self.found.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for the end of replay. Returns false if the store closes before that.
    pub fn wait(&self, is_closing: impl Fn() -> bool) -> bool {
        let mut guard = self.ended.lock();
        while !self.is_done() && !is_closing() {
            let timeout = Duration::from_millis(100);
            self.end.wait_for(&mut guard, timeout);
        }
        self.is_done()
    }

    /// Notes that all of the log is in the index, and wakes the callers that wait for it.
    pub fn finish(&self) {
        self.done.store(true, Ordering::Release);
        let _guard = self.ended.lock();
        self.end.notify_all();
    }

    /// Locks the keys that no thread has claimed yet.
    pub fn lock(&self) -> MutexGuard<'_, Unclaimed> {
        self.unclaimed.lock()
    }
}
