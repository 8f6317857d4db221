//! The streams of our protocols on libp2p connections: accepts inbound ones and opens outbound ones.
//!
//! The swarm task only creates and drops handlers. The task of a connection passes an inbound stream straight to the
//! acceptor, and the acceptor's work to another task ([`together`]). A request for an outbound stream goes straight to
//! the task of the connection.

mod handler;
pub(crate) mod inbound;
mod together;

use crate::{
    kad::{mode::Decision, scope::strip_peer},
    metrics::Metrics,
    peers::connections::{Connections, Open, Opener},
};
use handler::Handler;
use inbound::Acceptor;
use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm,
    },
};
use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::sync::{Semaphore, mpsc, watch};

/// Most inbound streams in the whole process. An idle one takes about 2 KB, so all take 130 MB at most.
const MAX_INBOUND: usize = 65_536;

/// Most requests for outbound streams that wait for one connection. Streams are pooled, two per peer, so a longer queue
/// means that the connection makes no progress.
const MAX_WAITING: usize = 32;

/// The libp2p behaviour of our streams. It must be the last field of the node's behaviour, so that no other one denies
/// a connection after this one has created its handler.
pub(crate) struct Behaviour {
    acceptor: Acceptor,
    connections: Connections,
    /// The channels of handlers whose connections are not established yet.
    fresh: HashMap<ConnectionId, mpsc::Sender<Open>>,
    inbound: Arc<Semaphore>,
    max_per_connection: usize,
    metrics: Arc<Metrics>,
    mode: watch::Receiver<Decision>,
    dial_back: bool,
}

impl fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("streams::Behaviour").finish_non_exhaustive()
    }
}

impl Behaviour {
    /// Creates the behaviour. It allows at most `max_per_connection` inbound streams at a time on a connection. `mode`
    /// decides which DHT protocols are accepted, and `dial_back` whether AutoNAT's is.
    pub(crate) fn new(
        acceptor: Acceptor,
        connections: Connections,
        max_per_connection: usize,
        metrics: Arc<Metrics>,
        mode: watch::Receiver<Decision>,
        dial_back: bool,
    ) -> Self {
        let inbound = Arc::new(Semaphore::new(MAX_INBOUND));
        let fresh = HashMap::new();
        Self { acceptor, connections, fresh, inbound, max_per_connection, metrics, mode, dial_back }
    }

    fn handler(&mut self, peer: PeerId, id: ConnectionId) -> Handler {
        let (opener, requests) = mpsc::channel(MAX_WAITING);
        self.fresh.insert(id, opener);
        let limits = (Arc::new(Semaphore::new(self.max_per_connection)), self.inbound.clone());
        let (metrics, connections) = (self.metrics.clone(), self.connections.clone());
        let listens = (self.mode.clone(), self.dial_back);
        Handler::new(peer, self.acceptor.clone(), limits, requests, metrics, connections, listens)
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
