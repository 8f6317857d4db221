//! The names in a certificate, and whether a dialled address matches one of them.

use libp2p::{Multiaddr, multiaddr::Protocol};
use std::{fmt, net::IpAddr};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

/// The subject alternative names of a certificate.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Names {
    hosts: Vec<String>,
    ips: Vec<IpAddr>,
}

impl Names {
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Self {
        let mut names = Self::default();
        let Ok(Some(extension)) = certificate.subject_alternative_name() else { return names };
        for name in &extension.value.general_names {
            match name {
                GeneralName::DNSName(host) => names.hosts.push(host.to_ascii_lowercase()),
                GeneralName::IPAddress(octets) => names.ips.extend(ip(octets)),
                _ => {}
            }
        }
        names
    }

    /// Returns whether the certificate is valid for a peer that dials `addr` by TLS.
    pub fn cover(&self, addr: &Multiaddr) -> bool {
        let sni = addr.iter().find_map(|part| match part {
            Protocol::Sni(name) => Some(name.to_string()),
            _ => None,
        });
        match (sni, addr.iter().next()) {
            (Some(name), _) => self.cover_host(&name),
            (None, Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name))) => self.cover_host(&name),
            (None, Some(Protocol::Ip4(ip))) => self.ips.contains(&ip.into()),
            (None, Some(Protocol::Ip6(ip))) => self.ips.contains(&ip.into()),
            _ => false,
        }
    }

    /// Returns whether a name matches `host`. `*.example.org` matches exactly one label (RFC 6125).
    fn cover_host(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.hosts.iter().any(|name| match name.strip_prefix("*.") {
            Some(zone) => parent == Some(zone),
            None => *name == host,
        })
    }

    /// Returns a host for an example of an address.
    pub fn example(&self) -> String {
        let host = self.hosts.iter().find(|host| !host.starts_with('*'));
        host.cloned().unwrap_or_else(|| "HOST".to_owned())
    }
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(octets).ok().map(IpAddr::from)
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Most names shown. A certificate may have a hundred.
        const SHOWN: usize = 5;
        let all = self.hosts.iter().cloned().chain(self.ips.iter().map(ToString::to_string));
        let shown: Vec<String> = all.take(SHOWN).collect();
        let more = if self.hosts.len() + self.ips.len() > SHOWN { ", …" } else { "" };
        write!(f, "{}{more}", shown.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn net_5_an_address_is_covered_by_its_name_or_by_its_ip() {
        let names = Names {
            hosts: vec!["node.example.org".into(), "*.wild.example".into()],
            ips: vec!["192.0.2.1".parse().unwrap()],
        };
        let covered = |text: &str| names.cover(&text.parse().unwrap());
        for text in [
            "/dns4/node.example.org/tcp/443/tls/ws",
            "/dns4/Node.Example.Org./tcp/443/wss",
            "/dns/a.wild.example/tcp/443/tls/ws",
            "/ip4/192.0.2.1/tcp/443/tls/ws",
            "/ip4/198.51.100.1/tcp/443/tls/sni/node.example.org/ws",
        ] {
            assert!(covered(text), "{text}");
        }
        for text in [
            "/dns4/example.org/tcp/443/tls/ws",
            "/dns4/wild.example/tcp/443/tls/ws",
            "/dns4/a.b.wild.example/tcp/443/tls/ws",
            "/ip4/198.51.100.1/tcp/443/tls/ws",
            "/ip4/192.0.2.1/tcp/443/tls/sni/other.example/ws",
        ] {
            assert!(!covered(text), "{text}");
        }
    }
}
