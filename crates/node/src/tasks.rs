//! The tasks of a node, and how they end: first those that serve others, then the rest.

use crate::vital::Vital;
use futures::{FutureExt, future::BoxFuture};
use std::time::Duration;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// How long requests under way may take to be answered when the node stops.
const DRAIN: Duration = Duration::from_secs(5);

/// How long the other tasks may take to end after that.
const END: Duration = Duration::from_secs(2);

/// The tasks of one node. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    draining: CancellationToken,
    stop: CancellationToken,
    serving: TaskTracker,
    others: TaskTracker,
    vital: Vital,
}

impl Tasks {
    /// Starts a task that ends with the node: its result is `None` then.
    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.others.spawn(self.stop.clone().run_until_cancelled_owned(task))
    }

    /// The same for a task that has to run as long as the node does: its panic ends the process.
    pub(crate) fn spawn_vital<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.spawn(self.vital.watch(name, task));
    }

    /// Starts the vital task that watches [`Tasks::stopping`] itself, to say goodbye.
    pub(crate) fn spawn_last<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.others.spawn(self.vital.watch(name, task));
    }

    /// Work for a stream of others that somebody else drives: it ends with the node, which waits for it while it drains.
    pub(crate) fn serving<F>(&self, work: F) -> BoxFuture<'static, ()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let counted: TaskTrackerToken = self.serving.token();
        let counted = async move {
            work.await;
            drop(counted);
        };
        self.stop.clone().run_until_cancelled_owned(counted).map(|_| ()).boxed()
    }

    /// How many streams of others are served.
    pub(crate) fn served(&self) -> usize {
        self.serving.len()
    }

    /// Cancelled once no new requests are taken.
    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Cancelled once everything ends.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// The watch over the tasks without which the node is only half a node.
    pub(crate) fn vital(&self) -> &Vital {
        &self.vital
    }

    /// Lets requests under way be answered for at most 5 s, then ends all tasks; waits for those for at most 2 s.
    pub(crate) async fn end(&self) {
        self.draining.cancel();
        self.serving.close();
        let _ = timeout(DRAIN, self.serving.wait()).await;
        self.stop.cancel();
        self.others.close();
        let _ = timeout(END, self.others.wait()).await;
    }
}
