//! Decides which addresses belong to which DHT, and to which IP group an address belongs.

use crate::Dht;
use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

/// The rules for a kind of network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// A private network: any address, no IP diversity.
    #[default]
    Private,
    /// The public DHT: public addresses, IP diversity (RT-6).
    Amino,
}

impl Profile {
    /// Both profiles.
    pub const ALL: [Profile; 2] = [Profile::Private, Profile::Amino];

    /// Returns the scope of the addresses that `dht` keeps and hands out.
    pub fn scope(self, dht: Dht) -> AddressScope {
        match (self, dht) {
            (Profile::Private, _) => AddressScope::Any,
            (Profile::Amino, Dht::Wan) => AddressScope::Public,
            (Profile::Amino, Dht::Lan) => AddressScope::Private,
        }
    }

    /// Returns whether IP diversity (RT-6) applies: only on the public DHT.
    pub fn ip_diversity(self, dht: Dht) -> bool {
        self == Profile::Amino && dht == Dht::Wan
    }

    /// Returns the name in the configuration file.
    pub const fn name(self) -> &'static str {
        match self {
            Profile::Private => "private",
            Profile::Amino => "amino",
        }
    }
}

/// The addresses that a DHT keeps and hands out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AddressScope {
    /// Every address that can be dialled (profile `private`).
    Any,
    /// Only globally routable addresses (SRV-3, PRV-7).
    Public,
    /// Only private and link-local addresses; no loopback.
    Private,
}

impl AddressScope {
    /// Returns whether this node may dial an address in this scope, and keep it in a routing table.
    ///
    /// Every scope refuses an unspecified or multicast IP, port 0, an address without a host or a transport, an address
    /// through a relay (the node never dials those, RT-3), and a host name with characters other than letters, digits,
    /// `-`, `_` and `.`.
    pub fn allows(self, addr: &Multiaddr) -> bool {
        let Some(reach) = reach(addr) else { return false };
        match self {
            AddressScope::Any => true,
            AddressScope::Public => reach == Reach::Public,
            AddressScope::Private => reach == Reach::Private,
        }
    }

    /// Returns whether an address may be handed out in this scope: this node may dial it, or it leads through a relay
    /// whose address this node may dial. Peers behind a NAT have only such addresses (PRV-7; go's `IsPublicAddr`
    /// decides the same).
    pub fn hands_out(self, addr: &Multiaddr) -> bool {
        self.allows(addr) || relay_address(addr).is_some_and(|relay| self.allows(&relay))
    }
}

/// Returns the address of the relay in a circuit `ADDRESS/p2p/RELAY/p2p-circuit`; `None` for any other address.
pub fn relay_address(addr: &Multiaddr) -> Option<Multiaddr> {
    if addr.iter().last() != Some(Protocol::P2pCircuit) {
        return None;
    }
    let mut relay = addr.clone();
    relay.pop();
    let Some(Protocol::P2p(_)) = relay.pop() else { return None };
    let is_direct =
        !relay.is_empty() && relay.iter().all(|part| !matches!(part, Protocol::P2p(_) | Protocol::P2pCircuit));
    is_direct.then_some(relay)
}

/// The place from which an address can be dialled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Anywhere.
    Public,
    /// The local network: RFC 1918, carrier-grade NAT (which overlay networks use), link-local, ULA, `.local`.
    Private,
    /// This host.
    Loopback,
    /// Unknown: documentation, benchmarking and other reserved ranges.
    Reserved,
}

