//! Decides which handshake gives way. Pure: times and addresses are arguments.

use libp2p::{Multiaddr, multiaddr::Protocol};
use std::{
    collections::{HashMap, VecDeque},
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

/// A *connection group*: an IPv4 /24 or an IPv6 /48, whose addresses likely belong to one party. The IP groups of the
/// routing table (RT-6) are larger.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Group {
    V4([u8; 3]),
    V6([u16; 3]),
    /// Any address without an IP.
    Other,
}

impl Group {
    /// Returns the group of the address that a connection comes from. An IPv4-mapped IPv6 address counts as IPv4.
    pub(crate) fn of(addr: &Multiaddr) -> Self {
        let v4 = |ip: Ipv4Addr| {
            let [a, b, c, _] = ip.octets();
            Self::V4([a, b, c])
        };
        match addr.iter().next() {
            Some(Protocol::Ip4(ip)) => v4(ip),
            Some(Protocol::Ip6(ip)) => match ip.to_ipv4_mapped() {
                Some(ip) => v4(ip),
                None => {
                    let [a, b, c, ..] = ip.segments();
                    Self::V6([a, b, c])
                }
            },
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4([a, b, c]) => write!(f, "{}/24", Ipv4Addr::new(*a, *b, *c, 0)),
            Self::V6([a, b, c]) => write!(f, "{}/48", Ipv6Addr::new(*a, *b, *c, 0, 0, 0, 0, 0)),
            Self::Other => f.write_str("addresses without an IP"),
        }
    }
}

/// Identifies a handshake. A later handshake has a larger ticket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Ticket(u64);

/// What happens to a newcomer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arrival {
    /// There is room.
    Enters(Ticket),
    /// There is no room, and an older handshake of the group `of` gives way.
    Replaces { ticket: Ticket, gone: Ticket, of: Group },
    /// There is no room. The oldest handshake of the group `crowd` is within its grace, and the newcomer's group is not
    /// smaller.
    Refused { crowd: Group },
}

/// The handshakes under way by group, oldest first.
#[derive(Debug)]
pub(super) struct Pending {
    max: usize,
    max_per_group: usize,
    grace: Duration,
    groups: HashMap<Group, VecDeque<(Ticket, Duration)>>,
    len: usize,
    next: u64,
}

