//! Why an operation failed.

use crate::store::StoreError;
use tokio::task::JoinError;

/// Why an operation failed. A door maps the variants to codes of its own.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    /// An argument is malformed or does not make sense; the same request fails again.
    #[error("{0}")]
    BadInput(String),
    /// The network did not do what was asked.
    #[error("{0}")]
    Failed(String),
    /// A limit of the daemon on work at the same time; try again.
    #[error("{0}; try again")]
    TryAgain(String),
    /// The limit of own CIDs.
    #[error("limit of {limit} {what} reached; raise reprovide.max_cids or `dhtstore unprovide` some")]
    Full {
        /// What there would be too many of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The disk, or the database on it.
    #[error(transparent)]
    Store(StoreError),
    /// A thread of the operation has panicked, or the daemon is on its way down.
    #[error(transparent)]
    Stopped(#[from] JoinError),
}

impl From<StoreError> for OpsError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full { what, limit } => Self::Full { what, limit },
            error @ StoreError::BadFilter { .. } => Self::BadInput(error.to_string()),
            error => Self::Store(error),
        }
    }
}
