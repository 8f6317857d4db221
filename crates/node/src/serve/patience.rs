//! How long a stream is waited on for its next request.

use crate::{
    clock,
    kad::{Dht, mode::Decision},
    metrics::Metrics,
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::CancellationToken;

/// Until a stream is idle for too long, the node shuts down or becomes a client. Made once per stream and not per request:
/// timers and waiting lists are shared by all streams of the process, and to enter and leave them for each request cost
/// more than the look-up of its record.
pub(super) struct Patience {
    /// Rings at `until` or before: it is set anew when it rings, about once in the time that a stream may be idle.
    timer: Pin<Box<Sleep>>,
    until: Instant,
    /// One future, which ends with shutdown or client mode. In a set of its own, since that polls it only when it has
    /// been woken: each look at the lists behind it takes their locks.
    over: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Patience {
    pub(super) fn new(
        idle: Duration,
        draining: CancellationToken,
        mut mode: watch::Receiver<Decision>,
        dht: Dht,
    ) -> Self {
        let over = async move {
            tokio::select! {
                () = draining.cancelled() => {}
                // An error would mean that the node is gone.
                _ = mode.wait_for(|decision| !decision.serves(dht)) => {}
            }
        };
        let over = FuturesUnordered::from_iter([over.boxed()]);
        Self { timer: Box::pin(sleep(idle)), until: clock::timer() + idle, over }
    }

    /// From now on for so long.
    pub(super) fn renew(&mut self, idle: Duration) {
        self.until = clock::timer() + idle;
    }

    /// Ready when it is at its end.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>, metrics: &Metrics) -> Poll<()> {
        if self.over.poll_next_unpin(cx).is_ready() {
            return Poll::Ready(());
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if clock::timer() >= self.until {
                metrics.stream_idle.inc();
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.until);
        }
        Poll::Pending
    }
}