impl Pending {
    /// Allows at most `max` handshakes in all and `max_per_group` of one group. A handshake younger than `grace` gives
    /// way only to newcomers of smaller groups.
    pub(super) fn new(max: usize, max_per_group: usize, grace: Duration) -> Self {
        Self { max, max_per_group, grace, groups: HashMap::new(), len: 0, next: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the number of handshakes of a group.
    pub(super) fn of(&self, group: &Group) -> usize {
        self.groups.get(group).map_or(0, VecDeque::len)
    }

    /// Admits a newcomer if possible. If its group is full, the oldest of that group gives way. If all places are
    /// taken, the oldest of the largest group does.
    ///
    /// The grace protects a handshake from newcomers of a group of the same size: a burst must not end handshakes that
    /// are nearly done. It does not protect a larger group from a smaller one: otherwise a crowd that reconnects fast
    /// enough would always be within its grace and keep all others out.
    pub(super) fn arrives(&mut self, group: Group, now: Duration) -> Arrival {
        let crowd = if self.of(&group) >= self.max_per_group {
            Some(group)
        } else if self.len >= self.max {
            self.largest()
        } else {
            None
        };
        let Some(crowd) = crowd else { return Arrival::Enters(self.enter(group, now)) };
        let smaller = self.of(&group) + 1 < self.of(&crowd);
        let oldest = self.groups.get(&crowd).and_then(VecDeque::front).copied();
        match oldest.filter(|(_, since)| smaller || now.saturating_sub(*since) >= self.grace) {
            Some((gone, _)) => {
                self.leaves(crowd, gone);
                Arrival::Replaces { ticket: self.enter(group, now), gone, of: crowd }
            }
            None => Arrival::Refused { crowd },
        }
    }

    /// Removes a handshake that has ended. Does nothing if it gave way before.
    pub(super) fn leaves(&mut self, group: Group, ticket: Ticket) {
        let Some(members) = self.groups.get_mut(&group) else { return };
        let Ok(at) = members.binary_search_by_key(&ticket, |(ticket, _)| *ticket) else { return };
        members.remove(at);
        self.len -= 1;
        if members.is_empty() {
            self.groups.remove(&group);
        }
    }

    fn enter(&mut self, group: Group, now: Duration) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.groups.entry(group).or_default().push_back((ticket, now));
        self.len += 1;
        ticket
    }

    /// Returns the largest group; of several, the one with the oldest handshake.
    fn largest(&self) -> Option<Group> {
        let oldest =
            |members: &VecDeque<(Ticket, Duration)>| members.front().map(|(ticket, _)| std::cmp::Reverse(*ticket));
        self.groups.iter().max_by_key(|(_, members)| (members.len(), oldest(members))).map(|(group, _)| *group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GRACE: Duration = Duration::from_millis(250);

    fn group(n: u8) -> Group {
        Group::V4([192, 0, n])
    }

    #[test]
    fn groups_are_ipv4_by_24_bits_and_ipv6_by_48() {
        let of = |text: &str| Group::of(&text.parse().unwrap());
        assert_eq!(of("/ip4/192.0.2.1/tcp/1"), of("/ip4/192.0.2.200/udp/2/quic-v1"));
        assert_ne!(of("/ip4/192.0.2.1/tcp/1"), of("/ip4/192.0.3.1/tcp/1"));
        assert_eq!(of("/ip6/2001:db8:1:2::1/tcp/1"), of("/ip6/2001:db8:1:ffff::1/tcp/1"));
        assert_ne!(of("/ip6/2001:db8:1::1/tcp/1"), of("/ip6/2001:db8:2::1/tcp/1"));
        assert_eq!(of("/ip6/::ffff:192.0.2.1/tcp/1"), of("/ip4/192.0.2.9/tcp/1"));
        assert_eq!(of("/ip6/2001:db8:1:2::1/tcp/1").to_string(), "2001:db8:1::/48");
        assert_eq!(of("/ip4/192.0.2.1/tcp/1").to_string(), "192.0.2.0/24");
    }

    #[test]
    fn a_full_group_makes_room_by_its_own_oldest_and_nobody_elses() {
        let mut pending = Pending::new(100, 2, GRACE);
        let Arrival::Enters(other) = pending.arrives(group(9), Duration::ZERO) else { panic!() };
        let Arrival::Enters(first) = pending.arrives(group(1), Duration::ZERO) else { panic!() };
        pending.arrives(group(1), Duration::ZERO);
        assert_eq!(pending.arrives(group(1), GRACE / 2), Arrival::Refused { crowd: group(1) });
        let arrival = pending.arrives(group(1), GRACE);
        assert!(
            matches!(arrival, Arrival::Replaces { gone, of, .. } if gone == first && of == group(1)),
            "{arrival:?}"
        );
        assert_eq!((pending.of(&group(1)), pending.of(&group(9)), pending.len()), (2, 1, 3));
        pending.leaves(group(1), first);
        pending.leaves(group(9), other);
        assert_eq!(pending.len(), 2);
    }

    #[test]
    fn where_all_places_are_taken_the_oldest_of_the_largest_group_gives_way() {
        let mut pending = Pending::new(5, 3, GRACE);
        for (n, times) in [(1, 2), (2, 3)] {
            for _ in 0..times {
                assert!(matches!(pending.arrives(group(n), Duration::ZERO), Arrival::Enters(_)));
            }
        }
        let arrival = pending.arrives(group(3), GRACE);
        assert!(matches!(arrival, Arrival::Replaces { of, .. } if of == group(2)), "{arrival:?}");
        // Of two groups of the same size, the one with the oldest handshake gives way.
        let arrival = pending.arrives(group(4), GRACE);
        assert!(matches!(arrival, Arrival::Replaces { of, .. } if of == group(1)), "{arrival:?}");
    }

    #[test]
    fn a_crowd_that_is_always_young_keeps_no_smaller_group_out() {
        let mut pending = Pending::new(6, 3, GRACE);
        for n in [1, 1, 1, 2, 2, 2] {
            assert!(matches!(pending.arrives(group(n), Duration::ZERO), Arrival::Enters(_)));
        }
        assert_eq!(pending.arrives(group(1), Duration::ZERO), Arrival::Refused { crowd: group(1) });
        let arrival = pending.arrives(group(3), Duration::ZERO);
        assert!(matches!(arrival, Arrival::Replaces { of, .. } if of == group(1)), "{arrival:?}");
        let arrival = pending.arrives(group(4), Duration::ZERO);
        assert!(matches!(arrival, Arrival::Replaces { of, .. } if of == group(2)), "{arrival:?}");
        // Now the groups have the same size, or nearly: the grace protects them.
        assert_eq!((pending.of(&group(1)), pending.of(&group(2))), (2, 2));
        assert!(matches!(pending.arrives(group(3), Duration::ZERO), Arrival::Refused { .. }));
    }

    proptest! {
        #[test]
        fn the_bounds_hold_and_within_its_grace_one_gives_way_to_smaller_groups_only(
            arrivals in proptest::collection::vec((0u8..6, 0u64..200, any::<bool>()), 0..300),
        ) {
            let (max, per_group) = (20, 7);
            let mut pending = Pending::new(max, per_group, GRACE);
            let mut now = Duration::ZERO;
            let mut alive: HashMap<Ticket, (Group, Duration)> = HashMap::new();
            for (n, pause, leaves) in arrivals {
                now += Duration::from_millis(pause);
                let oldest = alive.keys().min().copied();
                if let Some(ticket) = oldest.filter(|_| leaves) {
                    let (of, _) = alive.remove(&ticket).unwrap();
                    pending.leaves(of, ticket);
                }
                match pending.arrives(group(n), now) {
                    Arrival::Enters(ticket) => _ = alive.insert(ticket, (group(n), now)),
                    Arrival::Replaces { ticket, gone, of } => {
                        let size = |group| alive.values().filter(|(of, _)| *of == group).count();
                        let smaller = size(group(n)) + 1 < size(of);
                        let (was_of, since) = alive.remove(&gone).unwrap();
                        prop_assert!(was_of == of && (smaller || now - since >= GRACE));
                        alive.insert(ticket, (group(n), now));
                    }
                    Arrival::Refused { crowd } => {
                        let size = |group| alive.values().filter(|(of, _)| *of == group).count();
                        prop_assert!(size(group(n)) + 1 >= size(crowd));
                        prop_assert!(alive.values().any(|(_, since)| now - *since < GRACE));
                    }
                }
                prop_assert_eq!(pending.len(), alive.len());
                prop_assert!(pending.len() <= max);
                for n in 0..6 {
                    let of = alive.values().filter(|(of, _)| *of == group(n)).count();
                    prop_assert!(of == pending.of(&group(n)) && of <= per_group);
                }
            }
        }
    }
}
