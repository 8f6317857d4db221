//! Clocks. This is the only module that reads the time; all other code takes a [`Clock`] or a time.

use parking_lot::Mutex;
use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Seconds since the Unix epoch: the resolution in which records are dated (valid until 2106).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct UnixTime(pub u32);

impl UnixTime {
    /// Returns the time that has passed since `earlier`; zero if that lies in the future.
    pub fn since(self, earlier: UnixTime) -> Duration {
        Duration::from_secs(u64::from(self.0.saturating_sub(earlier.0)))
    }
}

impl fmt::Display for UnixTime {
    /// Writes RFC 3339 in UTC, to the second.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = UNIX_EPOCH + Duration::from_secs(u64::from(self.0));
        humantime::format_rfc3339_seconds(time).fmt(f)
    }
}

/// A source of time: the system in production, a [`ManualClock`] in tests and simulation.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Returns the time of the wall clock, which may step in either direction at any moment.
    fn wall(&self) -> UnixTime;
    /// Returns the time since an arbitrary fixed moment. It never goes back, and ignores steps of the wall clock.
    fn monotonic(&self) -> Duration;
}

/// The clocks of the machine.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// Makes a clock whose monotonic time begins now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { origin: Instant::now() })
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    fn wall(&self) -> UnixTime {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        UnixTime(u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// A clock that moves only on request.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<(UnixTime, Duration)>,
}

impl ManualClock {
    /// Makes a clock that stands still at `wall`.
    pub fn at(wall: UnixTime) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new((wall, Duration::ZERO)) })
    }

    /// Moves both clocks forward, as passing time does.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state.lock();
        state.1 += by;
        let seconds = u32::try_from(by.as_secs()).unwrap_or(u32::MAX);
        state.0 = UnixTime(state.0.0.saturating_add(seconds));
    }

    /// Sets the wall clock alone, as `date -s` or NTP does.
    pub fn set_wall(&self, wall: UnixTime) {
        self.state.lock().0 = wall;
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> UnixTime {
        self.state.lock().0
    }

    fn monotonic(&self) -> Duration {
        self.state.lock().1
    }
}

/// Returns the time of the runtime's timers: for deadlines, never for dates.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn timer() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
