//! Checks the listen addresses of WebSockets, and the settings that they need (NET-5).

use super::Findings;
use crate::{
    config::Config,
    transport::addresses::{is_secure_websocket, is_websocket},
};
use libp2p::{Multiaddr, multiaddr::Protocol};
use std::net::IpAddr;

impl Config {
    pub(super) fn check_websockets(&self, findings: &mut Findings) {
        let settings = &self.websocket;
        match (&settings.certificate, &settings.key) {
            (Some(_), None) => {
                findings.problem("websocket.key", "missing; set it to the PEM file with the key of the certificate")
            }
            (None, Some(_)) => {
                findings.problem(
                    "websocket.certificate",
                    "missing; set it to the PEM file with the certificate and its chain",
                );
            }
            _ => {}
        }
        let secure = self.listen.iter().find(|addr| is_secure_websocket(addr));
        match (secure, &settings.certificate) {
            (Some(addr), None) if settings.key.is_none() => findings.problem(
                "listen",
                format_args!(
                    "{addr} needs a certificate; set websocket.certificate and websocket.key to PEM files, or listen \
                        on …/ws behind a proxy that has one"
                ),
            ),
            (None, Some(_)) => findings.warn(
                "websocket.certificate",
                "no listen address uses it; add a listen address like \"/ip4/0.0.0.0/tcp/4002/tls/ws\"",
            ),
            _ => {}
        }
        for (i, addr) in self.listen.iter().enumerate() {
            if let Some(other) = self.listen[..i].iter().find(|other| clash(other, addr)) {
                findings.problem(
                    "listen",
                    format_args!(
                        "{other} and {addr} are on one port, but a port serves one of plain TCP, WebSockets and \
                            secure WebSockets; use another port for one of them, like 4002"
                    ),
                );
            }
        }
    }
}

/// Returns whether two listen addresses with different protocols are on one TCP port. Both could bind it, and each
/// would get some of the connections.
fn clash(a: &Multiaddr, b: &Multiaddr) -> bool {
    let (Some((ip_a, port_a)), Some((ip_b, port_b))) = (socket(a), socket(b)) else { return false };
    let same_ip = ip_a == ip_b || ip_a.is_ipv4() == ip_b.is_ipv4() && (ip_a.is_unspecified() || ip_b.is_unspecified());
    let kind = |addr: &Multiaddr| (is_websocket(addr), is_secure_websocket(addr));
    same_ip && port_a == port_b && port_a != 0 && kind(a) != kind(b)
}

fn socket(addr: &Multiaddr) -> Option<(IpAddr, u16)> {
    let mut parts = addr.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some((ip, port)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Profile, Websocket};

    fn check(listen: &[&str], files: [Option<&str>; 2]) -> Result<usize, String> {
        let mut config = Config::defaults(Profile::Private);
        config.data_dir = "/var/lib/dhtstore".into();
        config.listen = listen.iter().map(|text| text.parse().unwrap()).collect();
        let [certificate, key] = files.map(|path| path.map(Into::into));
        config.websocket = Websocket { certificate, key, ca: None };
        config.validate().map(|warnings| warnings.len()).map_err(|error| error.to_string())
    }

    const BOTH: [Option<&str>; 2] = [Some("/c.pem"), Some("/k.pem")];

    #[test]
    fn net_5_a_secure_listen_address_needs_certificate_and_key() {
        for addr in ["/ip4/0.0.0.0/tcp/4002/tls/ws", "/ip6/::/tcp/4002/wss"] {
            assert_eq!(check(&[addr], BOTH), Ok(0));
            let error = check(&[addr], [None, None]).unwrap_err();
            assert!(error.contains(addr) && error.contains("websocket.certificate"), "{error}");
            assert!(check(&[addr], [Some("/c.pem"), None]).unwrap_err().starts_with("websocket.key: missing"));
            assert!(check(&[addr], [None, Some("/k.pem")]).unwrap_err().starts_with("websocket.certificate: missing"));
        }
        assert_eq!(check(&["/ip4/0.0.0.0/tcp/4002/ws"], [None, None]), Ok(0));
        assert_eq!(check(&["/ip4/0.0.0.0/tcp/4002/ws"], BOTH), Ok(1), "a certificate that nothing uses");
    }

    #[test]
    fn net_5_a_port_is_for_one_protocol() {
        for other in ["/ip4/0.0.0.0/tcp/4001/ws", "/ip4/127.0.0.1/tcp/4001/tls/ws"] {
            let error = check(&["/ip4/0.0.0.0/tcp/4001", other], BOTH).unwrap_err();
            assert!(error.contains("/ip4/0.0.0.0/tcp/4001 and") && error.contains(other), "{error}");
        }
        assert!(check(&["/ip4/10.0.0.1/tcp/4002/ws", "/ip4/10.0.0.1/tcp/4002/tls/ws"], BOTH).is_err());
        for apart in [
            ["/ip4/0.0.0.0/tcp/4001", "/ip4/0.0.0.0/tcp/4002/tls/ws"],
            ["/ip4/10.0.0.1/tcp/4001", "/ip4/10.0.0.2/tcp/4001/tls/ws"],
            // An IPv6 socket takes IPv6 connections only.
            ["/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001/tls/ws"],
            ["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/tcp/0/tls/ws"],
            ["/ip4/0.0.0.0/udp/4001/quic-v1", "/ip4/0.0.0.0/tcp/4001/tls/ws"],
            ["/ip4/0.0.0.0/tcp/4002/wss", "/ip4/0.0.0.0/tcp/4002/tls/ws"],
        ] {
            assert_eq!(check(&apart, BOTH), Ok(0), "{apart:?}");
        }
    }
}
