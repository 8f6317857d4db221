//! Collects the addresses at which other peers see us, and derives those that might be public.

use crate::{kad::scope::IpGroup, peers::addresses::ip_of};
use libp2p::{Multiaddr, multiaddr::Protocol};
use std::{collections::BTreeSet, net::IpAddr, time::Duration};

/// Most observations kept; the newest stay.
const MAX_SEEN: usize = 32;

/// How long an observation counts.
const LIFE: Duration = Duration::from_secs(3600);

/// Independent peers that must see us at an IP address before we believe it.
const WITNESSES: usize = 2;

/// Most addresses tested at a time: two transports, two IP families, two interfaces.
pub(super) const MAX_CANDIDATES: usize = 8;

/// The observations of other peers.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    /// Oldest first; one for each group and IP family.
    seen: Vec<(IpGroup, IpAddr, Duration)>,
}

impl Observed {
    /// Records that a peer of `group` sees us at `addr`.
    pub(super) fn note(&mut self, group: IpGroup, addr: &Multiaddr, now: Duration) {
        let Some(ip) = ip_of(addr) else { return };
        self.seen.retain(|(other, seen, at)| {
            now.saturating_sub(*at) < LIFE && (*other != group || seen.is_ipv4() != ip.is_ipv4())
        });
        self.seen.push((group, ip, now));
        if self.seen.len() > MAX_SEEN {
            self.seen.remove(0);
        }
    }

    /// Returns the IP addresses at which several peers see us.
    fn ips(&self) -> BTreeSet<IpAddr> {
        let witnesses = |ip: &IpAddr| self.seen.iter().filter(|(_, seen, _)| seen == ip).count();
        self.seen.iter().map(|(_, ip, _)| *ip).filter(|ip| witnesses(ip) >= WITNESSES).collect()
    }

    /// Returns the addresses at which we might be reached from everywhere: the `listeners` for which `counts` holds,
    /// and, for forwarded ports, each listener's port at every IP address at which several peers see us.
    pub(super) fn candidates(&self, listeners: &[Multiaddr], counts: impl Fn(&Multiaddr) -> bool) -> Vec<Multiaddr> {
        let mut found: BTreeSet<Multiaddr> = listeners.iter().filter(|addr| counts(addr)).cloned().collect();
        for ip in self.ips() {
            let family = listeners.iter().filter(|addr| ip_of(addr).is_some_and(|own| own.is_ipv4() == ip.is_ipv4()));
            found.extend(
                family.filter_map(|addr| addr.replace(0, |_| Some(Protocol::from(ip)))).filter(|addr| counts(addr)),
            );
        }
        found.into_iter().take(MAX_CANDIDATES).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kad::scope::{AddressScope, IpGroups};

    fn addrs(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn mode_1_a_forwarded_port_is_a_candidate_once_two_independent_peers_see_the_address() {
        let mut observed = Observed::default();
        let listeners = addrs(&["/ip4/10.0.0.5/tcp/4001", "/ip4/10.0.0.5/udp/4001/quic-v1", "/ip6/fd00::5/tcp/4001"]);
        let group = |text: &str| IpGroups::default().of(&text.parse().unwrap()).unwrap();
        let candidates =
            |observed: &Observed| observed.candidates(&listeners, |addr| AddressScope::Public.allows(addr));
        let seen: Multiaddr = "/ip4/8.8.8.8/tcp/51234".parse().unwrap();
        observed.note(group("/ip4/1.2.0.1/tcp/1"), &seen, Duration::ZERO);
        observed.note(group("/ip4/1.2.0.2/tcp/1"), &seen, Duration::ZERO);
        assert_eq!(candidates(&observed), [], "the same group");
        observed.note(group("/ip4/1.3.0.1/tcp/1"), &seen, Duration::ZERO);
        assert_eq!(candidates(&observed), addrs(&["/ip4/8.8.8.8/tcp/4001", "/ip4/8.8.8.8/udp/4001/quic-v1"]));
        // A single peer that claims to see us elsewhere does not count, and neither do old observations.
        observed.note(group("/ip4/1.4.0.1/tcp/1"), &"/ip4/9.9.9.9/tcp/1".parse().unwrap(), LIFE);
        assert_eq!(candidates(&observed), []);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut observed = Observed::default();
        for n in 0..=255u8 {
            observed.note(IpGroup([4, n, n, 0, 0]), &format!("/ip4/8.8.{n}.1/tcp/1").parse().unwrap(), Duration::ZERO);
        }
        assert_eq!(observed.seen.len(), MAX_SEEN);
        let many: Vec<Multiaddr> = (1..100).map(|port| format!("/ip4/8.8.8.8/tcp/{port}").parse().unwrap()).collect();
        assert_eq!(observed.candidates(&many, |_| true).len(), MAX_CANDIDATES);
    }
}
