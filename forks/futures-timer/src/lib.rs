//! The interface of `futures-timer`, over tokio's timers.
//!
//! futures-timer has a thread of its own that every delay wakes when it is made, reset and dropped. Each libp2p connection makes some
//! ten of them. Here a delay is a timer of the runtime that polls it, made at its first poll: one that is never polled
//! costs nothing.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

/// A future that is ready once its time has come. It must be polled within a tokio runtime.
pub struct Delay {
    at: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// Stands for a time that lies beyond what [`Instant`] can say.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn after(duration: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(duration).unwrap_or(now + FAR)
}

impl Delay {
    /// Is ready after `duration`.
    #[must_use]
    pub fn new(duration: Duration) -> Self {
        Self { at: after(duration), sleep: None }
    }

    /// Begins again: ready after `duration` from now.
    pub fn reset(&mut self, duration: Duration) {
        self.at = after(duration);
        if let Some(sleep) = &mut self.sleep {
            sleep.as_mut().reset(self.at);
        }
    }
}

impl Future for Delay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let at = self.at;
        self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at))).as_mut().poll(cx)
    }
}

impl fmt::Debug for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delay").field("at", &self.at).finish_non_exhaustive()
    }
}
