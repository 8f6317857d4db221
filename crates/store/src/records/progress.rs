//! How far the replay of the log has come.

use parking_lot::{Condvar, Mutex, MutexGuard};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

/// The most that is shown of a replay that is under way.
const NOT_DONE: f64 = 0.99;

/// How far replay has come.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicBool,
    /// Keys that are replayed: from the first (chunks below were expired) to the last.
    pub first: AtomicU64,
    /// See [`Progress::first`].
    pub last: AtomicU64,
    unclaimed: Mutex<Unclaimed>,
    /// Chunks that were read whole.
    found: AtomicU64,
    ended: Mutex<()>,
    end: Condvar,
}

/// What no thread has taken yet.
#[derive(Debug, Default)]
pub struct Unclaimed {
    /// The highest key of it; `None` once all is taken.
    pub to: Option<u64>,
    /// Threads that read what they took.
    pub reading: usize,
}

impl Unclaimed {
    /// Whether no chunk is left to take, and none is being read.
    pub fn is_read(&self) -> bool {
        self.to.is_none() && self.reading == 0
    }
}

impl Progress {
    /// True once the log is read.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// 0.0 to 1.0, by the time that the log spans; 1.0 only once all of it is in the index.
    pub fn progress(&self) -> f64 {
        if self.is_done() {
            return 1.0;
        }
        let (first, last) = (self.first.load(Ordering::Relaxed), self.last.load(Ordering::Relaxed));
        let to = self.lock().to.unwrap_or(first);
        let read = last.saturating_sub(to) as f64 / last.saturating_sub(first).max(1) as f64;
        // What was taken last is being read, and what was read enters the index.
        read.min(NOT_DONE)
    }

    /// Chunks of the log that were read whole.
    pub fn found(&self) -> u64 {
        self.found.load(Ordering::Relaxed)
    }

    /// A chunk was read whole.
    pub fn count(&self) {
        self.found.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for the end. False if the store closed before it.
    pub fn wait(&self, is_closing: impl Fn() -> bool) -> bool {
        let mut guard = self.ended.lock();
        while !self.is_done() && !is_closing() {
            let timeout = Duration::from_millis(100);
            self.end.wait_for(&mut guard, timeout);
        }
        self.is_done()
    }

    /// All of the log is in the index.
    pub fn finish(&self) {
        self.done.store(true, Ordering::Release);
        let _guard = self.ended.lock();
        self.end.notify_all();
    }

    /// What no thread has taken yet.
    pub fn lock(&self) -> MutexGuard<'_, Unclaimed> {
        self.unclaimed.lock()
    }
}
