//! Checks listen addresses before libp2p binds them. libp2p reuses ports, so it would not notice a second process on
//! the same port, and that process would receive half of the connections.

use libp2p::{Multiaddr, multiaddr::Protocol};
use socket2::{Domain, Socket, Type};
use std::{
    io,
    net::{IpAddr, SocketAddr},
};
use tracing::{info, warn};

/// An error that prevents listening.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// An address cannot be bound.
    #[error("cannot listen on {addr}: {reason}")]
    Bind {
        /// The address, as configured.
        addr: Multiaddr,
        /// The reason, and the next step for the operator.
        reason: String,
    },
    /// None of the addresses can be bound.
    #[error("no listen address could be bound; set `listen`, for instance to [\"/ip4/0.0.0.0/tcp/4001\"]")]
    NoAddress,
}

/// The kind of socket that an address needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Tcp,
    Udp,
}

/// Returns the addresses of `listen` that can be bound, without repeats.
///
/// IPv6 addresses that this machine does not have are left out with a warning. With a swarm key (`private`) QUIC
/// addresses are left out too, because pnet is defined for TCP only.
///
/// # Errors
/// Fails if another address cannot be bound, or if no address is left.
pub fn usable(listen: &[Multiaddr], private: bool) -> Result<Vec<Multiaddr>, ListenError> {
    let mut usable: Vec<Multiaddr> = Vec::new();
    let mut without_quic = 0usize;
    for addr in listen {
        if usable.contains(addr) {
            continue;
        }
        if private && addr.iter().any(|protocol| matches!(protocol, Protocol::QuicV1 | Protocol::Quic)) {
            without_quic += 1;
            continue;
        }
        let Some((socket_addr, kind)) = socket_of(addr) else {
            usable.push(addr.clone());
            continue;
        };
        match probe(socket_addr, kind) {
            Ok(()) => usable.push(addr.clone()),
            Err(error) if socket_addr.is_ipv6() && is_without_ipv6(&error) => {
                let why = match socket_addr.ip().is_unspecified() {
                    true => "this machine has no IPv6",
                    false => "this machine does not have that IPv6 address (`ip addr` lists those it has)",
                };
                warn!(%addr, %error, "not listening on one address: {why}; the other addresses still work");
            }
            Err(error) => return Err(explain(addr, socket_addr.port(), kind, &error)),
        }
    }
    if without_quic > 0 {
        info!(addresses = without_quic, "QUIC is off: a private network with a swarm key runs over TCP only");
    }
    if usable.is_empty() { Err(ListenError::NoAddress) } else { Ok(usable) }
}

/// Turns an error of `bind` into one that names the cause and the next step.
pub fn explain_bind(addr: &Multiaddr, error: &io::Error) -> ListenError {
    match socket_of(addr) {
        Some((socket_addr, kind)) => explain(addr, socket_addr.port(), kind, error),
        None => ListenError::Bind { addr: addr.clone(), reason: error.to_string() },
    }
}

fn explain(addr: &Multiaddr, port: u16, kind: Kind, error: &io::Error) -> ListenError {
    let (name, flag) = match kind {
        Kind::Tcp => ("TCP", 't'),
        Kind::Udp => ("UDP", 'u'),
    };
    let reason = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{name} port {port} is taken; stop the process that uses it (`ss -ln{flag}p 'sport = :{port}'` shows \
             which one) or set another port in `listen`"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "no permission for {name} port {port}; set a port above 1023 in `listen` or grant CAP_NET_BIND_SERVICE"
        ),
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have that address; correct `listen` (`ip addr` lists those it has)".to_owned()
        }
        _ => error.to_string(),
    };
    ListenError::Bind { addr: addr.clone(), reason }
}

fn socket_of(addr: &Multiaddr) -> Option<(SocketAddr, Kind)> {
    let mut protocols = addr.iter();
    let ip = match protocols.next()? {
        Protocol::Ip4(ip) => IpAddr::from(ip),
        Protocol::Ip6(ip) => IpAddr::from(ip),
        _ => return None,
    };
    match protocols.next()? {
        Protocol::Tcp(port) => Some((SocketAddr::new(ip, port), Kind::Tcp)),
        Protocol::Udp(port) => Some((SocketAddr::new(ip, port), Kind::Udp)),
        _ => None,
    }
}

/// Binds the address and releases it again. For TCP it sets SO_REUSEADDR, so that connections of the last run in
/// TIME_WAIT do not count. On Linux the bind still fails while another process listens there.
fn probe(addr: SocketAddr, kind: Kind) -> io::Result<()> {
    let (socket_type, protocol) = match kind {
        Kind::Tcp => (Type::STREAM, socket2::Protocol::TCP),
        Kind::Udp => (Type::DGRAM, socket2::Protocol::UDP),
    };
    let socket = Socket::new(Domain::for_address(addr), socket_type, Some(protocol))?;
    if addr.is_ipv6() {
        // As libp2p does, so that IPv4 can have its own socket.
        socket.set_only_v6(true)?;
    }
    if kind == Kind::Tcp {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&addr.into())?;
    if kind == Kind::Tcp {
        socket.listen(1)?;
    }
    Ok(())
}

/// Returns whether `error` means that the kernel has no IPv6 (EAFNOSUPPORT), or that no interface has the address
/// (EADDRNOTAVAIL).
fn is_without_ipv6(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.raw_os_error() == Some(EAFNOSUPPORT)
        || matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_taken_tcp_port_is_named_with_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        for ip in ["127.0.0.1", "0.0.0.0"] {
            let error = usable(&[addr(&format!("/ip4/{ip}/tcp/{port}"))], false).unwrap_err().to_string();
            assert!(error.contains(&format!("TCP port {port} is taken")), "{error}");
        }
    }

    #[test]
    fn a_port_that_is_shared_by_reuse_counts_as_taken_too() {
        let taken = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        taken.set_reuse_address(true).unwrap();
        taken.set_reuse_port(true).unwrap();
        taken.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        taken.listen(1).unwrap();
        let port = taken.local_addr().unwrap().as_socket().unwrap().port();
        assert!(usable(&[addr(&format!("/ip4/127.0.0.1/tcp/{port}"))], false).is_err());
    }

    #[test]
    fn a_taken_udp_port_is_named() {
        let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = usable(&[addr(&format!("/ip4/127.0.0.1/udp/{port}/quic-v1"))], false).unwrap_err().to_string();
        assert!(error.contains(&format!("UDP port {port} is taken")), "{error}");
    }

    #[test]
    fn quic_is_left_out_with_a_swarm_key_and_repeats_always() {
        let listen = [addr("/ip4/127.0.0.1/tcp/0"), addr("/ip4/127.0.0.1/udp/0/quic-v1"), addr("/ip4/127.0.0.1/tcp/0")];
        assert_eq!(usable(&listen, true).unwrap(), listen[..1]);
        assert_eq!(usable(&listen, false).unwrap(), listen[..2]);
        assert!(matches!(usable(&listen[1..2], true), Err(ListenError::NoAddress)));
    }
}
