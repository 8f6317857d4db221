//! Which addresses these transports support.

use libp2p::{Multiaddr, multiaddr::Protocol};

/// The end of the error about an address of any other transport.
pub const UNSPOKEN: &str =
    "dhtstore speaks TCP, QUIC v1 (/quic-v1) and WebSockets (/ws, /tls/ws); use an address of one of these";

/// Returns whether this node can dial `addr`: TCP, QUIC v1, or WebSockets with or without TLS. A `/dnsaddr` counts as
/// dialable, because its addresses are known only once it is resolved.
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

/// Returns whether this node can listen on `addr`: an IP address with TCP, with UDP and QUIC v1, or with WebSockets
/// over TCP (`/ws`, `/tls/ws`, `/wss`). Multicast and broadcast addresses cannot be bound.
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

/// Returns whether `addr` is a WebSocket address.
pub fn is_websocket(addr: &Multiaddr) -> bool {
    addr.iter().any(|p| matches!(p, Protocol::Ws(_) | Protocol::Wss(_)))
}

/// Returns whether `addr` is a WebSocket address over TLS.
pub fn is_secure_websocket(addr: &Multiaddr) -> bool {
    is_websocket(addr) && addr.iter().any(|p| matches!(p, Protocol::Tls | Protocol::Wss(_)))
}

/// Returns whether `addr` is a QUIC address.
pub fn is_quic(addr: &Multiaddr) -> bool {
    addr.iter().any(|p| matches!(p, Protocol::Quic | Protocol::QuicV1))
}
