//! What a running daemon can be asked: operations with typed arguments and answers. They know nothing of sockets, JSON or
//! command lines; the control socket is one door to them, and Rust code that owns a [`crate::daemon::Daemon`] is another.

mod error;
mod inspect;
pub mod network;
pub mod verify;

pub use error::OpsError;
pub use inspect::Brief;

use crate::{clock::Clock, config::Config, node::Node, schedule::Schedule, store::Store};
use libp2p::{Multiaddr, PeerId};
use network::Reprovider;
use std::{sync::Arc, time::Duration};

/// The operations of a running daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ops {
    parts: Arc<Parts>,
}

/// The parts of a daemon that operations work with.
#[derive(Debug)]
pub(crate) struct Parts {
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
}

impl Ops {
    /// Operations on these parts.
    pub(crate) fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// The parts themselves.
    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The node's peer id.
    pub fn peer_id(&self) -> PeerId {
        self.parts.node.peer_id()
    }

    /// Bound listeners.
    pub fn listeners(&self) -> Vec<Multiaddr> {
        self.parts.node.listeners()
    }
}
