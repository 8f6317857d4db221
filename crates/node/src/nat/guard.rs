//! What libp2p's AutoNAT servers leave open: how often they dial, and where to.
//!
//! A refusal by this guard, or by a limit of this node, is never told as "you cannot be reached": the asker learns
//! nothing, as the protocols have it for a server that did not try.

use crate::{
    clock::Clock,
    kad::scope::{AddressScope, Reach, reach},
    metrics::Metrics,
    peers::addresses::{ip_of, is_loopback},
    settings::Autonat,
};
use dhtstore_transport::addresses::can_listen;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use libp2p::{
    Multiaddr, PeerId, autonat,
    core::{Endpoint, transport::PortUse},
    multiaddr::Protocol,
    swarm::{
        ConnectionDenied, ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// The limits on dials back are per this time.
const PERIOD: Duration = Duration::from_secs(60);

/// v1 tries the addresses of one request one after the other; a request that takes longer gets no answer.
const V1_TIMEOUT: Duration = Duration::from_secs(30);

/// Addresses that v1 tries of one request: TCP and QUIC over both IP families, and as many again.
const V1_ADDRESSES: usize = 8;

/// libp2p has v1's client and server in one: this delay is what keeps its client from ever asking. Ours is in [`super`].
const NEVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// v2 ends a request after 10 s, which is how long a dial into the void takes: it has to be told before. A handshake
/// takes three round trips.
const V2_DIAL: Duration = Duration::from_secs(6);

/// A server of one version of the protocol.
pub(crate) trait Server: NetworkBehaviour {
    /// A dial that takes longer has failed, if there is such a limit.
    const DIAL: Option<Duration>;

    /// Whether a connection asks for a dial, as far as that goes by events.
    fn asks_for_dial(event: &THandlerOutEvent<Self>) -> bool;

    /// The dial was refused by this node: the asker must not take that for an answer.
    fn forget_dial(&mut self, id: ConnectionId, peer: PeerId);
}

impl Server for autonat::v1::Behaviour {
    const DIAL: Option<Duration> = None;

    /// Limited by its own configuration.
    fn asks_for_dial(_: &THandlerOutEvent<Self>) -> bool {
        false
    }

    /// It is not told that the dial failed, and the request ends by its time-out.
    fn forget_dial(&mut self, _: ConnectionId, _: PeerId) {}
}

impl Server for autonat::v2::server::Behaviour {
    const DIAL: Option<Duration> = Some(V2_DIAL);

    fn asks_for_dial(event: &THandlerOutEvent<Self>) -> bool {
        event.as_ref().right().is_some_and(|of_inbound| of_inbound.is_left())
    }

    /// It hands the request over to the handler of the connection that it thinks was made. Dropped, the request is
    /// answered with an internal error.
    fn forget_dial(&mut self, id: ConnectionId, peer: PeerId) {
        let nowhere = Multiaddr::empty();
        drop(self.handle_established_outbound_connection(id, peer, &nowhere, Endpoint::Dialer, PortUse::New));
    }
}

/// Why a dial was not made.
#[derive(Debug, thiserror::Error)]
#[error("not an address to dial back to: {0}")]
struct Refused(Multiaddr);

/// The behaviour around a server.
pub(crate) struct Guard<S> {
    inner: S,
    scope: AddressScope,
    limits: Autonat,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// Dials of the last [`PERIOD`], oldest first; at most `limits.max_dials`.
    recent: VecDeque<(PeerId, Duration)>,
    /// Dials under way.
    dialling: HashSet<ConnectionId>,
    /// One for each dial of the last [`Server::DIAL`].
    too_late: FuturesUnordered<BoxFuture<'static, (ConnectionId, Option<PeerId>)>>,
    /// Connections of peers on this machine: they, and nobody else, may have loopback dialled.
    local: HashMap<PeerId, HashSet<ConnectionId>>,
}

/// v1. Addresses are those of the connection's IP address; on public networks global ones only.
pub(crate) fn v1(
    local: PeerId,
    scope: AddressScope,
    limits: &Autonat,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
) -> Guard<autonat::v1::Behaviour> {
    let config = autonat::v1::Config {
        timeout: V1_TIMEOUT,
        boot_delay: NEVER,
        max_peer_addresses: V1_ADDRESSES,
        throttle_clients_global_max: limits.max_dials,
        throttle_clients_peer_max: limits.max_dials_per_peer,
        throttle_clients_period: PERIOD,
        only_global_ips: scope == AddressScope::Public,
        ..autonat::v1::Config::default()
    };
    Guard::new(autonat::v1::Behaviour::new(local, config), scope, limits, clock, metrics)
}

/// v2.
pub(crate) fn v2(
    scope: AddressScope,
    limits: &Autonat,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
) -> Guard<autonat::v2::server::Behaviour> {
    Guard::new(autonat::v2::server::Behaviour::default(), scope, limits, clock, metrics)
}

impl<S: Server> Guard<S> {
    fn new(inner: S, scope: AddressScope, limits: &Autonat, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self {
            inner,
            scope,
            limits: limits.clone(),
            clock,
            metrics,
            recent: VecDeque::new(),
            dialling: HashSet::new(),
            too_late: FuturesUnordered::new(),
            local: HashMap::new(),
        }
    }

    /// Whether a dial for `peer` is within the limits; it counts then.
    fn may_dial(&mut self, peer: PeerId) -> bool {
        let now = self.clock.monotonic();
        while self.recent.front().is_some_and(|(_, at)| now.saturating_sub(*at) >= PERIOD) {
            self.recent.pop_front();
        }
        let of_peer = self.recent.iter().filter(|(other, _)| *other == peer).count();
        let allowed = self.recent.len() < self.limits.max_dials && of_peer < self.limits.max_dials_per_peer;
        if allowed {
            self.recent.push_back((peer, now));
        }
        allowed
    }

    /// Names are not dialled: they may lead anywhere.
    fn allows(&self, peer: Option<PeerId>, addr: &Multiaddr) -> bool {
        let on_this_machine = || peer.is_some_and(|peer| self.local.contains_key(&peer));
        ip_of(addr).is_some() && self.scope.allows(addr) && (reach(addr) != Some(Reach::Loopback) || on_this_machine())
    }
}

impl<S: Server> NetworkBehaviour for Guard<S> {
    type ConnectionHandler = S::ConnectionHandler;
    type ToSwarm = S::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addrs: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if self.dialling.contains(&id) {
            let forbidden = addrs.iter().find(|addr| !self.allows(peer, addr));
            // Of what we have no transport for we can say nothing; beside others it does no harm.
            let hopeless = || addrs.first().filter(|_| !addrs.iter().any(has_transport));
            if let Some(addr) = forbidden.or_else(hopeless) {
                return Err(ConnectionDenied::new(Refused(addr.clone())));
            }
        }
        self.inner.handle_pending_outbound_connection(id, peer, addrs, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(id, peer, addr, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match &event {
            // For libp2p's v1 client, which would collect them without bound.
            FromSwarm::NewExternalAddrCandidate(_) => return,
            FromSwarm::ConnectionEstablished(made) => {
                self.dialling.remove(&made.connection_id);
                if is_loopback(made.endpoint.get_remote_address()) {
                    self.local.entry(made.peer_id).or_default().insert(made.connection_id);
                }
            }
            FromSwarm::ConnectionClosed(closed) => {
                if let Some(connections) = self.local.get_mut(&closed.peer_id) {
                    connections.remove(&closed.connection_id);
                    if connections.is_empty() {
                        self.local.remove(&closed.peer_id);
                    }
                }
            }
            FromSwarm::DialFailure(failure) => {
                let ours = self.dialling.remove(&failure.connection_id);
                if ours && matches!(failure.error, DialError::Denied { .. }) {
                    self.metrics.dial_backs_refused.inc();
                    if let Some(peer) = failure.peer_id {
                        self.inner.forget_dial(failure.connection_id, peer);
                    }
                    return;
                }
            }
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        if S::asks_for_dial(&event) && !self.may_dial(peer) {
            self.metrics.dial_backs_refused.inc();
            // Dropped: answered with an internal error.
            return;
        }
        self.inner.on_connection_handler_event(peer, id, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            match self.inner.poll(cx) {
                Poll::Ready(ToSwarm::Dial { opts }) => {
                    let (id, peer) = (opts.connection_id(), opts.get_peer_id());
                    self.dialling.insert(id);
                    self.metrics.dial_backs.inc();
                    if let Some(patience) = S::DIAL {
                        self.too_late.push(tokio::time::sleep(patience).map(move |()| (id, peer)).boxed());
                    }
                    return Poll::Ready(ToSwarm::Dial { opts });
                }
                // What we announce is for us to say.
                Poll::Ready(ToSwarm::ExternalAddrConfirmed(_)) => {}
                Poll::Ready(other) => return Poll::Ready(other),
                Poll::Pending => match self.too_late.poll_next_unpin(cx) {
                    Poll::Ready(Some((connection_id, peer_id))) => {
                        if self.dialling.remove(&connection_id) {
                            let error = &DialError::Aborted;
                            let failure = DialFailure { peer_id, error, connection_id };
                            self.inner.on_swarm_event(FromSwarm::DialFailure(failure));
                        }
                    }
                    Poll::Ready(None) | Poll::Pending => return Poll::Pending,
                },
            }
        }
    }
}

/// Whether this node can dial such an address at all. Secure WebSockets are left out: at an IP address their certificate is
/// rarely valid, which says nothing of who can be reached there by name.
fn has_transport(addr: &Multiaddr) -> bool {
    let mut addr = addr.clone();
    if matches!(addr.iter().last(), Some(Protocol::P2p(_))) {
        addr.pop();
    }
    let secure = addr.iter().any(|part| matches!(part, Protocol::Tls | Protocol::Wss(_)));
    can_listen(&addr) && !secure
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::ManualClock, kad::scope::Profile};

    fn guard(profile: Profile, clock: Arc<dyn Clock>) -> Guard<autonat::v2::server::Behaviour> {
        let limits = Autonat { enabled: true, max_dials: 3, max_dials_per_peer: 2 };
        v2(profile.scope(crate::kad::Dht::Wan), &limits, clock, Arc::default())
    }

    #[test]
    fn mode_1_dials_for_others_are_limited_for_each_and_for_all() {
        let clock = ManualClock::at(crate::clock::UnixTime(0));
        let mut guard = guard(Profile::Private, clock.clone());
        let (a, b) = (PeerId::random(), PeerId::random());
        assert_eq!([a, a, a, b, b].map(|peer| guard.may_dial(peer)), [true, true, false, true, false]);
        clock.advance(PERIOD);
        assert!(guard.may_dial(a));
    }

    #[test]
    fn mode_1_of_transports_that_we_do_not_have_nothing_is_said() {
        let hash = "uEiARLzFoCGX0JwounmoSNsA7JbKzd9E44C_lz2xicoMJWw";
        let peer = PeerId::random();
        for (addr, has) in [
            (format!("/ip4/8.8.8.8/tcp/4001/p2p/{peer}"), true),
            ("/ip4/8.8.8.8/udp/4001/quic-v1".to_owned(), true),
            ("/ip4/8.8.8.8/udp/4001/webrtc-direct".to_owned(), false),
            (format!("/ip4/8.8.8.8/udp/4001/quic-v1/webtransport/certhash/{hash}"), false),
        ] {
            assert_eq!(has_transport(&addr.parse().unwrap()), has, "{addr}");
        }
    }

    #[test]
    fn mode_1_for_strangers_public_addresses_are_dialled_and_no_names() {
        let peer = PeerId::random();
        let allowed = |profile, addr: &str| {
            guard(profile, ManualClock::at(crate::clock::UnixTime(0))).allows(Some(peer), &addr.parse().unwrap())
        };
        for (addr, amino, private) in [
            ("/ip4/8.8.8.8/tcp/4001", true, true),
            ("/ip4/10.0.0.1/tcp/4001", false, true),
            ("/ip4/127.0.0.1/tcp/4001", false, false),
            ("/ip6/::1/tcp/4001", false, false),
            ("/ip4/0.0.0.0/tcp/4001", false, false),
            ("/dns4/localhost/tcp/4001", false, false),
            ("/dns4/example.org/tcp/4001", false, false),
        ] {
            assert_eq!(allowed(Profile::Amino, addr), amino, "{addr}");
            assert_eq!(allowed(Profile::Private, addr), private, "{addr}");
        }
    }
}
