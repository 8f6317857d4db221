//! A clock that costs as much to read as the system's, and that can be moved by hours.

use dhtstore::clock::{Clock, SystemClock, UnixTime};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

#[derive(Debug)]
pub struct Shifted {
    system: Arc<SystemClock>,
    /// What this clock and the system's clock showed when this clock was made.
    begun: (UnixTime, UnixTime),
    ahead_ms: AtomicU64,
}

impl Shifted {
    /// Makes a clock that shows `wall` now.
    pub fn at(wall: UnixTime) -> Arc<Self> {
        let system = SystemClock::new();
        Arc::new(Self { begun: (wall, system.wall()), system, ahead_ms: AtomicU64::new(0) })
    }

    pub fn advance(&self, by: Duration) {
        self.ahead_ms.fetch_add(by.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Clock for Shifted {
    fn wall(&self) -> UnixTime {
        let (begun, system) = self.begun;
        UnixTime(begun.0 + (self.system.wall().0 - system.0) + (self.ahead_ms.load(Ordering::Relaxed) / 1000) as u32)
    }

    fn monotonic(&self) -> Duration {
        self.system.monotonic() + Duration::from_millis(self.ahead_ms.load(Ordering::Relaxed))
    }
}
