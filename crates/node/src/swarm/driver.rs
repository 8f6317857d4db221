//! The swarm task: dials on command, and keeps the address book and our announced addresses up to date. It never
//! touches the disk, and no DHT request passes through it.

use super::{Behaviour, BehaviourEvent, ip_limits};
use crate::{
    dialer::{Command, Reply},
    error::{NodeError, RpcError},
    metrics::Metrics,
    nat::Nat,
    peers::{Peers, contacts::Connection},
    routing::admission::Admission,
};
use dhtstore_host::clock::Clock;
use dhtstore_transport::listen::{self, ListenError as CannotListen};
use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Swarm, TransportError,
    core::{ConnectedPoint, transport::ListenerId},
    identify, ping,
    swarm::{
        ConnectionError, ConnectionId, DialError, ListenError, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How long to wait for the first address of each listener. The addresses of a wildcard come from the list of
/// interfaces.
const FIRST_ADDRESS: Duration = Duration::from_secs(1);

/// Time allowed for closing connections at shutdown.
const GOODBYE: Duration = Duration::from_millis(500);

/// A dial under way and the requests that wait for it.
#[derive(Debug)]
struct Dial {
    peer: Option<PeerId>,
    addrs: Vec<Multiaddr>,
    /// For each request whether it needs this dial (true), or accepts any connection to the peer (false).
    replies: Vec<(bool, Reply)>,
}

/// The parts that receive events, and the signal to stop. None of them stores records: see docs/decisions/kademlia.md.
pub(crate) struct Handles {
    pub(crate) peers: Arc<Peers>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) nat: Arc<Nat>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: CancellationToken,
}

/// Why a dial failed, with the reasons for a few addresses.
#[derive(Debug, thiserror::Error)]
#[error("{shown}")]
struct DialFailed {
    shown: String,
    #[source]
    error: DialError,
}

/// The swarm and the state of its task.
pub(crate) struct Driver {
    swarm: Swarm<Behaviour>,
    commands: mpsc::Receiver<Command>,
    handles: Handles,
    dials: HashMap<ConnectionId, Dial>,
    /// The addresses that identify sends now.
    announced: BTreeSet<Multiaddr>,
}

impl Driver {
    pub(crate) fn new(swarm: Swarm<Behaviour>, commands: mpsc::Receiver<Command>, handles: Handles) -> Self {
        let mut driver = Self { swarm, commands, handles, dials: HashMap::new(), announced: BTreeSet::new() };
        driver.announce();
        driver
    }

    /// Binds `addrs`, whose ports have been checked to be free.
    pub(crate) async fn bind(&mut self, addrs: Vec<Multiaddr>) -> Result<(), NodeError> {
        let mut waiting: HashSet<ListenerId> = HashSet::new();
        for addr in addrs {
            let bound = self.swarm.listen_on(addr.clone()).map_err(|error| match error {
                TransportError::Other(error) => listen::explain_bind(&addr, &error),
                TransportError::MultiaddrNotSupported(addr) => CannotListen::Bind {
                    addr,
                    reason: "not an address to listen on; write /ip4/0.0.0.0/tcp/4001, /ip4/0.0.0.0/udp/4001/quic-v1 \
                        or /ip4/0.0.0.0/tcp/4002/tls/ws"
                        .to_owned(),
                },
            });
            waiting.insert(bound?);
        }
        let first_addresses = async {
            while !waiting.is_empty() {
                let event = self.swarm.select_next_some().await;
                if let SwarmEvent::NewListenAddr { listener_id, .. } | SwarmEvent::ListenerClosed { listener_id, .. } =
                    &event
                {
                    waiting.remove(listener_id);
                }
                self.handle(event);
            }
        };
        // A wildcard gets no address if the machine has no such interface; it may get one later.
        let _ = timeout(FIRST_ADDRESS, first_addresses).await;
        Ok(())
    }

