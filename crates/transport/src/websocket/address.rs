//! WebSocket addresses: their forms, and what is needed to dial one.

use futures_rustls::pki_types::ServerName;
use libp2p::{Multiaddr, multiaddr::Protocol};
use std::net::IpAddr;

/// The only path that is dialled. Other paths (`/x-parity-ws/…`) belong to another network. They would let the author
/// of an address choose the request that we send to a third party's web server.
const PATH: &str = "/";

/// The destination of a WebSocket address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// The address that TCP dials, up to its port.
    pub tcp: Multiaddr,
    /// The name that the certificate must be valid for. `None` without TLS.
    pub tls: Option<ServerName<'static>>,
    /// The host and port of the HTTP request: `example.org:443`, `[::1]:4002`.
    pub host_port: String,
}

/// Returns the destination of a WebSocket address, or `None` if `addr` is not one that can be dialled.
///
/// Such an address begins with `/ip4/…/tcp/…`, `/ip6/…/tcp/…` or `/dns…/tcp/…`. Then comes `/ws`, `/wss`, `/tls/ws` or
/// `/tls/sni/NAME/ws`, and optionally the peer id.
pub fn target(addr: &Multiaddr) -> Option<Target> {
    let mut parts: Vec<Protocol<'_>> = addr.iter().collect();
    if let Some(Protocol::P2p(_)) = parts.last() {
        parts.pop();
    }
    let [host, Protocol::Tcp(port), over @ ..] = parts.as_slice() else { return None };
    let (shown, name) = match host {
        Protocol::Ip4(ip) => (ip.to_string(), ServerName::from(IpAddr::V4(*ip))),
        Protocol::Ip6(ip) => (format!("[{ip}]"), ServerName::from(IpAddr::V6(*ip))),
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => {
            // An address may hold any bytes. This lets only host names pass, so that none can inject HTTP headers.
            (name.to_string(), ServerName::try_from(name.to_string()).ok()?)
        }
        _ => return None,
    };
    let tls = match over {
        [Protocol::Ws(path)] if path == PATH => None,
        [Protocol::Wss(path)] | [Protocol::Tls, Protocol::Ws(path)] if path == PATH => Some(name),
        [Protocol::Tls, Protocol::Sni(sni), Protocol::Ws(path)] if path == PATH => {
            Some(ServerName::try_from(sni.to_string()).ok()?)
        }
        _ => return None,
    };
    let tcp = Multiaddr::from_iter([host.clone(), Protocol::Tcp(*port)]);
    Some(Target { tcp, tls, host_port: format!("{shown}:{port}") })
}

/// The end of a listen address, after its TCP port. It is put back on the addresses that TCP reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Suffix {
    /// `/ws`
    Ws,
    /// `/wss`, the older form of `/tls/ws`
    Wss,
    /// `/tls/ws`
    TlsWs,
}

impl Suffix {
    /// Splits a listen address. Returns `None` if it is not a WebSocket address.
    pub fn split(addr: &Multiaddr) -> Option<(Multiaddr, Self)> {
        let parts: Vec<Protocol<'_>> = addr.iter().collect();
        let [host @ (Protocol::Ip4(_) | Protocol::Ip6(_)), tcp @ Protocol::Tcp(_), over @ ..] = parts.as_slice() else {
            return None;
        };
        let suffix = match over {
            [Protocol::Ws(path)] if path == PATH => Self::Ws,
            [Protocol::Wss(path)] if path == PATH => Self::Wss,
            [Protocol::Tls, Protocol::Ws(path)] if path == PATH => Self::TlsWs,
            _ => return None,
        };
        Some((Multiaddr::from_iter([host.clone(), tcp.clone()]), suffix))
    }

    pub fn tls(self) -> bool {
        self != Self::Ws
    }

