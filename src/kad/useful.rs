//! Which of a peer's addresses to hand out where not all of them fit, and in which order.

use super::{
    message::MAX_ADDRESS_BYTES,
    scope::{Reach, reach, relay_address},
};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

/// Bytes that an address takes in a `Peer` submessage beside its own: a tag, and a length below 16,384.
const FRAMING_BYTES: usize = 3;

/// Returns the most useful of `addrs`, as many as fit into [`MAX_ADDRESS_BYTES`].
///
/// First the direct addresses, one of each kind (transport and IP family) before the second of any, public before private
/// before loopback; then those through relays, which cost a third party, one of each relay before the second of any. A
/// circuit of each relay is kept before the second address of a kind is, so that a peer behind a NAT stays reachable.
/// The same list gives the same result; the order of equals is that of `addrs`.
pub fn most_useful(addrs: Vec<Multiaddr>) -> Vec<Multiaddr> {
    if addrs.len() <= 1 {
        return addrs;
    }
    let mut ranked: Vec<(Rank, Multiaddr)> = addrs.into_iter().map(|addr| (Rank::of(&addr), addr)).collect();
    // Stable: equals stay in the order in which the peer named them.
    ranked.sort_by_key(|(rank, _)| (rank.reach, rank.transport));
    let mut seen: Vec<(Kind, u8)> = Vec::new();
    for (rank, addr) in &mut ranked {
        let kind = Kind::of(addr);
        match seen.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, times)) => {
                rank.repeat = *times;
                *times = times.saturating_add(1);
            }
            None => seen.push((kind, 1)),
        }
    }
    ranked.sort_by_key(|(rank, _)| (rank.repeat, rank.relayed));
    let mut room = MAX_ADDRESS_BYTES;
    ranked.retain(|(_, addr)| {
        let size = addr.len() + FRAMING_BYTES;
        let fits = size <= room;
        room -= if fits { size } else { 0 };
        fits
    });
    ranked.sort_by_key(|(rank, _)| rank.relayed);
    ranked.into_iter().map(|(_, addr)| addr).collect()
}

/// How useful an address is: less is better.
struct Rank {
    relayed: bool,
    reach: u8,
    transport: u8,
    /// How many better ones there are of its kind.
    repeat: u8,
}

impl Rank {
    fn of(addr: &Multiaddr) -> Self {
        let relay = relay_address(addr);
        let reach = match reach(relay.as_ref().unwrap_or(addr)) {
            Some(Reach::Public) => 0,
            Some(Reach::Private) => 1,
            Some(Reach::Loopback) => 2,
            Some(Reach::Reserved) | None => 3,
        };
        Self { relayed: relay.is_some(), reach, transport: transport(addr), repeat: 0 }
    }
}

/// How many peers speak a transport: all of the DHT's servers TCP and QUIC, browsers the others.
fn transport(addr: &Multiaddr) -> u8 {
    let mut rank = 4;
    for part in addr.iter() {
        rank = match part {
            Protocol::Tcp(_) => 0,
            Protocol::QuicV1 => 1,
            Protocol::Ws(_) | Protocol::Wss(_) => 2,
            Protocol::WebRTCDirect => 3,
            Protocol::WebTransport => 4,
            Protocol::P2pCircuit => return rank,
            _ => rank,
        };
    }
    rank
}

