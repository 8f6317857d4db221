//! Limits how long a stream may wait for its next request.

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

/// Ends when a stream was idle for too long, when the node shuts down, or when it becomes a client. Created once per
/// stream, not per request: all streams of the process share the timers and waiting lists behind it. To enter and leave
/// these for each request cost more than to look up the record that the request asks for.
pub(super) struct Patience {
    /// Fires at `until` or earlier. If it fires early, it is reset to `until`: about once per idle time-out.
    timer: Pin<Box<Sleep>>,
    until: Instant,
    /// One future, which ends at shutdown or in client mode. It is in a set because a set polls it only after a
    /// wake-up: each poll takes the locks of the lists behind it.
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
                // An error means that the node is gone.
                _ = mode.wait_for(|decision| !decision.serves(dht)) => {}
            }
        };
        let over = FuturesUnordered::from_iter([over.boxed()]);
        Self { timer: Box::pin(sleep(idle)), until: clock::timer() + idle, over }
    }

    /// Restarts the idle time-out.
    pub(super) fn renew(&mut self, idle: Duration) {
        self.until = clock::timer() + idle;
    }

    /// Is ready when the stream must end.
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
