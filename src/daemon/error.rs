//! The errors of starting and stopping a daemon.

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

/// Why a daemon cannot start, or did not stop in order. Each cause has a variant, with the message of the cause.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration does not fit the identity.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The swarm key cannot be used.
    #[error(transparent)]
    SwarmKey(#[from] SwarmKeyError),
    /// The identity cannot be read or created.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The data directory cannot be locked, or the store cannot be opened or closed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The limit of open files leaves no room for a connection.
    #[error(
        "cannot serve with {limit} open files: the store, the control socket and the first connections take {least}; \
            raise LimitNOFILE (ulimit -n)"
    )]
    OpenFiles {
        /// The limit.
        limit: u64,
        /// The smallest limit that suffices.
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
    /// A vital task had panicked before the daemon stopped.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// Stopping took too long. The remaining tasks were dropped.
    #[error("cannot stop in order within {0:?}; what is on disk is consistent")]
    NotStopped(Duration),
}
