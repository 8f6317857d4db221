//! Our protocols' streams on libp2p connections: accepts inbound ones, opens outbound ones, nothing else.
//!
//! The swarm task only makes and drops handlers. An inbound stream goes from its connection's task straight to
//! the acceptor, and what that has to do for it to another task ([`together`]); a request for an outbound stream goes
//! straight to the connection's task.

mod handler;
mod together;

pub(crate) use handler::{Handler, Open, OpenError};
pub(crate) use together::Serving;

use super::counters::Counters;
use crate::kad::{
    Dht,
    mode::Decision,
    scope::{AddressScope, strip_peer},
};
use arc_swap::ArcSwap;
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm,
    },
};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

/// Inbound streams of the whole process. An idle one costs about 2 KB, so 130 MB at worst.
const MAX_INBOUND: usize = 65_536;

/// Requests for outbound streams that wait in front of one connection. Streams are pooled, two per peer, so more
/// means that the connection does not move.
const MAX_WAITING: usize = 32;

/// The protocol id of a DHT, as libp2p has it.
pub(crate) const fn protocol(dht: Dht) -> StreamProtocol {
    StreamProtocol::new(dht.protocol())
}

/// What an inbound stream speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Protocol {
    Dht(Dht),
    /// AutoNAT v2: a peer shows that it could dial us.
    DialBack,
}

/// A stream that a peer opened.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) peer: PeerId,
    pub(crate) protocol: Protocol,
    pub(crate) stream: Stream,
    /// Counts against the limits of connection and process while it lives.
    pub(crate) permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

/// Takes inbound streams: what is to be done for one, if anything. Called on a connection's task: must not block.
pub(crate) type Acceptor = Arc<dyn Fn(Inbound) -> Option<Serving> + Send + Sync>;

/// Where one connection takes requests for streams.
#[derive(Clone, Debug)]
struct Opener {
    id: ConnectionId,
    requests: mpsc::Sender<Open>,
    /// The address at which we dialled the peer; `None` if it dialled us, or through a relay.
    dialled: Option<Multiaddr>,
}

/// Finds the connections of a peer. Shared by the behaviour, which keeps it, and those who open streams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connections {
    /// Oldest first.
    by_peer: Arc<Mutex<HashMap<PeerId, Vec<Opener>>>>,
    /// Whose connections stay open without streams (CLI-1).
    kept: Arc<ArcSwap<HashSet<PeerId>>>,
}

impl Connections {
    /// Where to ask for a stream to `peer`: on its newest connection.
    pub(crate) fn opener(&self, peer: &PeerId) -> Option<mpsc::Sender<Open>> {
        let by_peer = self.by_peer.lock();
        by_peer.get(peer)?.iter().rev().find(|opener| !opener.requests.is_closed()).map(|o| o.requests.clone())
    }

    /// The newest connection that we dialled at an address of `scope`: that address without the peer's id, and where to
    /// ask for a stream.
    pub(crate) fn dialled(&self, peer: &PeerId, scope: AddressScope) -> Option<(Multiaddr, mpsc::Sender<Open>)> {
        let by_peer = self.by_peer.lock();
        let open = by_peer.get(peer)?.iter().rev().filter(|opener| !opener.requests.is_closed());
        open.filter_map(|opener| Some((opener.dialled.clone()?, opener.requests.clone())))
            .find(|(dialled, _)| scope.allows(dialled))
    }

    /// How many connections there are to `peer`.
    pub(crate) fn count(&self, peer: &PeerId) -> usize {
        self.by_peer.lock().get(peer).map_or(0, Vec::len)
    }

    /// Where to ask for a stream on one connection of `peer`.
    pub(crate) fn opener_on(&self, peer: &PeerId, id: ConnectionId) -> Option<mpsc::Sender<Open>> {
        let by_peer = self.by_peer.lock();
        by_peer.get(peer)?.iter().find(|opener| opener.id == id).map(|opener| opener.requests.clone())
    }

    /// From now on the connections of these peers, and of no others, stay open without streams.
    pub(crate) fn keep(&self, peers: HashSet<PeerId>) {
        self.kept.store(Arc::new(peers));
    }

    pub(crate) fn kept(&self) -> Vec<PeerId> {
        self.kept.load().iter().copied().collect()
    }

    pub(crate) fn is_kept(&self, peer: &PeerId) -> bool {
        self.kept.load().contains(peer)
    }

    /// Whether there is a connection to `peer`.
    pub(crate) fn is_connected(&self, peer: &PeerId) -> bool {
        self.opener(peer).is_some()
    }

    fn add(&self, peer: PeerId, opener: Opener) {
        let mut by_peer = self.by_peer.lock();
        by_peer.entry(peer).or_default().push(opener);
    }

    fn remove(&self, peer: &PeerId, id: ConnectionId) {
        let mut by_peer = self.by_peer.lock();
        if let Some(connections) = by_peer.get_mut(peer) {
            connections.retain(|opener| opener.id != id);
            if connections.is_empty() {
                by_peer.remove(peer);
            }
        }
    }
}

/// The behaviour. Has to be the last field of the node's behaviour, so that no other one denies a connection
/// after this one has made its handler.
pub(crate) struct Behaviour {
    acceptor: Acceptor,
    connections: Connections,
    /// Handlers of connections that are not established yet.
    fresh: HashMap<ConnectionId, mpsc::Sender<Open>>,
    inbound: Arc<Semaphore>,
    max_per_connection: usize,
    counters: Arc<Counters>,
    mode: watch::Receiver<Decision>,
    dial_back: bool,
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("streams::Behaviour").finish_non_exhaustive()
    }
}

impl Behaviour {
    /// At most `max_per_connection` inbound streams are open on a connection at a time. `mode` says which protocols are
    /// taken, `dial_back` whether those of AutoNAT are.
    pub(crate) fn new(
        acceptor: Acceptor,
        connections: Connections,
        max_per_connection: usize,
        counters: Arc<Counters>,
        mode: watch::Receiver<Decision>,
        dial_back: bool,
    ) -> Self {
        let inbound = Arc::new(Semaphore::new(MAX_INBOUND));
        let fresh = HashMap::new();
        Self { acceptor, connections, fresh, inbound, max_per_connection, counters, mode, dial_back }
    }

    fn handler(&mut self, peer: PeerId, id: ConnectionId) -> Handler {
        let (opener, requests) = mpsc::channel(MAX_WAITING);
        self.fresh.insert(id, opener);
        let limits = (Arc::new(Semaphore::new(self.max_per_connection)), self.inbound.clone());
        let (counters, connections) = (self.counters.clone(), self.connections.clone());
        let listens = (self.mode.clone(), self.dial_back);
        Handler::new(peer, self.acceptor.clone(), limits, requests, counters, connections, listens)
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, id))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer, id))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => {
                if let Some(requests) = self.fresh.remove(&event.connection_id) {
                    let dialled = match event.endpoint {
                        ConnectedPoint::Dialer { address, .. } => strip_peer(address.clone(), &event.peer_id),
                        ConnectedPoint::Listener { .. } => None,
                    };
                    self.connections.add(event.peer_id, Opener { id: event.connection_id, requests, dialled });
                }
            }
            FromSwarm::ConnectionClosed(event) => self.connections.remove(&event.peer_id, event.connection_id),
            FromSwarm::DialFailure(event) => {
                self.fresh.remove(&event.connection_id);
            }
            FromSwarm::ListenFailure(event) => {
                self.fresh.remove(&event.connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}
