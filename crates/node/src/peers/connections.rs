//! The open connections of each peer, and the channels on which to request streams from them.

use crate::kad::scope::AddressScope;
use arc_swap::ArcSwap;
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, swarm::ConnectionId};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

/// A request for an outbound stream.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) protocol: StreamProtocol,
    pub(crate) reply: oneshot::Sender<Result<Stream, OpenError>>,
}

/// Why an outbound stream could not be opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The peer does not speak the protocol.
    Unsupported,
    Timeout(Duration),
    Io(std::io::Error),
}

/// The channel on which one connection takes requests for streams.
#[derive(Clone, Debug)]
pub(crate) struct Opener {
    pub(crate) id: ConnectionId,
    pub(crate) requests: mpsc::Sender<Open>,
    /// The address at which we dialled the peer; `None` if it dialled us, or if the connection goes through a relay.
    pub(crate) dialled: Option<Multiaddr>,
}

/// Finds the connections of a peer. The behaviour updates it; the parts that open streams read it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connections {
    /// Oldest first.
    by_peer: Arc<Mutex<HashMap<PeerId, Vec<Opener>>>>,
    /// Peers whose connections stay open without streams (CLI-1).
    kept: Arc<ArcSwap<HashSet<PeerId>>>,
}

impl Connections {
    /// Returns the channel that takes requests for streams to `peer`, on its newest connection.
    pub(crate) fn opener(&self, peer: &PeerId) -> Option<mpsc::Sender<Open>> {
        let by_peer = self.by_peer.lock();
        by_peer.get(peer)?.iter().rev().find(|opener| !opener.requests.is_closed()).map(|o| o.requests.clone())
    }

    /// Finds the newest connection that we dialled at an address of `scope`. Returns that address without the peer's
    /// id, and the channel that takes requests for streams.
    pub(crate) fn dialled(&self, peer: &PeerId, scope: AddressScope) -> Option<(Multiaddr, mpsc::Sender<Open>)> {
        let by_peer = self.by_peer.lock();
        let open = by_peer.get(peer)?.iter().rev().filter(|opener| !opener.requests.is_closed());
        open.filter_map(|opener| Some((opener.dialled.clone()?, opener.requests.clone())))
            .find(|(dialled, _)| scope.allows(dialled))
    }

    /// Returns the number of connections to `peer`.
    pub(crate) fn count(&self, peer: &PeerId) -> usize {
        self.by_peer.lock().get(peer).map_or(0, Vec::len)
    }

    /// Returns the channel that takes requests for streams on one connection of `peer`.
    pub(crate) fn opener_on(&self, peer: &PeerId, id: ConnectionId) -> Option<mpsc::Sender<Open>> {
        let by_peer = self.by_peer.lock();
        by_peer.get(peer)?.iter().find(|opener| opener.id == id).map(|opener| opener.requests.clone())
    }

    /// Replaces the set of peers whose connections stay open without streams.
    pub(crate) fn keep(&self, peers: HashSet<PeerId>) {
        self.kept.store(Arc::new(peers));
    }

    pub(crate) fn kept(&self) -> Vec<PeerId> {
        self.kept.load().iter().copied().collect()
    }

    pub(crate) fn is_kept(&self, peer: &PeerId) -> bool {
        self.kept.load().contains(peer)
    }

    /// Returns whether there is a connection to `peer`.
    pub(crate) fn is_connected(&self, peer: &PeerId) -> bool {
        self.opener(peer).is_some()
    }

    pub(crate) fn add(&self, peer: PeerId, opener: Opener) {
        let mut by_peer = self.by_peer.lock();
        by_peer.entry(peer).or_default().push(opener);
    }

    pub(crate) fn remove(&self, peer: &PeerId, id: ConnectionId) {
        let mut by_peer = self.by_peer.lock();
        if let Some(connections) = by_peer.get_mut(peer) {
            connections.retain(|opener| opener.id != id);
            if connections.is_empty() {
                by_peer.remove(peer);
            }
        }
    }
}
