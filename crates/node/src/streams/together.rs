//! Runs the work for the inbound streams of one connection in one task. Requests that arrive together are answered in
//! one turn of that task, so that their answers leave together: one system call for several, over QUIC as well. A peer
//! with many streams gets the processor time of one task, or of two: a stream that is alone when it begins has a task
//! of its own. Most connections have only that one stream, and a single request costs less without a queue of tasks
//! inside a task.

use futures::{
    FutureExt,
    future::BoxFuture,
    stream::{FuturesUnordered, StreamExt},
};
use std::panic::AssertUnwindSafe;
use tokio::sync::mpsc;

/// The work for one stream, to its end.
pub(crate) type Serving = BoxFuture<'static, ()>;

/// The task of one connection, started with the second stream. Dropping this does not stop work that has begun.
#[derive(Debug)]
pub(super) struct Together {
    /// Most streams at a time.
    pub(super) max: usize,
    task: Option<mpsc::Sender<Serving>>,
}

impl Together {
    /// Prepares the task of a connection with at most `max` streams at a time. The work for each stream holds a permit.
    pub(super) fn new(max: usize) -> Self {
        Self { max, task: None }
    }

    /// Starts the work for a stream. `alone`: the connection has no other stream.
    pub(super) fn spawn(&mut self, serving: Serving, alone: bool) {
        if alone {
            tokio::spawn(serving);
            return;
        }
        let task = self.task.get_or_insert_with(|| {
            let (task, begun) = mpsc::channel(self.max.max(1));
            tokio::spawn(run(begun));
            task
        });
        // Cannot fail: there is room for every permit, and the task ends only after the sender, or with the runtime.
        let _ = task.try_send(serving);
    }
}

async fn run(mut begun: mpsc::Receiver<Serving>) {
    let mut serving = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(_ended) = serving.next() => {}
            // A panic ends only its own stream, as in a task of its own.
            Some(one) = begun.recv() => serving.push(AssertUnwindSafe(one).catch_unwind()),
            else => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        future::pending,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };
    use tokio::{sync::oneshot, time::timeout};

    async fn within<T>(future: impl Future<Output = T>) -> T {
        timeout(Duration::from_secs(10), future).await.unwrap()
    }

    #[tokio::test]
    async fn each_goes_on_while_others_wait_or_panic() {
        let mut together = Together::new(64);
        together.spawn(pending().boxed(), false);
        for _ in 0..3 {
            together.spawn(async { panic!("of this stream only") }.boxed(), false);
            let (ended, end) = oneshot::channel();
            together.spawn(
                async move {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    ended.send(()).unwrap();
                }
                .boxed(),
                false,
            );
            within(end).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_was_begun_goes_on_after_the_connection_and_the_task_ends_with_it() {
        let alive = Arc::new(());
        let (go, goes) = oneshot::channel::<()>();
        let mut together = Together::new(64);
        let held = alive.clone();
        together.spawn(
            async move {
                goes.await.unwrap();
                drop(held);
            }
            .boxed(),
            false,
        );
        drop(together);
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&alive), 2);
        go.send(()).unwrap();
        within(async {
            while Arc::strong_count(&alive) > 1 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    #[tokio::test]
    async fn one_that_is_alone_and_those_after_it_all_go_on() {
        let mut together = Together::new(64);
        for alone in [true, false, false, true] {
            let (ended, end) = oneshot::channel();
            together.spawn(async move { ended.send(()).unwrap() }.boxed(), alone);
            within(end).await.unwrap();
        }
    }

    #[tokio::test]
    async fn those_that_wake_together_run_in_one_turn() {
        let mut together = Together::new(64);
        let (wake, _) = tokio::sync::watch::channel(());
        let ran = Arc::new(AtomicUsize::new(0));
        for _ in 0..20 {
            let (mut woken, ran) = (wake.subscribe(), ran.clone());
            together.spawn(
                async move {
                    woken.changed().await.unwrap();
                    ran.fetch_add(1, Ordering::Relaxed);
                }
                .boxed(),
                false,
            );
        }
        tokio::task::yield_now().await;
        wake.send(()).unwrap();
        // One turn of the only thread: this task runs again only after the streams' task.
        tokio::task::yield_now().await;
        assert_eq!(ran.load(Ordering::Relaxed), 20);
    }
}