/// Addresses of one kind help the same peers.
#[derive(PartialEq, Eq)]
enum Kind {
    /// Protocols in order, without their values: `["ip4", "udp", "quic-v1"]`.
    Direct(Vec<&'static str>),
    Through(PeerId),
}

impl Kind {
    fn of(addr: &Multiaddr) -> Self {
        let relay = addr.iter().find_map(|part| match part {
            Protocol::P2p(relay) => Some(relay),
            _ => None,
        });
        match relay {
            Some(relay) => Self::Through(relay),
            None => Self::Direct(addr.iter().map(|part| part.tag()).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn circuit(relay: &PeerId, ip: u32, port: u16) -> Multiaddr {
        format!("/ip4/{}/tcp/{port}/p2p/{relay}/p2p-circuit", std::net::Ipv4Addr::from(ip)).parse().unwrap()
    }

    /// What Kubo 0.43 announces on a dual-stack host with all of its transports, AutoTLS among them.
    fn kubo() -> Vec<Multiaddr> {
        let hash = "uEiDikp5KVUgkLta1EjUN-IKbHk-dUBg8VzKgf5nXxLK46w";
        let name = "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8.libp2p.direct";
        let mut addrs = Vec::new();
        for (ip, host) in
            [("/ip4/95.216.1.2", "/dns4/95-216-1-2"), ("/ip6/2a01:4f9:c010:abcd::1", "/dns6/2a01-4f9-c010-abcd--1")]
        {
            addrs.push(format!("{ip}/tcp/4001"));
            addrs.push(format!("{ip}/udp/4001/quic-v1"));
            addrs.push(format!("{ip}/udp/4001/quic-v1/webtransport/certhash/{hash}/certhash/{hash}"));
            addrs.push(format!("{ip}/udp/4001/webrtc-direct/certhash/{hash}"));
            addrs.push(format!("{host}.{name}/tcp/4001/tls/ws"));
        }
        addrs.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn all_that_a_dual_stack_kubo_announces_is_handed_out_with_a_circuit() {
        let bytes: usize = kubo().iter().map(|addr| addr.len() + 2).sum();
        assert!((512..=600).contains(&bytes), "{bytes}");
        let addrs: Vec<_> = kubo().into_iter().chain([circuit(&PeerId::random(), 0x0808_0808, 4001)]).collect();
        let kept = most_useful(addrs.clone());
        assert_eq!(kept.len(), addrs.len());
        assert_eq!(kept.last(), addrs.last(), "the circuit comes last");
    }

    #[test]
    fn one_of_each_kind_comes_before_the_second_of_any_and_public_before_private() {
        let addrs = all(&[
            "/ip4/192.168.1.2/tcp/4001",
            "/ip4/10.0.0.2/tcp/4001",
            "/ip4/8.8.8.8/tcp/4001",
            "/ip4/8.8.8.8/udp/4001/quic-v1",
        ]);
        let expected = all(&[
            "/ip4/8.8.8.8/tcp/4001",
            "/ip4/8.8.8.8/udp/4001/quic-v1",
            "/ip4/192.168.1.2/tcp/4001",
            "/ip4/10.0.0.2/tcp/4001",
        ]);
        assert_eq!(most_useful(addrs), expected);
    }

    #[test]
    fn one_circuit_of_each_relay_is_left_however_many_other_addresses_there_are() {
        let relays = [PeerId::random(), PeerId::random(), PeerId::random()];
        let many = (0..100).map(|n| format!("/ip4/8.8.{n}.8/tcp/4001").parse().unwrap());
        let circuits = (1..40).flat_map(|n| relays.iter().map(move |relay| circuit(relay, 0x0909_0900 + n, 4001)));
        let kept = most_useful(many.chain(circuits).collect());
        for relay in relays {
            assert!(kept.iter().any(|addr| addr.iter().any(|part| part == Protocol::P2p(relay))), "{kept:?}");
        }
        assert_eq!(kept[0].to_string(), "/ip4/8.8.0.8/tcp/4001");
    }

    proptest! {
        #[test]
        fn it_is_a_subset_that_fits_in_which_circuits_come_last(
            direct in proptest::collection::vec((any::<u32>(), any::<u16>()), 0..60),
            relayed in proptest::collection::vec((any::<u32>(), any::<u16>(), 0..3usize), 0..30),
        ) {
            let relays = [PeerId::random(), PeerId::random(), PeerId::random()];
            let direct = direct.iter().map(|&(ip, port)| {
                format!("/ip4/{}/tcp/{port}", std::net::Ipv4Addr::from(ip)).parse().unwrap()
            });
            let circuits = relayed.iter().map(|&(ip, port, relay)| circuit(&relays[relay], ip, port));
            let all: Vec<Multiaddr> = direct.chain(circuits).collect();
            let kept = most_useful(all.clone());
            prop_assert!(kept.iter().all(|addr| all.contains(addr)) && kept.is_empty() == all.is_empty());
            prop_assert!(kept.iter().map(|addr| addr.len() + 2).sum::<usize>() <= MAX_ADDRESS_BYTES);
            prop_assert!(kept.is_sorted_by_key(|addr| relay_address(addr).is_some()));
            prop_assert_eq!(most_useful(kept.clone()), kept, "choosing again changes nothing");
        }
    }
}
