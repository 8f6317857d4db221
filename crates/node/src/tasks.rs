//! The tasks of a node. At shutdown those that serve other peers end first, then the rest.

use crate::vital::Vital;
use futures::{FutureExt, future::BoxFuture};
use std::time::Duration;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// Time for requests under way to be answered when the node stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Time for the other tasks to end after that.
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
    /// Starts a task that is cancelled when the node stops; its result is `None` then.
    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.others.spawn(self.stop.clone().run_until_cancelled_owned(task))
    }

    /// Starts a task that must run as long as the node does: its panic ends the process.
    pub(crate) fn spawn_vital<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.spawn(self.vital.watch(name, task));
    }

    /// Starts a vital task that watches [`Tasks::stopping`] itself, so that it can close connections.
    pub(crate) fn spawn_last<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.others.spawn(self.vital.watch(name, task));
    }

    /// Wraps the work for an inbound stream, which the caller runs. A node that drains waits for this work; a node that
    /// stops cancels it.
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

    /// Returns the number of inbound streams being served.
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

    /// See [`crate::Node::vital`].
    pub(crate) fn vital(&self) -> &Vital {
        &self.vital
    }

    /// Waits at most 5 s for requests under way to be answered, then cancels all tasks and waits at most 2 s for them.
    pub(crate) async fn end(&self) {
        self.draining.cancel();
        self.serving.close();
        let _ = timeout(DRAIN, self.serving.wait()).await;
        self.stop.cancel();
        self.others.close();
        let _ = timeout(END, self.others.wait()).await;
    }
}
