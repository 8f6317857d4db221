//! Why a daemon cannot start or stop.

use crate::{
    config::ConfigError,
    control::server::ControlError,
    node::NodeError,
    schedule::ScheduleError,
    store::StoreError,
    transport::{identity::IdentityError, swarm_key::SwarmKeyError},
    vital::Failed,
};
use std::time::Duration;
use tokio::task::JoinError;

/// Why a daemon cannot start, or has not stopped well. One variant for each cause; the messages are those of the causes.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration does not fit the identity.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The swarm key of a private network cannot be used.
    #[error(transparent)]
    SwarmKey(#[from] SwarmKeyError),
    /// The identity can be neither read nor created.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The data directory cannot be locked or the store opened; at the end, the store cannot be closed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The process may open too few files for a single connection.
    #[error(
        "cannot serve with {limit} open files: the store, the control socket and the first connections take {least}; raise LimitNOFILE (ulimit -n)"
    )]
    OpenFiles {
        /// The limit.
        limit: u64,
        /// The smallest limit that would do.
        least: u64,
    },
    /// The control socket cannot be opened.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The node cannot start.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The jobs cannot be scheduled.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The thread that opens the store has panicked.
    #[error(transparent)]
    Panicked(#[from] JoinError),
    /// A vital task has panicked by the time of the stop.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// Stopping took too long, and the rest was dropped.
    #[error("not stopped within {0:?}; what is on disk is consistent")]
    NotStopped(Duration),
}
