//! Dumps of stored rows, for `dump` and `backup`.

use super::{Ops, OpsError};
use crate::{
    schedule::jobs,
    store::dump::{self, Filter, Summary, Told, Want},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most dumps at the same time. Each uses a thread.
pub const DUMPS_MAX: usize = 4;

/// Permission to run one of [`DUMPS_MAX`] dumps, held until the dump ends.
#[derive(Debug)]
pub struct DumpTurn {
    _permit: OwnedSemaphorePermit,
}

impl Ops {
    /// Waits up to `patience` for permission to dump.
    ///
    /// # Errors
    /// [`OpsError::TryAgain`] if [`DUMPS_MAX`] other dumps still run after that time.
    pub async fn dump_turn(&self, patience: Duration) -> Result<DumpTurn, OpsError> {
        let turns: Arc<Semaphore> = Arc::clone(&self.handles.limits.dumps);
        // Takes a permit that is free now even if `patience` is zero.
        if let Ok(permit) = Arc::clone(&turns).try_acquire_owned() {
            return Ok(DumpTurn { _permit: permit });
        }
        match tokio::time::timeout(patience, turns.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(DumpTurn { _permit: permit }),
            _ => Err(OpsError::TryAgain(format!("{DUMPS_MAX} dumps are running, the most at the same time"))),
        }
    }

    /// Passes the parts of a dump to `each`, on a blocking thread, until it returns false. The dump waits for `each`,
    /// so that it takes constant memory. Returns the counts.
    ///
    /// # Errors
    /// [`OpsError::BadInput`] if the filter is not a CID or peer id; [`OpsError::Store`]; [`OpsError::Stopped`].
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

    /// Saves the routing tables, so that a backup has the newest ones. Returns what was saved, or `None` if nothing
    /// was: the tables are empty, or still far smaller than those saved before the start.
    ///
    /// # Errors
    /// [`OpsError::Failed`] if they cannot be written.
    pub async fn save_routing(&self) -> Result<Option<String>, OpsError> {
        let handles = &self.handles;
        jobs::save_routing(handles.node.clone(), handles.store.clone(), self.uptime()).await.map_err(OpsError::Failed)
    }
}
