//! What a running daemon can be asked: operations with typed arguments and answers. They know nothing of sockets, JSON or
//! command lines; the control socket is one door to them, and Rust code that owns a [`crate::daemon::Daemon`] is another.

pub mod diagnose;
pub mod dump;
mod error;
pub mod find;
pub mod inspect;
pub mod load;
pub mod network;
pub mod own;
pub mod underway;
pub mod values;
pub mod verify;

pub use crate::node::lookup::Event as QueryEvent;
pub use error::OpsError;

use crate::{
    clock::Clock,
    config::Config,
    node::Node,
    schedule::Schedule,
    store::{Store, load::Loader},
};
use network::Reprovider;
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// The operations of a running daemon; one file of [`crate::ops`] for each family. Cheap to clone. Each is a future that does
/// its work while it is polled, and ends when it is dropped. Events go to a channel whose bound the caller chooses, or are
/// read from an [`underway::Underway`].
#[derive(Clone, Debug)]
pub struct Ops {
    handles: Arc<Handles>,
}

/// Handles on the parts of a daemon, for the operations.
#[derive(Debug)]
pub(crate) struct Handles {
    /// The effective configuration.
    pub config: Config,
    /// The network.
    pub node: Node,
    /// The disk.
    pub store: Store,
    /// Own CIDs.
    pub reprovider: Reprovider,
    /// Jobs.
    pub schedule: Schedule,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Monotonic time at start.
    pub started: Duration,
    /// Returns the number of log lines lost so far.
    pub lost_log_lines: fn() -> u64,
    /// What operations share among themselves.
    pub limits: Limits,
}

/// What keeps operations of a kind from being too many at the same time.
#[derive(Debug)]
pub(crate) struct Limits {
    dumps: Arc<Semaphore>,
    /// Of which much is remembered.
    long_lists: Arc<Semaphore>,
    /// One batch at a time.
    loader: Arc<Mutex<Loader>>,
}

impl Limits {
    /// Of a daemon with this store.
    pub fn new(store: Store) -> Self {
        Self {
            dumps: Arc::new(Semaphore::new(dump::DUMPS_MAX)),
            long_lists: Arc::new(Semaphore::new(own::list::LONG_MAX)),
            loader: Arc::new(Mutex::new(Loader::new(store))),
        }
    }
}

impl Ops {
    /// Operations with these handles.
    pub(crate) fn new(handles: Handles) -> Self {
        Self { handles: Arc::new(handles) }
    }
}
