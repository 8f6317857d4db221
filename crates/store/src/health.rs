//! Whether a database takes writes, and how often it failed.

use super::StoreError;
use parking_lot::Mutex;
use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

/// State of a database.
#[derive(Debug, Default)]
pub struct Health {
    failures: AtomicU64,
    /// The minute of the monotonic clock from which failures are logged again.
    quiet_until_min: AtomicU64,
    /// True for good once the store is closed, or if it was opened for reading.
    closed: AtomicBool,
    degraded: AtomicBool,
    why: Mutex<String>,
    /// Number of times that it was reopened.
    reopened: AtomicU64,
}

impl Health {
    /// Counts a failure and logs it, at most one line a minute.
    pub fn failed(&self, doing: &'static str, error: &StoreError, mono: Duration) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let minute = mono.as_secs() / 60;
        if self.quiet_until_min.load(Ordering::Relaxed) <= minute {
            self.quiet_until_min.store(minute + 1, Ordering::Relaxed);
            tracing::error!(%error, doing, failures = self.failures(), "a call to the database failed");
        }
    }

    pub(super) fn fault(&self, dir: &Path, error: &StoreError) {
        if matches!(error, StoreError::Degraded(_)) || self.degraded.swap(true, Ordering::AcqRel) {
            return;
        }
        *self.why.lock() = error.to_string();
        let dir = dir.display();
        tracing::error!(%error, "{dir} is read-only: writes are refused, stored data is served; fix the disk, dhtstore \
            reopens it by itself");
    }

    pub(super) fn set_reopened(&self, dir: &Path) {
        self.degraded.store(false, Ordering::Release);
        self.reopened.fetch_add(1, Ordering::Relaxed);
        tracing::warn!("{} is reopened and takes writes again", dir.display());
    }

    /// Refuses writes for good.
    pub fn close_for_writes(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Returns whether writes are refused.
    pub fn is_read_only(&self) -> bool {
        self.closed.load(Ordering::Acquire) || self.is_degraded()
    }

    /// Returns whether writes are refused until the database is reopened.
    pub fn is_degraded(&self) -> bool {
        self.degraded.load(Ordering::Acquire)
    }

    /// Returns whether writes are refused for good.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Returns the number of failures since the start.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Returns how often the database was reopened since the start.
    pub fn reopened(&self) -> u64 {
        self.reopened.load(Ordering::Relaxed)
    }

    /// Returns the note for `stat` while the database is degraded; `name` is the name of its directory.
    pub fn note(&self, name: &str) -> Option<String> {
        let why = self.why.lock();
        self.is_degraded().then(|| {
            format!(
                "{name}/ is read-only after a disk error ({why}): writes are refused, stored data is served; fix \
                the disk, dhtstore reopens it by itself"
            )
        })
    }
}
