//! Tests that each DHT's table follows the rules of its profile. `kad/table` tests the rules themselves.

use super::*;
use crate::kad::{keyspace::Key, scope::AutonomousSystems};
use std::net::Ipv6Addr;

const NOW: Duration = Duration::from_secs(1);

/// Puts every IPv6 address in the same system.
#[derive(Debug)]
struct OneSystem;

impl AutonomousSystems for OneSystem {
    fn number(&self, _: Ipv6Addr) -> Option<u32> {
        Some(64_496)
    }
}

/// Offers peers at these addresses, all in one bucket, and returns which of them the table takes.
fn taken(tables: &Tables, dht: Dht, local: PeerId, ips: [&str; 3]) -> [bool; 3] {
    let near = Key::for_peer(&local);
    let mut far =
        std::iter::repeat_with(PeerId::random).filter(|peer| Key::for_peer(peer).common_prefix_length(&near) == 0);
    ips.map(|ip| {
        let addr: Multiaddr = format!("/{ip}/tcp/4001").parse().unwrap();
        let peer = PeerInfo { id: far.next().unwrap(), addrs: vec![addr] };
        tables.of(dht).admit(&peer, &[], NOW)
    })
}

#[test]
fn rt_6_on_the_public_dht_alone_the_third_of_an_ip_group_is_refused() {
    let ip4 = ["ip4/1.2.0.1", "ip4/1.2.0.2", "ip4/1.2.0.3"];
    // Three /32 allocations. Only the database of systems puts them in one group.
    let ip6 = ["ip6/2a00:1::1", "ip6/2a00:2::1", "ip6/2a00:3::1"];
    for ips in [ip4, ip6] {
        for (profile, dht, third) in [
            (Profile::Amino, Dht::Wan, false),
            (Profile::Amino, Dht::Lan, true),
            (Profile::Private, Dht::Wan, true),
            (Profile::Private, Dht::Lan, true),
        ] {
            let local = PeerId::random();
            let tables = Tables::new(local, profile, &IpGroups::new(Arc::new(OneSystem)));
            assert_eq!(taken(&tables, dht, local, ips), [true, true, third], "{profile:?} {dht:?} {ips:?}");
        }
    }
}
