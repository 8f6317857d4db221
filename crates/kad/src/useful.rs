//! Selects and orders the addresses of a peer to hand out when not all of them fit.

use super::{
    message::MAX_ADDRESS_BYTES,
    scope::{Reach, reach, relay_address},
};
use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};

/// Bytes that an address takes in a `Peer` submessage in addition to its own: a tag, and a length below 16,384.
const FRAMING_BYTES: usize = 3;

/// Maximum number of addresses kept per peer.
pub const MAX_ADDRESSES: usize = 32;

/// Returns the most useful of `addrs`, at most [`MAX_ADDRESSES`] and as many as fit into [`MAX_ADDRESS_BYTES`].
///
/// Direct addresses come first: public before private before loopback, and one of each kind (transport, IP family and
/// reach) before the second of any kind. Circuits come last, because they use a third party: one of each relay before
/// the second of any relay. If not all fit, one circuit of each relay has priority over the second address of a kind,
/// so that a peer behind a NAT stays reachable. The same list gives the same result; equal ones keep their order.
pub fn most_useful(addrs: Vec<Multiaddr>) -> Vec<Multiaddr> {
    within(MAX_ADDRESS_BYTES, addrs)
}

/// Returns the most useful of `addrs`, at most [`MAX_ADDRESSES`], regardless of their bytes.
pub fn bounded(addrs: Vec<Multiaddr>) -> Vec<Multiaddr> {
    within(usize::MAX, addrs)
}

/// Returns whether `addrs` fit into [`MAX_ADDRESS_BYTES`] and circuits come last. The check is quick and inexact: a
/// direct address that ends with the same bytes as a circuit counts as one.
pub fn is_arranged(addrs: &[Multiaddr]) -> bool {
    /// `/p2p-circuit` in binary: code 290.
    const CIRCUIT: [u8; 2] = [0xa2, 0x02];
    let bytes: usize = addrs.iter().map(|addr| addr.len() + FRAMING_BYTES).sum();
    bytes <= MAX_ADDRESS_BYTES && addrs.is_sorted_by_key(|addr| AsRef::<[u8]>::as_ref(addr).ends_with(&CIRCUIT))
}

/// Returns the most useful of `addrs`, at most [`MAX_ADDRESSES`] and as many as fit into `room` bytes of a `Peer`
/// submessage.
pub(super) fn within(mut room: usize, addrs: Vec<Multiaddr>) -> Vec<Multiaddr> {
    if addrs.len() <= 1 {
        return addrs;
    }
    let mut ranked: Vec<(Rank, Multiaddr)> = addrs.into_iter().map(|addr| (Rank::of(&addr), addr)).collect();
    // A stable sort: equal ones stay in the order in which the peer named them.
    ranked.sort_by_key(|(rank, _)| (rank.reach, rank.transport));
    let mut seen: Vec<(Kind, u8)> = Vec::new();
    for (rank, addr) in &mut ranked {
        let kind = Kind::of(addr, rank.reach);
        match seen.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, times)) => {
                rank.repeat = *times;
                *times = times.saturating_add(1);
            }
            None => seen.push((kind, 1)),
        }
    }
    ranked.sort_by_key(|(rank, _)| (rank.repeat, rank.relayed));
    let mut places = MAX_ADDRESSES;
    ranked.retain(|(_, addr)| {
        let size = addr.len() + FRAMING_BYTES;
        let fits = size <= room && places > 0;
        if fits {
            room -= size;
            places -= 1;
        }
        fits
    });
    ranked.sort_by_key(|(rank, _)| rank.relayed);
    ranked.into_iter().map(|(_, addr)| addr).collect()
}

/// How useful an address is; lower values are better.
struct Rank {
    relayed: bool,
    reach: u8,
    transport: u8,
    /// Number of better addresses of the same kind.
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

/// Ranks a transport by how many peers speak it: all DHT servers speak TCP and QUIC, and browsers speak the others.
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

/// The kind of an address. Addresses of one kind are useful to the same peers.
#[derive(PartialEq, Eq)]
enum Kind {
    /// The reach, and the protocols in order without their values: `["ip4", "udp", "quic-v1"]`.
    Direct(u8, Vec<&'static str>),
    /// A circuit through this relay.
    Through(PeerId),
}

impl Kind {
    fn of(addr: &Multiaddr, reach: u8) -> Self {
        let relay = addr.iter().find_map(|part| match part {
            Protocol::P2p(relay) => Some(relay),
            _ => None,
        });
        match relay {
            Some(relay) => Self::Through(relay),
            None => Self::Direct(reach, addr.iter().map(|part| part.tag()).collect()),
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

    /// The addresses that Kubo 0.43 announces on a dual-stack host with all of its transports, including AutoTLS.
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
    fn of_a_server_that_has_more_than_fits_the_first_stays_first_and_each_transport_has_an_address() {
        use crate::message::{self, EncodedPeer, MAX_SERVER_ADDRESS_BYTES, Message};
        let (peer, answered) = (PeerId::random(), "/ip4/10.1.2.3/tcp/4001".parse().unwrap());
        let addrs: Vec<Multiaddr> = [answered].into_iter().chain(kubo()).collect();
        let encoded = EncodedPeer::of_server(&peer, &addrs);
        assert!(encoded.as_bytes().len() <= MAX_SERVER_ADDRESS_BYTES + 40);
        let frame = message::add_provider(b"key", &encoded);
        let message = Message::decode(&frame[2..]).unwrap();
        let told = message.provider_peer_infos(1, 100).remove(0).addrs;
        assert_eq!(told[0], addrs[0]);
        assert!((0..5).all(|rank| told.iter().any(|addr| transport(addr) == rank)), "{told:?}");
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
        assert!(kept.len() <= MAX_ADDRESSES, "{}", kept.len());
    }

    #[test]
    fn short_addresses_without_number_leave_a_place_for_a_circuit_and_for_each_reach() {
        let short = |net: u8| (0..60).map(move |n| format!("/ip4/{net}.8.{n}.8/tcp/4001").parse().unwrap());
        let last = circuit(&PeerId::random(), 0x0909_0909, 4001);
        for choose in [most_useful, bounded] {
            let kept = choose(short(8).chain(short(10)).chain([last.clone()]).collect());
            assert_eq!(kept.len(), MAX_ADDRESSES);
            assert_eq!(kept.last(), Some(&last));
            assert_eq!(kept[..2], all(&["/ip4/8.8.0.8/tcp/4001", "/ip4/10.8.0.8/tcp/4001"]));
        }
    }

    #[test]
    fn two_lists_behind_each_other_are_arranged_only_if_the_circuits_come_last_and_all_fit() {
        let (direct, relayed) = (all(&["/ip4/8.8.8.8/tcp/4001"]), [circuit(&PeerId::random(), 0x0909_0909, 4001)]);
        assert!(is_arranged(&[]) && is_arranged(&[&direct[..], &relayed].concat()));
        assert!(!is_arranged(&[&relayed[..], &direct].concat()));
        assert!(is_arranged(&kubo()) && !is_arranged(&[kubo(), kubo()].concat()));
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
            prop_assert!(kept.len() <= MAX_ADDRESSES && is_arranged(&kept));
            prop_assert_eq!(most_useful(kept.clone()), kept, "choosing again changes nothing");
        }
    }
}