    pub fn put_on(self, addr: Multiaddr) -> Multiaddr {
        match self {
            Self::Ws => addr.with(Protocol::Ws(PATH.into())),
            Self::Wss => addr.with(Protocol::Wss(PATH.into())),
            Self::TlsWs => addr.with(Protocol::Tls).with(Protocol::Ws(PATH.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn net_5_every_form_of_a_websocket_address_is_understood() {
        let peer = "/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
        for (text, tcp, tls, host_port) in [
            ("/ip4/192.0.2.1/tcp/80/ws", "/ip4/192.0.2.1/tcp/80", None, "192.0.2.1:80"),
            ("/ip4/192.0.2.1/tcp/1/wss", "/ip4/192.0.2.1/tcp/1", Some("192.0.2.1"), "192.0.2.1:1"),
            ("/ip6/::1/tcp/1/tls/ws", "/ip6/::1/tcp/1", Some("::1"), "[::1]:1"),
            ("/dns4/a.example/tcp/443/tls/ws", "/dns4/a.example/tcp/443", Some("a.example"), "a.example:443"),
            ("/dns/a.example/tcp/443/wss", "/dns/a.example/tcp/443", Some("a.example"), "a.example:443"),
            ("/dns6/a.example/tcp/80/ws", "/dns6/a.example/tcp/80", None, "a.example:80"),
            (
                "/ip4/192.0.2.1/tcp/4001/tls/sni/192-0-2-1.k51.libp2p.direct/ws",
                "/ip4/192.0.2.1/tcp/4001",
                Some("192-0-2-1.k51.libp2p.direct"),
                "192.0.2.1:4001",
            ),
        ] {
            let tls = tls.map(|name| ServerName::try_from(name.to_owned()).unwrap());
            let expected = Some(Target { tcp: addr(tcp), tls, host_port: host_port.into() });
            assert_eq!(target(&addr(text)), expected, "{text}");
            assert_eq!(target(&addr(&format!("{text}{peer}"))), expected, "{text}");
        }
    }

    #[test]
    fn other_addresses_other_paths_and_names_that_are_none_are_left_alone() {
        for text in [
            "/ip4/192.0.2.1/tcp/80",
            "/ip4/192.0.2.1/tcp/80/tls",
            "/ip4/192.0.2.1/udp/80/quic-v1",
            "/ip4/192.0.2.1/tcp/80/tls/sni/a.example",
            "/ip4/192.0.2.1/tcp/80/x-parity-ws/%2Fadmin",
            "/ip4/192.0.2.1/tcp/80/ws/p2p-circuit",
            "/dnsaddr/a.example/tcp/80/ws",
        ] {
            assert_eq!(target(&addr(text)), None, "{text}");
        }
        let name = Protocol::Dns("a.example\r\nX: y".into());
        assert_eq!(target(&Multiaddr::from_iter([name, Protocol::Tcp(80), Protocol::Ws(PATH.into())])), None);
    }

    #[test]
    fn net_5_listen_addresses_come_back_as_they_were_written() {
        for text in ["/ip4/0.0.0.0/tcp/4002/ws", "/ip6/::/tcp/4002/wss", "/ip4/127.0.0.1/tcp/0/tls/ws"] {
            let (tcp, suffix) = Suffix::split(&addr(text)).unwrap();
            assert_eq!(suffix.put_on(tcp), addr(text));
            assert_eq!(suffix.tls(), !text.ends_with("/0/ws") && !text.ends_with("4002/ws"));
        }
        assert_eq!(Suffix::split(&addr("/ip4/0.0.0.0/tcp/4002")), None);
        assert_eq!(Suffix::split(&addr("/dns4/a.example/tcp/4002/ws")), None);
    }

    proptest! {
        #[test]
        fn no_address_panics(bytes: Vec<u8>, name: String, sni: String) {
            let made = Multiaddr::from_iter([
                Protocol::Dns(name.into()),
                Protocol::Tcp(1),
                Protocol::Tls,
                Protocol::Sni(sni.into()),
                Protocol::Ws(PATH.into()),
            ]);
            for addr in Multiaddr::try_from(bytes).into_iter().chain([made]) {
                let _ = (target(&addr), Suffix::split(&addr));
            }
        }
    }
}