/// Returns from where `addr` can be dialled; `None` if from nowhere (see [`AddressScope::allows`]). Essentially the
/// same rules as go's `manet.IsPublicAddr` and `IsPrivateAddr`.
pub fn reach(addr: &Multiaddr) -> Option<Reach> {
    if !addr.iter().all(|part| is_plain(&part)) {
        return None;
    }
    let mut parts = addr.iter().filter(|part| !matches!(part, Protocol::Ip6zone(_)));
    let reach = match parts.next()? {
        Protocol::Ip4(ip) => ip_reach(ip.into())?,
        Protocol::Ip6(ip) => ip_reach(ip.into())?,
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => name_reach(&name)?,
        // Its TXT records hold whole addresses, so nothing needs to follow.
        Protocol::Dnsaddr(name) => return name_reach(&name),
        _ => return None,
    };
    let dialable = match parts.next()? {
        Protocol::Tcp(port) => port != 0,
        // UDP alone is not a transport: a protocol on top must follow.
        Protocol::Udp(port) => port != 0 && parts.next().is_some_and(|over| !matches!(over, Protocol::P2p(_))),
        _ => false,
    };
    dialable.then_some(reach)
}

/// Returns whether a part of an address is neither a Unix path nor a circuit, and has no invalid name. In a binary
/// address a name may be any text: slashes would make it print as another address, and control characters could control
/// a terminal.
fn is_plain(part: &Protocol<'_>) -> bool {
    !matches!(part, Protocol::P2pCircuit) && is_printable(part)
}

/// The same as [`is_plain`], but allows circuits.
fn is_printable(part: &Protocol<'_>) -> bool {
    match part {
        Protocol::Unix(_) => false,
        Protocol::Dns(name)
        | Protocol::Dns4(name)
        | Protocol::Dns6(name)
        | Protocol::Dnsaddr(name)
        | Protocol::Sni(name)
        | Protocol::Ip6zone(name) => name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)),
        _ => true,
    }
}

/// Returns from where an IP address can be dialled; `None` if from nowhere.
pub fn ip_reach(ip: IpAddr) -> Option<Reach> {
    match ip {
        IpAddr::V4(ip) => ip4_reach(ip),
        IpAddr::V6(ip) => ip6_reach(ip),
    }
}

fn ip4_reach(ip: Ipv4Addr) -> Option<Reach> {
    let [a, b, c, _] = ip.octets();
    Some(match [a, b, c] {
        _ if ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() => return None,
        [127, ..] => Reach::Loopback,
        [10, ..] | [172, 16..=31, _] | [192, 168, _] | [100, 64..=127, _] | [169, 254, _] => Reach::Private,
        // go's list of unroutable networks: this network, IETF assignments, documentation, 6to4 relays, benchmarking,
        // future use.
        [0, ..]
        | [192, 0, 0 | 2]
        | [192, 88, 99]
        | [198, 18..=19, _]
        | [198, 51, 100]
        | [203, 0, 113]
        | [240..=255, ..] => Reach::Reserved,
        _ => Reach::Public,
    })
}

fn ip6_reach(ip: Ipv6Addr) -> Option<Reach> {
    if let Some(ip4) = embedded_ip4(ip) {
        return ip4_reach(ip4);
    }
    Some(match ip.segments() {
        _ if ip.is_unspecified() || ip.is_multicast() => return None,
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Loopback,
        // Unique local (fc00::/7) and link-local (fe80::/10).
        [0xfc00..=0xfdff | 0xfe80..=0xfebf, ..] => Reach::Private,
        [0x2001, 0x0db8, ..] => Reach::Reserved,
        // Only global unicast (2000::/3) is routed.
        [0x2000..=0x3fff, ..] => Reach::Public,
        _ => Reach::Reserved,
    })
}

/// Returns the IPv4 address in an IPv4-mapped (::ffff:0:0/96) or NAT64 (64:ff9b::/96) address.
fn embedded_ip4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            Some(Ipv4Addr::new(a, b, c, d))
        }
        _ => None,
    }
}

/// Names that never resolve to a host (RFC 6761 and reverse look-up).
const NOWHERE: [&str; 3] = ["invalid", "in-addr.arpa", "ip6.arpa"];
/// Names that resolve only on the local network (RFC 6762, RFC 8375, RFC 6761, and `.internal` by ICANN 2024).
const LOCAL_NETWORK: [&str; 4] = ["local", "home.arpa", "test", "internal"];

