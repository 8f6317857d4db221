//! The addresses that we announce: those of the listeners, or those that the operator sets.

use crate::{
    kad::{Dht, scope::AddressScope, useful::most_useful},
    no_announce,
    settings::Settings,
};
use arc_swap::ArcSwap;
use libp2p::{Multiaddr, multiaddr::Protocol};
use parking_lot::Mutex;
use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

/// Our addresses. The swarm task updates them; all parts of the node read them.
#[derive(Debug)]
pub(crate) struct Addresses {
    settings: Settings,
    listeners: Mutex<BTreeSet<Multiaddr>>,
    /// A few addresses at which several peers have reached us (AutoNAT v2).
    confirmed: ArcSwap<Vec<Multiaddr>>,
    announced: ArcSwap<Vec<Multiaddr>>,
}

/// Returns the IP address that an address begins with.
pub(crate) fn ip_of(addr: &Multiaddr) -> Option<IpAddr> {
    match addr.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

fn is_unspecified(addr: &Multiaddr) -> bool {
    ip_of(addr).is_some_and(|ip| ip.is_unspecified())
}

/// Returns whether only this machine can reach the address.
pub(crate) fn is_loopback(addr: &Multiaddr) -> bool {
    ip_of(addr).is_some_and(|ip| ip.is_loopback())
}

impl Addresses {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.clone(),
            listeners: Mutex::default(),
            confirmed: ArcSwap::default(),
            announced: ArcSwap::default(),
        }
    }

    /// Adds an address of a listener.
    pub(crate) fn listening(&self, addr: Multiaddr) {
        let mut listeners = self.listeners.lock();
        listeners.insert(addr);
        self.announced.store(Arc::new(self.compute(&listeners)));
    }

    /// Removes an address of a listener.
    pub(crate) fn not_listening(&self, addr: &Multiaddr) {
        let mut listeners = self.listeners.lock();
        listeners.remove(addr);
        self.announced.store(Arc::new(self.compute(&listeners)));
    }

    /// Replaces the addresses at which other peers have reached us. Returns whether that changes what we announce.
    pub(crate) fn confirm(&self, addrs: Vec<Multiaddr>) -> bool {
        let listeners = self.listeners.lock();
        if **self.confirmed.load() == addrs {
            return false;
        }
        self.confirmed.store(Arc::new(addrs));
        let announced = self.compute(&listeners);
        let changed = **self.announced.load() != announced;
        self.announced.store(Arc::new(announced));
        changed
    }

    /// Returns the addresses that the listeners are bound to.
    pub(crate) fn listeners(&self) -> Vec<Multiaddr> {
        self.listeners.lock().iter().cloned().collect()
    }

    /// Returns all addresses that we announce, regardless of the DHT.
    pub(crate) fn announced(&self) -> Arc<Vec<Multiaddr>> {
        self.announced.load_full()
    }

    /// Returns the addresses that we announce in `dht`.
    pub(crate) fn of(&self, dht: Dht) -> Vec<Multiaddr> {
        let scope = self.settings.profile.scope(dht);
        most_useful(self.announced.load().iter().filter(|addr| scope.hands_out(addr)).cloned().collect())
    }

    /// Returns the addresses for identify, which serves both DHTs: those that we announce in either.
    pub(crate) fn of_any(&self) -> BTreeSet<Multiaddr> {
        Dht::ALL.into_iter().flat_map(|dht| self.of(dht)).collect()
    }

    fn compute(&self, listeners: &BTreeSet<Multiaddr>) -> Vec<Multiaddr> {
        // Loopback addresses are useful only if there are no others: a network on one machine.
        let beyond_this_machine = listeners.iter().any(|addr| !is_loopback(addr) && !is_unspecified(addr));
        let own = listeners.iter().filter(|addr| !(is_unspecified(addr) || beyond_this_machine && is_loopback(addr)));
        let confirmed = self.confirmed.load();
        let base: Vec<_> = match self.settings.announce.as_slice() {
            // A forwarded port is announced once it is proved to lead here.
            [] => own.chain(confirmed.iter()).cloned().collect(),
            announce => announce.to_vec(),
        };
        let mut announced: Vec<Multiaddr> = Vec::new();
        for addr in base.into_iter().chain(self.settings.append_announce.iter().cloned()) {
            if !announced.contains(&addr) && no_announce::allows(&self.settings.no_announce, &addr) {
                announced.push(addr);
            }
        }
        announced
    }
}

/// Returns those of a peer's addresses that belong to `scope`. Loopback ones are kept only if the peer itself is on
/// loopback, or has no others: for a peer on another machine they would lead to this one.
pub(crate) fn plausible(scope: AddressScope, addrs: &[Multiaddr], seen_at: Option<&Multiaddr>) -> Vec<Multiaddr> {
    let local = seen_at.is_none_or(is_loopback) || !addrs.iter().any(|addr| !is_loopback(addr));
    addrs.iter().filter(|addr| scope.allows(addr) && (local || !is_loopback(addr))).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kad::scope::Profile;

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn addresses(announce: &[&str], append: &[&str], removed: &[&str]) -> Addresses {
        let all = |texts: &[&str]| texts.iter().map(|text| addr(text)).collect();
        let mut settings = Settings::on_loopback(Profile::Private);
        settings.announce = all(announce);
        settings.append_announce = all(append);
        settings.no_announce = all(removed);
        Addresses::new(&settings)
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
    fn what_others_have_reached_is_announced_as_long_as_they_do() {
        let one = addresses(&[], &[], &["/ip4/9.9.9.9/tcp/1"]);
        one.listening(addr("/ip4/10.0.0.1/tcp/1"));
        assert!(one.confirm(vec![addr("/ip4/8.8.8.8/tcp/1"), addr("/ip4/9.9.9.9/tcp/1")]));
        assert_eq!(announced(&one, &[]), ["/ip4/10.0.0.1/tcp/1", "/ip4/8.8.8.8/tcp/1"]);
        assert!(!one.confirm(vec![addr("/ip4/8.8.8.8/tcp/1")]), "the other one was never announced");
        assert!(one.confirm(Vec::new()));
        assert_eq!(announced(&one, &[]), ["/ip4/10.0.0.1/tcp/1"]);
        let named = addresses(&["/ip4/203.0.113.1/tcp/4001"], &[], &[]);
        named.listening(addr("/ip4/10.0.0.1/tcp/1"));
        assert!(!named.confirm(vec![addr("/ip4/8.8.8.8/tcp/1")]));
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
}
