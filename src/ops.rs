//! The operations of a running daemon, with typed arguments and answers. The control socket calls them, and so can a
//! program that owns a [`crate::daemon::Daemon`]. Sockets, JSON and command lines are elsewhere.

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

/// The operations of a running daemon. Each module of [`crate::ops`] has a group of them. Cheap to clone.
///
/// An operation is a future: it works while it is polled, and ends when it is dropped. Its events go to a channel with
/// a bound that the caller chooses, or are read from an [`underway::Underway`].
#[derive(Clone, Debug)]
pub struct Ops {
    handles: Arc<Handles>,
}

/// The parts of a daemon that operations use.
#[derive(Debug)]
pub(crate) struct Handles {
    /// The effective configuration.
    pub config: Config,
    pub node: Node,
    pub store: Store,
    /// Announces own CIDs.
    pub reprovider: Reprovider,
    pub schedule: Schedule,
    pub clock: Arc<dyn Clock>,
    /// Monotonic time at the start of the daemon.
    pub started: Duration,
    /// Returns the number of log lines lost so far.
    pub lost_log_lines: fn() -> u64,
    pub limits: Limits,
}

/// Limits on operations that run at the same time.
#[derive(Debug)]
pub(crate) struct Limits {
    dumps: Arc<Semaphore>,
    /// Lists of own CIDs that take much memory, see [`own::list`].
    long_lists: Arc<Semaphore>,
    /// Loads one batch at a time.
    loader: Arc<Mutex<Loader>>,
}

impl Limits {
    /// Returns the limits of a daemon with this store.
    pub fn new(store: Store) -> Self {
        Self {
            dumps: Arc::new(Semaphore::new(dump::DUMPS_MAX)),
            long_lists: Arc::new(Semaphore::new(own::list::LONG_MAX)),
            loader: Arc::new(Mutex::new(Loader::new(store))),
        }
    }
}

impl Ops {
    pub(crate) fn new(handles: Handles) -> Self {
        Self { handles: Arc::new(handles) }
    }
}
