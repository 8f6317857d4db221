//! Loading rows of a dump.

use super::{Ops, OpsError};
use crate::store::load::Report;
use std::sync::Arc;

/// Lines of a dump, without its header and its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lines {
    /// Their text. It is held in memory as a whole, so the caller must bound it.
    pub text: Vec<u8>,
    /// The number of the first line, for messages about bad lines.
    pub first: u64,
    /// Whether own CIDs of the dump become own CIDs of this node.
    pub provided: bool,
}

impl Ops {
    /// Loads rows of a dump, one batch at a time. They are on disk within 2 s, or after [`Ops::flush`].
    ///
    /// # Errors
    /// [`OpsError::Store`] if the database cannot be written; [`OpsError::Full`] at the limit of own CIDs;
    /// [`OpsError::Stopped`].
    pub async fn load(&self, lines: Lines) -> Result<Report, OpsError> {
        let loader = Arc::clone(&self.handles.limits.loader);
        let load = move || loader.lock().load(&lines.text, lines.first, lines.provided);
        Ok(tokio::task::spawn_blocking(load).await??)
    }

    /// Writes everything that was accepted so far to disk.
    ///
    /// # Errors
    /// [`OpsError::Store`].
    pub async fn flush(&self) -> Result<(), OpsError> {
        Ok(self.handles.store.flush().await?)
    }
}
