//! Limits for libp2p's AutoNAT servers: how often they dial, and which addresses.
//!
//! If this guard or a limit of this node refuses a dial, the asking peer does not get the answer "you cannot be
//! reached". It gets the answer that both protocols define for a server that did not try.

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

/// Period of the limits on dials for other peers.
const PERIOD: Duration = Duration::from_secs(60);

/// Time-out of a v1 request, whose addresses are tried one after the other. A request that takes longer gets no answer.
const V1_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum number of addresses that v1 tries for one request: TCP and QUIC over both IP families, times two.
const V1_ADDRESSES: usize = 8;

/// Boot delay of libp2p's v1 client, which is part of the same behaviour as the server. A delay this long keeps that
/// client from ever asking; our own client is in [`super`].
const NEVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Time after which a dial for v2 counts as failed. v2 ends a request after 10 s, and a dial without an answer takes
/// that long, so the failure must be reported earlier. A handshake takes three round trips.
const V2_DIAL: Duration = Duration::from_secs(6);

/// A server of one version of the protocol.
pub(crate) trait Server: NetworkBehaviour {
    /// Time after which a dial counts as failed; `None` for no limit.
    const DIAL: Option<Duration>;

    /// Returns whether `event` is a request for a dial.
    fn asks_for_dial(event: &THandlerOutEvent<Self>) -> bool;

    /// Ends a request whose dial this node refused, without the answer that the peer cannot be reached.
    fn forget_dial(&mut self, id: ConnectionId, peer: PeerId);
}

impl Server for autonat::v1::Behaviour {
    const DIAL: Option<Duration> = None;

    /// Always false: its own configuration limits the dials.
    fn asks_for_dial(_: &THandlerOutEvent<Self>) -> bool {
        false
    }

    /// Does nothing: v1 does not learn that the dial failed, and the request times out.
    fn forget_dial(&mut self, _: ConnectionId, _: PeerId) {}
}

impl Server for autonat::v2::server::Behaviour {
    const DIAL: Option<Duration> = Some(V2_DIAL);

    fn asks_for_dial(event: &THandlerOutEvent<Self>) -> bool {
        event.as_ref().right().is_some_and(|of_inbound| of_inbound.is_left())
    }

    /// Pretends that the connection was made. v2 then moves the request into the handler of that connection; dropping
    /// the handler answers the request with an internal error.
    fn forget_dial(&mut self, id: ConnectionId, peer: PeerId) {
        let nowhere = Multiaddr::empty();
        drop(self.handle_established_outbound_connection(id, peer, &nowhere, Endpoint::Dialer, PortUse::New));
    }
}

/// Why a dial was refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot dial back to {0}: the address is not allowed")]
struct Refused(Multiaddr);

/// The behaviour that wraps a server.
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
    /// One timer for each dial of the last [`Server::DIAL`].
    too_late: FuturesUnordered<BoxFuture<'static, (ConnectionId, Option<PeerId>)>>,
    /// Connections of peers on this machine. Only for these peers are loopback addresses dialled.
    local: HashMap<PeerId, HashSet<ConnectionId>>,
}

/// Returns a guarded v1 server. It dials only the IP address of the connection, and on public networks only global
/// addresses.
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

/// Returns a guarded v2 server.
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

    /// Returns whether a dial for `peer` is within the limits, and counts it if so.
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

    /// Returns whether `addr` may be dialled for `peer`. Names are refused: they may lead anywhere.
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
            // If we have a transport for none of the addresses, we can test nothing. Beside addresses that we can
            // dial, they do no harm.
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
            // Hidden from libp2p's v1 client, which would collect the candidates without bound.
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
            // Dropping the event answers the request with an internal error.
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
                // We decide ourselves which addresses to announce.
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

/// Returns whether this node has a transport for the address. Secure WebSockets do not count: at an IP address their
/// certificate is rarely valid, even if the peer can be reached there by name.
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