fn name_reach(name: &str) -> Option<Reach> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let under = |zone: &str| name.strip_suffix(zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if name.is_empty() || NOWHERE.into_iter().any(under) {
        None
    } else if under("localhost") {
        Some(Reach::Loopback)
    } else if LOCAL_NETWORK.into_iter().any(under) {
        Some(Reach::Private)
    } else {
        Some(Reach::Public)
    }
}

/// A group of addresses for IP diversity (RT-6), determined by [`IpGroups`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct IpGroup(pub [u8; 5]);

/// First octets of the old class A blocks that still belong to one organisation each, as listed by go. Each is one
/// group.
const LEGACY_CLASS_A: [u8; 8] = [12, 17, 19, 38, 48, 53, 56, 73];

/// A map from IPv6 addresses to the autonomous system (AS) that announces them. It must never change: the routing table
/// relies on a peer's groups staying the same, and simulations must be repeatable.
pub trait AutonomousSystems: fmt::Debug + Send + Sync {
    /// Returns the number of the AS; `None` if it is not known.
    fn number(&self, ip: Ipv6Addr) -> Option<u32>;
}

/// Groups addresses (RT-6): IPv4 by /16 or legacy /8, IPv6 by AS. If the AS is not known, IPv6 is grouped by /32, the
/// usual allocation of one provider. The default knows no AS.
#[derive(Clone, Default, Debug)]
pub struct IpGroups {
    systems: Option<Arc<dyn AutonomousSystems>>,
}

impl IpGroups {
    /// Groups IPv6 addresses by the AS that `systems` returns.
    pub fn new(systems: Arc<dyn AutonomousSystems>) -> Self {
        Self { systems: Some(systems) }
    }

    /// Returns the group of the address's IP; `None` if it has no IP. IPv4 inside IPv6 counts as IPv4.
    pub fn of(&self, addr: &Multiaddr) -> Option<IpGroup> {
        let ip = addr.iter().find_map(|part| match part {
            Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
            Protocol::Ip6(ip) => Some(embedded_ip4(ip).map_or(IpAddr::V6(ip), IpAddr::V4)),
            _ => None,
        })?;
        Some(match ip {
            IpAddr::V4(ip) => match ip.octets() {
                [a, ..] if LEGACY_CLASS_A.contains(&a) => IpGroup([8, a, 0, 0, 0]),
                [a, b, ..] => IpGroup([4, a, b, 0, 0]),
            },
            IpAddr::V6(ip) => match self.systems.as_ref().and_then(|systems| systems.number(ip)) {
                Some(number) => {
                    let [a, b, c, d] = number.to_be_bytes();
                    IpGroup([b'A', a, b, c, d])
                }
                None => {
                    let [a, b, c, d, ..] = ip.octets();
                    IpGroup([6, a, b, c, d])
                }
            },
        })
    }
}

/// Returns the address without a trailing `/p2p/<peer>`. `None` if it ends in another peer, contains an invalid host
/// name, or has a peer in the middle that is not the relay of a circuit: a relay without its circuit, two relays, or
/// `peer` as its own relay.
pub fn strip_peer(addr: Multiaddr, peer: &PeerId) -> Option<Multiaddr> {
    if !addr.iter().all(|part| is_printable(&part)) {
        return None;
    }
    let mut stripped = addr;
    while let Some(Protocol::P2p(named)) = stripped.iter().last() {
        if named != *peer {
            return None;
        }
        stripped.pop();
    }
    if relay_address(&stripped).is_some() {
        let through_itself = stripped.iter().any(|part| part == Protocol::P2p(*peer));
        return (!through_itself).then_some(stripped);
    }
    let is_direct = stripped.iter().all(|part| !matches!(part, Protocol::P2p(_) | Protocol::P2pCircuit));
    (is_direct && !stripped.is_empty()).then_some(stripped)
}

#[cfg(test)]
mod tests;
