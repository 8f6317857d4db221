//! What we announce of ourselves: the listeners' addresses, or what the operator says.

use crate::{
    config::{Config, Profile},
    kad::{Dht, scope::AddressScope},
};
use arc_swap::ArcSwap;
use libp2p::{Multiaddr, multiaddr::Protocol};
use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// Our addresses, kept up to date by the swarm task and read by everybody.
#[derive(Debug)]
pub(crate) struct Addresses {
    profile: Profile,
    announce: Vec<Multiaddr>,
    append: Vec<Multiaddr>,
    removed: Vec<Removed>,
    listeners: Mutex<BTreeSet<Multiaddr>>,
    announced: ArcSwap<Vec<Multiaddr>>,
}

/// An entry of `no_announce`.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Removed {
    Exact(Multiaddr),
    Range { network: IpAddr, bits: u8 },
}

impl Removed {
    fn of(addr: &Multiaddr) -> Self {
        let mut protocols = addr.iter();
        let network = match protocols.next() {
            Some(Protocol::Ip4(ip)) => IpAddr::from(ip),
            Some(Protocol::Ip6(ip)) => IpAddr::from(ip),
            _ => return Self::Exact(addr.clone()),
        };
        match protocols.next() {
            Some(Protocol::Ipcidr(bits)) => Self::Range { network, bits },
            _ => Self::Exact(addr.clone()),
        }
    }

    fn covers(&self, addr: &Multiaddr) -> bool {
        match self {
            Self::Exact(exact) => exact == addr,
            Self::Range { network, bits } => ip_of(addr).is_some_and(|ip| in_range(ip, *network, *bits)),
        }
    }
}

/// The IP address that an address begins with.
pub(crate) fn ip_of(addr: &Multiaddr) -> Option<IpAddr> {
    match addr.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

fn in_range(ip: IpAddr, network: IpAddr, bits: u8) -> bool {
    let (ip, network, width) = match (ip, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(u32::from(a)), u128::from(u32::from(b)), 32u32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a), u128::from(b), 128),
        _ => return false,
    };
    let ignored = width.saturating_sub(u32::from(bits));
    // A shift by the whole width is no shift at all in Rust's eyes: /0 covers everything.
    ip.checked_shr(ignored).unwrap_or(0) == network.checked_shr(ignored).unwrap_or(0)
}

fn is_unspecified(addr: &Multiaddr) -> bool {
    ip_of(addr).is_some_and(|ip| ip.is_unspecified())
}

/// Whether others on this machine only can use it.
pub(crate) fn is_loopback(addr: &Multiaddr) -> bool {
    ip_of(addr).is_some_and(|ip| ip.is_loopback())
}

impl Addresses {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            profile: config.profile,
            announce: config.announce.clone(),
            append: config.append_announce.clone(),
            removed: config.no_announce.iter().map(Removed::of).collect(),
            listeners: Mutex::default(),
            announced: ArcSwap::default(),
        }
    }

    /// A listener has an address more.
    pub(crate) fn listening(&self, addr: Multiaddr) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.insert(addr);
        self.announced.store(Arc::new(self.compute(&listeners)));
    }

    /// A listener has an address less.
    pub(crate) fn not_listening(&self, addr: &Multiaddr) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.remove(addr);
        self.announced.store(Arc::new(self.compute(&listeners)));
    }

    /// The addresses that listeners are bound to.
    pub(crate) fn listeners(&self) -> Vec<Multiaddr> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// What is told of us in `dht`.
    pub(crate) fn of(&self, dht: Dht) -> Vec<Multiaddr> {
        let scope = self.profile.scope(dht);
        self.announced.load().iter().filter(|addr| scope.allows(addr)).cloned().collect()
    }

    /// What identify tells: identify knows no DHTs, so whatever is told in any of them.
    pub(crate) fn of_any(&self) -> BTreeSet<Multiaddr> {
        Dht::ALL.into_iter().flat_map(|dht| self.of(dht)).collect()
    }

    fn compute(&self, listeners: &BTreeSet<Multiaddr>) -> Vec<Multiaddr> {
        // Loopback is of use only where there is nothing else: a network on one machine.
        let beyond_this_machine = listeners.iter().any(|addr| !is_loopback(addr) && !is_unspecified(addr));
        let own = listeners.iter().filter(|addr| !is_unspecified(addr) && !(beyond_this_machine && is_loopback(addr)));
        let base: Vec<_> = if self.announce.is_empty() { own.cloned().collect() } else { self.announce.clone() };
        let mut announced: Vec<Multiaddr> = Vec::new();
        for addr in base.into_iter().chain(self.append.iter().cloned()) {
            if !announced.contains(&addr) && !self.removed.iter().any(|removed| removed.covers(&addr)) {
                announced.push(addr);
            }
        }
        announced
    }
}

