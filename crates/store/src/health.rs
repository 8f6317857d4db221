//! Whether a database takes writes, and how often it failed.

use super::StoreError;
use parking_lot::Mutex;
use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

/// How a database is doing.
#[derive(Debug, Default)]
pub struct Health {
    failures: AtomicU64,
    /// Minute (of the monotonic clock) after the last logged failure.
    quiet_until_min: AtomicU64,
    /// For good: the store is closed, or was opened for reading.
    closed: AtomicBool,
    degraded: AtomicBool,
    why: Mutex<String>,
    /// Times that it was opened anew.
    reopened: AtomicU64,
}

impl Health {
    /// Counts a failure and logs it, at most one line a minute.
    pub fn failed(&self, doing: &'static str, error: &StoreError, mono: Duration) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let minute = mono.as_secs() / 60;
        if self.quiet_until_min.load(Ordering::Relaxed) <= minute {
            self.quiet_until_min.store(minute + 1, Ordering::Relaxed);
            tracing::error!(%error, doing, failures = self.failures(), "the database failed");
        }
    }

    pub(super) fn fault(&self, dir: &Path, error: &StoreError) {
        if matches!(error, StoreError::Degraded(_)) || self.degraded.swap(true, Ordering::AcqRel) {
            return;
        }
        *self.why.lock() = error.to_string();
        let dir = dir.display();
        tracing::error!(%error, "{dir} cannot be written: nothing is accepted, what is known is served; see to the disk, it is opened anew by itself");
    }

    pub(super) fn set_reopened(&self, dir: &Path) {
        self.degraded.store(false, Ordering::Release);
        self.reopened.fetch_add(1, Ordering::Relaxed);
        tracing::warn!("{} was opened anew and is written again", dir.display());
    }

    /// Takes no writes any more.
    pub fn close_for_writes(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether writes are refused.
    pub fn is_read_only(&self) -> bool {
        self.closed.load(Ordering::Acquire) || self.is_degraded()
    }

    /// Whether writes are refused until the database was opened anew.
    pub fn is_degraded(&self) -> bool {
        self.degraded.load(Ordering::Acquire)
    }

    /// Whether it takes no writes for good.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Failures since start.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Times that it was opened anew since start.
    pub fn reopened(&self) -> u64 {
        self.reopened.load(Ordering::Relaxed)
    }

    /// What `stat` says of it while it is degraded; `name` is that of its directory.
    pub fn note(&self, name: &str) -> Option<String> {
        let why = self.why.lock();
        self.is_degraded().then(|| {
            format!("{name}/ cannot be written ({why}): nothing is accepted, what is known is served; see to the disk, it is opened anew by itself")
        })
    }
}
