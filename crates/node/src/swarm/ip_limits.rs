//! Limits the inbound connections per IP address (IPv6: per /64, which is one customer).

use crate::metrics::Metrics;
use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    multiaddr::Protocol,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm, dummy,
    },
};
use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    task::{Context, Poll},
};

/// An inbound connection was refused because its IP address has enough already.
#[derive(Debug, thiserror::Error)]
#[error("{ip} has {max} connections already")]
pub(crate) struct TooMany {
    ip: IpAddr,
    max: u32,
}

/// The libp2p behaviour that enforces the limit.
#[derive(Debug)]
pub(crate) struct Behaviour {
    max: u32,
    by_ip: HashMap<IpAddr, u32>,
    /// The address under which each connection is counted, so that it is subtracted exactly once.
    counted: HashMap<ConnectionId, IpAddr>,
    metrics: Arc<Metrics>,
}

impl Behaviour {
    pub(crate) fn new(max: u32, metrics: Arc<Metrics>) -> Self {
        Self { max, by_ip: HashMap::new(), counted: HashMap::new(), metrics }
    }

    fn count(&mut self, id: ConnectionId, ip: IpAddr) -> Result<(), TooMany> {
        let n = self.by_ip.entry(ip).or_insert(0);
        if *n >= self.max {
            return Err(TooMany { ip, max: self.max });
        }
        *n += 1;
        self.counted.insert(id, ip);
        Ok(())
    }

    fn take_off(&mut self, id: ConnectionId) {
        let Some(ip) = self.counted.remove(&id) else { return };
        if let Some(n) = self.by_ip.get_mut(&ip) {
            *n -= 1;
            if *n == 0 {
                self.by_ip.remove(&ip);
            }
        }
    }
}

/// Returns the address under which a connection is counted.
fn source(addr: &Multiaddr) -> Option<IpAddr> {
    match addr.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(match ip.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => {
                let [a, b, c, d, ..] = ip.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
        }),
        _ => None,
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let Some(ip) = source(remote) else { return Ok(()) };
        self.count(id, ip).map_err(|error| {
            self.metrics.connections_per_ip.inc();
            ConnectionDenied::new(error)
        })
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(event) if matches!(event.endpoint, ConnectedPoint::Listener { .. }) => {
                self.take_off(event.connection_id);
            }
            FromSwarm::ListenFailure(event) => self.take_off(event.connection_id),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ip_address_gets_its_share_and_no_more() {
        let mut limits = Behaviour::new(2, Arc::default());
        let local: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let a: Multiaddr = "/ip4/192.0.2.1/tcp/1000".parse().unwrap();
        let b: Multiaddr = "/ip4/192.0.2.2/tcp/1000".parse().unwrap();
        let mut dial = |id: usize, from: &Multiaddr| {
            limits.handle_pending_inbound_connection(ConnectionId::new_unchecked(id), &local, from).is_ok()
        };
        assert!(dial(1, &a) && dial(2, &a));
        assert!(!dial(3, &a));
        assert!(dial(4, &b));
        limits.take_off(ConnectionId::new_unchecked(1));
        limits.take_off(ConnectionId::new_unchecked(1));
        limits.take_off(ConnectionId::new_unchecked(3));
        let mut dial = |id: usize, from: &Multiaddr| {
            limits.handle_pending_inbound_connection(ConnectionId::new_unchecked(id), &local, from).is_ok()
        };
        assert!(dial(5, &a));
        assert!(!dial(6, &a));
    }

    #[test]
    fn ipv6_counts_by_64_and_mapped_ipv4_as_ipv4() {
        let ip = |text: &str| source(&text.parse().unwrap());
        assert_eq!(ip("/ip6/2001:db8::1/tcp/1"), ip("/ip6/2001:db8::ffff/tcp/2"));
        assert_ne!(ip("/ip6/2001:db8::1/tcp/1"), ip("/ip6/2001:db8:0:1::1/tcp/1"));
        assert_eq!(ip("/ip6/::ffff:192.0.2.1/tcp/1"), ip("/ip4/192.0.2.1/udp/5/quic-v1"));
        assert_eq!(ip("/dns4/example.com/tcp/1"), None);
    }
}
