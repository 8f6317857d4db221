//! Tasks that a node cannot do without. A panic of one ends the process, so that systemd or an operator restarts a
//! whole node. What is on disk is then as consistent as after a kill.
//!
//! Panics that cost one stream, one job or one connection are caught elsewhere and not reported here.

use futures::FutureExt;
use std::{any::Any, future::Future, panic::AssertUnwindSafe, sync::Arc};
use tokio::sync::watch;

/// Environment variable that names a task. In debug builds that task panics a second after its start, for the tests of
/// the process.
const PANIC_TASK: &str = "PANIC_VITAL_TASK";

/// Watches the vital tasks of a node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Vital {
    failed: Arc<watch::Sender<Option<Failed>>>,
}

/// The first vital task that panicked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the task {task:?} panicked: {panic}")]
pub struct Failed {
    /// Name of the task.
    pub task: &'static str,
    /// Message of the panic.
    pub panic: String,
}

impl Default for Vital {
    fn default() -> Self {
        Self { failed: Arc::new(watch::Sender::new(None)) }
    }
}

impl Vital {
    /// Wraps a task. If it panics, [`Self::failed`] reports that, and the result is `None`.
    pub fn watch<F: Future>(&self, name: &'static str, task: F) -> impl Future<Output = Option<F::Output>> + use<F> {
        let vital = self.clone();
        let guarded = async move {
            if cfg!(debug_assertions) && std::env::var_os(PANIC_TASK).is_some_and(|wanted| wanted == name) {
                let task = std::pin::pin!(task);
                let due = tokio::time::sleep(std::time::Duration::from_secs(1));
                tokio::select! {
                    output = task => return output,
                    () = due => panic!("{PANIC_TASK} is set"),
                }
            }
            task.await
        };
        async move {
            match AssertUnwindSafe(guarded).catch_unwind().await {
                Ok(output) => Some(output),
                Err(panic) => {
                    vital.report(Failed { task: name, panic: panic_text(panic.as_ref()) });
                    None
                }
            }
        }
    }

    /// Waits until a vital task has panicked.
    pub async fn failed(&self) -> Failed {
        let mut failed = self.failed.subscribe();
        loop {
            if let Some(failed) = failed.borrow_and_update().clone() {
                return failed;
            }
            // `self` holds the sender, so this never fails.
            let _ = failed.changed().await;
        }
    }

    fn report(&self, failed: Failed) {
        tracing::error!(task = failed.task, panic = failed.panic, "a vital task panicked; the process ends");
        self.failed.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(failed);
            is_first
        });
    }
}

/// Returns the message of a panic.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    said.unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_panic_is_reported_by_name_and_an_ordinary_end_is_not() {
        let vital = Vital::default();
        assert_eq!(vital.watch("ends", async { 7 }).await, Some(7));
        assert!(vital.failed().now_or_never().is_none());
        assert_eq!(vital.watch("one", async { panic!("why {}", 1) }).await, None::<()>);
        assert_eq!(vital.watch("two", async { panic!("later") }).await, None::<()>);
        assert_eq!(vital.failed().await, Failed { task: "one", panic: "why 1".into() });
    }
}
