//! Asks the swarm task for connections, a limited number at a time, because a dial over the connection limits fails
//! instead of waiting.

use crate::{error::RpcError, peers::Peers};
use libp2p::{Multiaddr, PeerId};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

/// Capacity of the queue of commands for the swarm task. Dials are limited before they get here.
pub(crate) const MAX_COMMANDS: usize = 256;

/// Time-out of a dial command. Dials have their own time-out in the transport; this one catches a command that is never
/// answered.
const DIAL_TIMEOUT: Duration = Duration::from_secs(15);

/// Most addresses of one peer that are tried.
const MAX_DIALLED: usize = 16;

/// Receives the outcome of a dial.
pub(crate) type Reply = oneshot::Sender<Result<PeerId, RpcError>>;

/// A command for the swarm task.
#[derive(Debug)]
pub(crate) enum Command {
    /// Connects to a peer at any of these addresses, or to any peer there if `peer` is `None`. Dials a connected peer
    /// only if `afresh` is set.
    Dial { peer: Option<PeerId>, addrs: Vec<Multiaddr>, afresh: bool, reply: Reply },
    /// Our announced addresses have changed. Gives the new ones to the identify protocol, which pushes them to all
    /// connected peers.
    Announce,
}

#[derive(Debug)]
pub(crate) struct Dialer {
    commands: mpsc::Sender<Command>,
    peers: Arc<Peers>,
    dials: Semaphore,
}

impl Dialer {
    /// Creates a dialer that uses half of `max_pending`, the number of connections that may be under negotiation at a
    /// time.
    pub(crate) fn new(commands: mpsc::Sender<Command>, peers: Arc<Peers>, max_pending: u32) -> Self {
        Self { commands, peers, dials: Semaphore::new((max_pending as usize / 2).max(1)) }
    }

    /// Connects to a peer unless it is connected.
    pub(crate) async fn dial(&self, peer: Option<PeerId>, addrs: Vec<Multiaddr>) -> Result<PeerId, RpcError> {
        if let Some(peer) = peer.filter(|peer| self.peers.connections.is_connected(peer)) {
            return Ok(peer);
        }
        self.dial_by(peer, addrs, false).await
    }

    /// Dials a peer even if it is connected: only a new connection proves that the peer is at these addresses.
    pub(crate) async fn dial_afresh(&self, peer: PeerId, addrs: Vec<Multiaddr>) -> Result<PeerId, RpcError> {
        self.dial_by(Some(peer), addrs, true).await
    }

    async fn dial_by(&self, peer: Option<PeerId>, mut addrs: Vec<Multiaddr>, afresh: bool) -> Result<PeerId, RpcError> {
        if addrs.is_empty() {
            return Err(RpcError::dial("no address that may be dialled"));
        }
        addrs.truncate(MAX_DIALLED);
        let _permit = self.dials.acquire().await.map_err(|_| RpcError::Stopped)?;
        let (reply, outcome) = oneshot::channel();
        self.commands.send(Command::Dial { peer, addrs, afresh, reply }).await.map_err(|_| RpcError::Stopped)?;
        match timeout(DIAL_TIMEOUT, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(RpcError::Stopped),
            Err(_) => Err(RpcError::Timeout(DIAL_TIMEOUT)),
        }
    }
}
