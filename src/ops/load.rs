//! Taking in rows of a dump.

use super::{Ops, OpsError};
use crate::store::load::Report;
use std::sync::Arc;

/// Some lines of a dump, without header and end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lines {
    /// Their text. The caller bounds it; a batch is held in memory as a whole.
    pub text: Vec<u8>,
    /// The number of the first, for what is said of bad ones.
    pub first: u64,
    /// Own CIDs of the dump become own CIDs here.
    pub provided: bool,
}

impl Ops {
    /// Takes rows of a dump in; one batch at a time. On disk within 1.5 s, or with [`Ops::flush`].
    ///
    /// # Errors
    /// [`OpsError::Store`] if the database takes no writes; [`OpsError::Full`] for own CIDs; [`OpsError::Stopped`].
    pub async fn load(&self, lines: Lines) -> Result<Report, OpsError> {
        let loader = Arc::clone(&self.handles.limits.loader);
        let load = move || loader.lock().load(&lines.text, lines.first, lines.provided);
        Ok(tokio::task::spawn_blocking(load).await??)
    }

    /// Brings all that was accepted so far to disk.
    ///
    /// # Errors
    /// [`OpsError::Store`].
    pub async fn flush(&self) -> Result<(), OpsError> {
        Ok(self.handles.store.flush().await?)
    }
}
