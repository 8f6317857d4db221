//! Which addresses these transports speak.

use libp2p::{Multiaddr, multiaddr::Protocol};

/// What is said of an address of any other transport.
pub const UNSPOKEN: &str =
    "dhtstore speaks TCP, QUIC v1 (/quic-v1) and WebSockets (/ws, /tls/ws); name an address of one of these";

/// Whether this node has the transport of an address: TCP, QUIC v1, WebSockets plain or over TLS. Names that stand for whole
/// addresses (`/dnsaddr`) count: what is behind them shows when they are resolved.
pub fn can_dial(addr: &Multiaddr) -> bool {
    let mut parts = addr.iter().filter(|part| !matches!(part, Protocol::P2p(_) | Protocol::Ip6zone(_)));
    if matches!(parts.next(), Some(Protocol::Dnsaddr(_))) {
        return parts.next().is_none();
    }
    let over: Vec<Protocol<'_>> = parts.collect();
    matches!(
        over.as_slice(),
        [Protocol::Tcp(_)]
            | [Protocol::Udp(_), Protocol::QuicV1]
            | [Protocol::Tcp(_), Protocol::Ws(_) | Protocol::Wss(_)]
            | [Protocol::Tcp(_), Protocol::Tls, Protocol::Ws(_)]
            | [Protocol::Tcp(_), Protocol::Tls, Protocol::Sni(_), Protocol::Ws(_)]
    )
}

/// Whether we have a transport for this listen address: IP and TCP, IP and UDP with QUIC v1, or WebSockets over TCP
/// (`/ws`, `/tls/ws`, `/wss`). No group of hosts: nothing can be bound to a multicast or broadcast address.
pub fn can_listen(addr: &Multiaddr) -> bool {
    let parts: Vec<_> = addr.iter().collect();
    let (is_host, over) = match parts.as_slice() {
        [Protocol::Ip4(ip), over @ ..] => (!ip.is_multicast() && !ip.is_broadcast(), over),
        [Protocol::Ip6(ip), over @ ..] => (!ip.is_multicast(), over),
        _ => return false,
    };
    if !is_host {
        return false;
    }
    match over {
        [Protocol::Tcp(_)] | [Protocol::Udp(_), Protocol::QuicV1] => true,
        [Protocol::Tcp(_), Protocol::Ws(path) | Protocol::Wss(path)]
        | [Protocol::Tcp(_), Protocol::Tls, Protocol::Ws(path)] => path == "/",
        _ => false,
    }
}

/// Whether an address is one of WebSockets.
pub fn is_websocket(addr: &Multiaddr) -> bool {
    addr.iter().any(|p| matches!(p, Protocol::Ws(_) | Protocol::Wss(_)))
}

/// Whether an address is one of WebSockets over TLS.
pub fn is_secure_websocket(addr: &Multiaddr) -> bool {
    is_websocket(addr) && addr.iter().any(|p| matches!(p, Protocol::Tls | Protocol::Wss(_)))
}

/// Whether an address is a QUIC one.
pub fn is_quic(addr: &Multiaddr) -> bool {
    addr.iter().any(|p| matches!(p, Protocol::Quic | Protocol::QuicV1))
}