/// Those of a peer's addresses that belong to `scope`; loopback ones only if the peer itself is seen on loopback:
/// of a peer elsewhere they would lead to ourselves.
pub(crate) fn plausible(scope: AddressScope, addrs: &[Multiaddr], seen_at: Option<&Multiaddr>) -> Vec<Multiaddr> {
    let local = seen_at.is_none_or(is_loopback) || !addrs.iter().any(|addr| !is_loopback(addr));
    addrs.iter().filter(|addr| scope.allows(addr) && (local || !is_loopback(addr))).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn addresses(announce: &[&str], append: &[&str], removed: &[&str]) -> Addresses {
        Addresses {
            profile: Profile::Private,
            announce: announce.iter().map(|a| addr(a)).collect(),
            append: append.iter().map(|a| addr(a)).collect(),
            removed: removed.iter().map(|a| Removed::of(&addr(a))).collect(),
            listeners: Mutex::default(),
            announced: ArcSwap::default(),
        }
    }

    fn announced(addresses: &Addresses, listeners: &[&str]) -> Vec<String> {
        for listener in listeners {
            addresses.listening(addr(listener));
        }
        addresses.announced.load().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn listeners_are_announced_and_loopback_only_when_there_is_nothing_else() {
        let one = addresses(&[], &[], &[]);
        assert_eq!(announced(&one, &["/ip4/127.0.0.1/tcp/1"]), ["/ip4/127.0.0.1/tcp/1"]);
        assert_eq!(announced(&one, &["/ip4/10.0.0.1/tcp/1", "/ip4/0.0.0.0/tcp/1"]), ["/ip4/10.0.0.1/tcp/1"]);
        one.not_listening(&addr("/ip4/10.0.0.1/tcp/1"));
        assert_eq!(announced(&one, &[]), ["/ip4/127.0.0.1/tcp/1"]);
    }

    #[test]
    fn announce_replaces_append_adds_and_no_announce_removes() {
        let one = addresses(
            &["/ip4/203.0.113.1/tcp/4001", "/ip4/10.1.2.3/tcp/4001"],
            &["/dns4/node.example/tcp/4001", "/ip4/203.0.113.1/tcp/4001", "/ip6/fd00::1/tcp/1"],
            &["/ip4/10.0.0.0/ipcidr/8", "/ip6/fc00::/ipcidr/7"],
        );
        assert_eq!(
            announced(&one, &["/ip4/192.0.2.1/tcp/4001"]),
            ["/ip4/203.0.113.1/tcp/4001", "/dns4/node.example/tcp/4001"]
        );
    }

    #[test]
    fn masks_cover_their_range_exactly() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(in_range(ip("10.255.255.255"), ip("10.0.0.0"), 8));
        assert!(!in_range(ip("11.0.0.0"), ip("10.0.0.0"), 8));
        assert!(in_range(ip("1.2.3.4"), ip("0.0.0.0"), 0));
        assert!(in_range(ip("1.2.3.4"), ip("1.2.3.4"), 32));
        assert!(!in_range(ip("1.2.3.5"), ip("1.2.3.4"), 32));
        assert!(in_range(ip("2001:db8::1"), ip("::"), 0));
        assert!(!in_range(ip("2001:db8::1"), ip("0.0.0.0"), 0));
    }
}
