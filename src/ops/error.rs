//! The errors of operations.

use crate::store::StoreError;
use std::error::Error;
use tokio::task::JoinError;

/// Why an operation failed. Callers map the variants to codes of their own.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    /// An argument is malformed or makes no sense. The same request fails again.
    #[error(transparent)]
    BadInput(Box<dyn Error + Send + Sync>),
    /// The network or the disk did not do what was asked.
    #[error(transparent)]
    Failed(Box<dyn Error + Send + Sync>),
    /// Too many operations of this kind run at the same time.
    #[error("{0}; try again")]
    TryAgain(String),
    /// The limit on own CIDs is reached.
    #[error("limit of {limit} {what} reached; raise reprovide.max_cids or `dhtstore unprovide` some")]
    Full {
        /// What the limit counts.
        what: &'static str,
        /// The most that may be stored.
        limit: usize,
    },
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
    /// A thread of the operation has panicked, or the daemon is stopping.
    #[error(transparent)]
    Stopped(#[from] JoinError),
}

impl From<StoreError> for OpsError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full { what, limit } => Self::Full { what, limit },
            error @ StoreError::BadFilter { .. } => Self::BadInput(error.into()),
            error => Self::Store(error),
        }
    }
}
