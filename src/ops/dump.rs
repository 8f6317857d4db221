//! Stored rows: a dump of them, and what a backup needs before it.

use super::{Ops, OpsError};
use crate::{
    schedule::jobs,
    store::dump::{self, Filter, Summary, Told, Want},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Dumps that run at the same time; each keeps a thread.
pub const DUMPS_MAX: usize = 4;

/// The right to run one of [`DUMPS_MAX`] dumps; held until it ends.
#[derive(Debug)]
pub struct DumpTurn {
    _permit: OwnedSemaphorePermit,
}

impl Ops {
    /// Waits up to `patience` for one of [`DUMPS_MAX`] turns.
    ///
    /// # Errors
    /// [`OpsError::TryAgain`] if none has become free.
    pub async fn dump_turn(&self, patience: Duration) -> Result<DumpTurn, OpsError> {
        let turns: Arc<Semaphore> = Arc::clone(&self.handles.limits.dumps);
        // Of one that is free now, also without patience.
        if let Ok(permit) = Arc::clone(&turns).try_acquire_owned() {
            return Ok(DumpTurn { _permit: permit });
        }
        match tokio::time::timeout(patience, turns.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(DumpTurn { _permit: permit }),
            _ => Err(OpsError::TryAgain(format!("{DUMPS_MAX} dumps are under way"))),
        }
    }

    /// Hands the parts of a dump to `each`, on a thread that may block, until it returns false. Constant memory: the dump
    /// goes on when `each` has returned. Returns the sums.
    ///
    /// # Errors
    /// [`OpsError::BadInput`] for a filter that is no CID or peer id; [`OpsError::Store`]; [`OpsError::Stopped`].
    pub async fn dump(
        &self,
        turn: DumpTurn,
        filter: Filter,
        want: Want,
        mut each: impl FnMut(Told<'_>) -> bool + Send + 'static,
    ) -> Result<Summary, OpsError> {
        let store = self.handles.store.clone();
        let dumped = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            dump::running(&store, &filter, want, &mut each)
        });
        Ok(dumped.await??)
    }

    /// Saves the routing tables, so that a backup has them. Returns what was saved; `None` while saving would lose more
    /// than it adds, soon after a start.
    ///
    /// # Errors
    /// [`OpsError::Failed`] if they cannot be written.
    pub async fn save_routing(&self) -> Result<Option<String>, OpsError> {
        let handles = &self.handles;
        jobs::save_routing(handles.node.clone(), handles.store.clone(), self.uptime()).await.map_err(OpsError::Failed)
    }
}