    /// Runs until the node stops, then ends all connections.
    pub(crate) async fn run(mut self) {
        let stop = self.handles.stop.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                event = self.swarm.select_next_some() => self.handle(event),
                Some(command) = self.commands.recv() => self.obey(command),
            }
        }
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let goodbye = async {
            while self.swarm.connected_peers().next().is_some() {
                let _ = self.swarm.select_next_some().await;
            }
        };
        let _ = timeout(GOODBYE, goodbye).await;
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Dial { peer, addrs, afresh, reply } => self.dial(peer, addrs, afresh, reply),
            Command::Announce => {
                self.announce();
                // Identify by itself pushes only listen addresses and protocols.
                let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
                self.swarm.behaviour_mut().identify.push(peers);
            }
        }
    }

    fn dial(&mut self, peer: Option<PeerId>, addrs: Vec<Multiaddr>, afresh: bool, reply: Reply) {
        if reply.is_closed() {
            return;
        }
        let opts = match peer {
            Some(peer) if !afresh && self.swarm.is_connected(&peer) => {
                let _ = reply.send(Ok(peer));
                return;
            }
            Some(peer) => {
                let same = |dial: &&mut Dial| dial.peer == Some(peer) && addrs.iter().all(|a| dial.addrs.contains(a));
                if let Some(dial) = self.dials.values_mut().find(same) {
                    dial.replies.push((afresh, reply));
                    return;
                }
                // From a new port: if two nodes dial each other from their listeners' ports at the same time, TCP can
                // join both dials into one connection (simultaneous open). Then both sides are dialers and the
                // handshake fails.
                DialOpts::peer_id(peer)
                    .condition(if afresh { PeerCondition::Always } else { PeerCondition::Disconnected })
                    .addresses(addrs.clone())
                    .allocate_new_port()
                    .build()
            }
            None => match addrs.first() {
                Some(addr) => DialOpts::unknown_peer_id().address(addr.clone()).build(),
                None => return,
            },
        };
        let id = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => {
                self.dials.insert(id, Dial { peer, addrs, replies: vec![(afresh, reply)] });
            }
            // `addrs` was not empty: libp2p removed the addresses at which this node itself listens.
            Err(DialError::NoAddresses) => {
                let _ = reply.send(Err(RpcError::Own));
            }
            Err(error) => {
                let _ = reply.send(Err(self.explain(error)));
            }
        }
    }

    fn handle(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Identify(event)) => self.identify(event),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { peer, result: Ok(took), .. })) => {
                self.handles.peers.contacts.pinged(&peer, took);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { peer, connection, result: Err(failure) })) => {
                self.unanswered(peer, connection, &failure);
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, num_established, .. } => {
                debug!(peer = %peer_id, cause = cause.as_ref().map(ToString::to_string), "connection closed");
                let now = self.handles.clock.monotonic();
                self.handles.peers.contacts.disconnected(&peer_id, connection_id, now);
                if let Some(ConnectionError::IO(error)) = cause.filter(|_| num_established == 0) {
                    self.handles.admission.left(peer_id, is_orderly(&error));
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(dial) = self.dials.remove(&connection_id) {
                    let error = self.explain(error);
                    for (_, reply) in dial.replies {
                        let _ = reply.send(Err(error.clone()));
                    }
                }
            }
            SwarmEvent::IncomingConnectionError { error, send_back_addr, .. } => {
                if let ListenError::Denied { cause } = &error
                    && cause.downcast_ref::<ip_limits::TooMany>().is_none()
                {
                    self.handles.metrics.connections_over_limit.inc();
                }
                debug!(from = %send_back_addr, %error, "inbound connection failed");
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                info!(%address, "listening");
                self.handles.peers.addresses.listening(address);
                self.announce();
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                info!(%address, "no longer listening");
                self.handles.peers.addresses.not_listening(&address);
                self.announce();
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                if let Err(error) = reason {
                    warn!(
                        ?addresses,
                        %error,
                        "listener failed, other listeners still work; fix the cause, then restart the node"
                    );
                }
                for address in addresses {
                    self.handles.peers.addresses.not_listening(&address);
                }
                self.announce();
            }
            SwarmEvent::ListenerError { error, .. } => debug!(%error, "listener error"),
            _ => {}
        }
    }

    fn established(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let address = endpoint.get_remote_address().clone();
        debug!(%peer, %address, inbound = endpoint.is_listener(), "connected");
        let since = self.handles.clock.monotonic();
        let connection = Connection { id, address, inbound: endpoint.is_listener(), since, observed: None };
        self.handles.peers.contacts.connected(peer, connection);
        self.dials.retain(|dialled, dial| {
            if *dialled != id && dial.peer != Some(peer) {
                return true;
            }
            let replies = std::mem::take(&mut dial.replies).into_iter();
            let (waiting, met): (Vec<_>, Vec<_>) = replies.partition(|(afresh, _)| *afresh && *dialled != id);
            for (_, reply) in met {
                let _ = reply.send(Ok(peer));
            }
            dial.replies = waiting;
            !dial.replies.is_empty()
        });
    }

    /// Closes a connection whose other side is silent. Ping reports only the second failure in a row.
    fn unanswered(&mut self, peer: PeerId, connection: ConnectionId, failure: &ping::Failure) {
        if is_silence(failure) && self.swarm.close_connection(connection) {
            debug!(%peer, %failure, "pings are not answered, connection closed");
            self.handles.admission.left(peer, false);
        }
    }

    fn identify(&mut self, event: identify::Event) {
        match event {
            identify::Event::Received { connection_id, peer_id, info } => {
                self.handles.peers.contacts.observed(&peer_id, connection_id, info.observed_addr.clone());
                self.handles.admission.identified(peer_id, connection_id, info);
                self.handles.nat.wake.notify_one();
            }
            identify::Event::Error { peer_id, error, .. } => debug!(peer = %peer_id, %error, "identify failed"),
            identify::Event::Sent { .. } | identify::Event::Pushed { .. } => {}
        }
    }

    /// Gives the addresses that we announce now to the identify protocol.
    fn announce(&mut self) {
        let wanted = self.handles.peers.addresses.of_any();
        for gone in self.announced.difference(&wanted) {
            self.swarm.remove_external_address(gone);
        }
        for new in wanted.difference(&self.announced) {
            self.swarm.add_external_address(new.clone());
        }
        self.announced = wanted;
    }

    /// Turns the error of a dial into one that is short enough to read. The original stays its source.
    fn explain(&self, error: DialError) -> RpcError {
        let shown = match &error {
            DialError::Denied { .. } => {
                self.handles.metrics.connections_over_limit.inc();
                return RpcError::Busy("connection limit reached");
            }
            DialError::Transport(errors) => {
                /// Most addresses shown. A peer may have dozens.
                const SHOWN: usize = 3;
                let shown: Vec<String> =
                    errors.iter().take(SHOWN).map(|(addr, error)| format!("{addr}: {}", root_cause(error))).collect();
                let more = if errors.len() > SHOWN { ", …" } else { "" };
                format!("{}{more}", shown.join(", "))
            }
            DialError::WrongPeerId { obtained, address } => format!("the peer at {address} is {obtained}"),
            DialError::LocalPeerId { .. } => return RpcError::Own,
            error => error.to_string(),
        };
        RpcError::dial(DialFailed { shown, error })
    }
}

/// Returns whether the other side closed a connection in order: yamux reports such a close, and QUIC reports its error
/// code 0. A killed process or a failed network does not close in order.
fn is_orderly(error: &std::io::Error) -> bool {
    let cause = root_cause(error);
    cause.contains("connection is closed") || cause.contains("closed by peer: 0")
}

/// Returns whether the other side is silent: its host or the network has failed, which TCP would notice after 15
/// minutes at the earliest. A peer that answers wrongly is not silent.
fn is_silence(failure: &ping::Failure) -> bool {
    match failure {
        ping::Failure::Timeout => true,
        ping::Failure::Unsupported => false,
        ping::Failure::Other { error } => root_cause(&**error).contains("timed out"),
    }
}

/// Returns the text of the innermost error. The outer ones only repeat "transport error".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
