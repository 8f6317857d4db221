use super::*;
use proptest::prelude::*;

fn addr(text: &str) -> Multiaddr {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Returns whether the scopes Any, Public and Private allow the address.
fn scopes(text: &str) -> (bool, bool, bool) {
    let addr = addr(text);
    (AddressScope::Any.allows(&addr), AddressScope::Public.allows(&addr), AddressScope::Private.allows(&addr))
}

const PUBLIC: (bool, bool, bool) = (true, true, false);
const PRIVATE: (bool, bool, bool) = (true, false, true);
const NEITHER: (bool, bool, bool) = (true, false, false);
const NOWHERE_AT_ALL: (bool, bool, bool) = (false, false, false);

#[test]
fn srv_3_globally_routable_addresses_are_public() {
    for text in [
        "/ip4/1.1.1.1/tcp/4001",
        "/ip4/1.1.1.1/udp/4001/quic-v1",
        "/ip4/172.32.0.1/tcp/1",
        "/ip4/100.128.0.1/tcp/1",
        "/ip4/192.0.1.1/tcp/1",
        "/ip4/198.20.0.1/tcp/1",
        "/ip6/2604:1380:45e3:6e00::1/tcp/4001",
        "/ip6/64:ff9b::101:101/tcp/4001",
        "/dns4/example.org/tcp/443/wss",
        "/dns4/example.org/tcp/443/tls/ws",
        "/ip4/1.1.1.1/tcp/4001/tls/sni/1-1-1-1.k51.libp2p.direct/ws",
        "/dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN",
        "/dns/notlocalhost/tcp/1",
    ] {
        assert_eq!(scopes(text), PUBLIC, "{text}");
    }
}

#[test]
fn srv_3_addresses_of_the_local_network_are_private() {
    for text in [
        "/ip4/10.1.2.3/tcp/4001",
        "/ip4/172.16.0.1/tcp/4001",
        "/ip4/172.31.255.255/udp/4001/quic-v1",
        "/ip4/192.168.1.1/tcp/4001",
        "/ip4/100.64.0.1/tcp/4001",
        "/ip4/169.254.1.1/tcp/4001",
        "/ip6/fd00::1/tcp/4001",
        "/ip6/fe80::1/tcp/4001",
        "/ip6zone/eth0/ip6/fe80::1/tcp/4001",
        "/ip6/::ffff:10.0.0.1/tcp/4001",
        "/dns/printer.local/tcp/80",
        "/ip4/10.1.2.3/tcp/4002/tls/ws",
        "/dns4/NAS.Home.Arpa./tcp/80",
    ] {
        assert_eq!(scopes(text), PRIVATE, "{text}");
    }
}

#[test]
fn srv_3_loopback_and_reserved_addresses_are_neither_public_nor_private() {
    for text in [
        "/ip4/127.0.0.1/tcp/4001",
        "/ip4/127.9.9.9/udp/4001/quic-v1",
        "/ip6/::1/tcp/4001",
        "/ip6/::ffff:127.0.0.1/tcp/4001",
        "/dns/localhost/tcp/4001",
        "/dns/a.localhost/tcp/4001",
        "/ip4/0.1.2.3/tcp/4001",
        "/ip4/192.0.2.1/tcp/4001",
        "/ip4/198.18.0.1/tcp/4001",
        "/ip4/198.51.100.7/tcp/4001",
        "/ip4/203.0.113.7/tcp/4001",
        "/ip4/240.0.0.1/tcp/4001",
        "/ip6/2001:db8::1/tcp/4001",
        "/ip6/4000::1/tcp/4001",
    ] {
        assert_eq!(scopes(text), NEITHER, "{text}");
    }
}

#[test]
fn no_scope_allows_what_nobody_can_dial() {
    for text in [
        "/ip4/0.0.0.0/tcp/4001",
        "/ip6/::/tcp/4001",
        "/ip6/::ffff:0.0.0.0/tcp/4001",
        "/ip4/224.0.0.1/udp/4001/quic-v1",
        "/ip4/255.255.255.255/tcp/1",
        "/ip6/ff02::1/udp/4001/quic-v1",
        "/ip4/1.1.1.1/tcp/0",
        "/ip4/1.1.1.1/udp/0/quic-v1",
        "/ip4/1.1.1.1",
        "/ip4/1.1.1.1/udp/4001",
        "/ip4/1.1.1.1/udp/4001/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN",
        "/tcp/4001",
        "/memory/7",
        "/dns/nothing.invalid/tcp/1",
        "/ip4/1.1.1.1/tcp/4001/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN/p2p-circuit",
        "/dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN/p2p-circuit",
        "/ip4/1.1.1.1/udp/4001/p2p-circuit",
        "/p2p-circuit",
    ] {
        assert_eq!(scopes(text), NOWHERE_AT_ALL, "{text}");
    }
    assert!(!AddressScope::Any.allows(&Multiaddr::empty()));
}

#[test]
fn prv_7_a_circuit_is_handed_out_where_the_address_of_its_relay_is_and_dialled_nowhere() {
    let relay = "QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN";
    let scopes = [AddressScope::Any, AddressScope::Public, AddressScope::Private];
    for (of_relay, expected) in [
        ("/ip4/8.8.8.8/tcp/4001", [true, true, false]),
        ("/ip6/2a01:4f9::1/udp/4001/quic-v1", [true, true, false]),
        ("/dnsaddr/relay.example", [true, true, false]),
        ("/ip4/10.1.2.3/tcp/4001", [true, false, true]),
        ("/ip4/127.0.0.1/tcp/4001", [true, false, false]),
        ("/ip4/8.8.8.8/tcp/0", [false; 3]),
        ("/ip4/0.0.0.0/tcp/4001", [false; 3]),
        ("/ip4/8.8.8.8", [false; 3]),
    ] {
        let circuit = addr(&format!("{of_relay}/p2p/{relay}/p2p-circuit"));
        assert_eq!(scopes.map(|scope| scope.hands_out(&circuit)), expected, "{circuit}");
        assert!(!scopes.iter().any(|scope| scope.allows(&circuit)), "{circuit}");
    }
    for junk in [
        "/ip4/8.8.8.8/tcp/4001/p2p-circuit".to_owned(),
        format!("/p2p/{relay}/p2p-circuit"),
        format!("/ip4/8.8.8.8/tcp/4001/p2p/{relay}/p2p-circuit/p2p/{relay}/p2p-circuit"),
        format!("/ip4/8.8.8.8/tcp/4001/p2p/{relay}/p2p-circuit/ip4/1.1.1.1/tcp/1"),
        "/p2p-circuit".to_owned(),
    ] {
        assert!(!scopes.iter().any(|scope| scope.hands_out(&addr(&junk))), "{junk}");
    }
}

#[test]
fn rt_6_ip4_groups_by_16_bits_and_old_class_a_blocks_by_8() {
    let group = |text| IpGroups::default().of(&addr(text));
    assert_eq!(group("/ip4/1.2.3.4/tcp/1"), group("/ip4/1.2.250.9/udp/7/quic-v1"));
    assert_ne!(group("/ip4/1.2.3.4/tcp/1"), group("/ip4/1.3.3.4/tcp/1"));
    assert_eq!(group("/ip4/17.2.3.4/tcp/1"), group("/ip4/17.200.3.4/tcp/1"));
    assert_eq!(group("/ip6/::ffff:1.2.3.4/tcp/1"), group("/ip4/1.2.3.4/tcp/1"));
    assert_eq!(group("/dns4/example.org/tcp/1"), None);
}

#[test]
fn rt_6_ip6_groups_by_32_bits_and_not_one_group_for_all() {
    let group = |text| IpGroups::default().of(&addr(text));
    assert_eq!(group("/ip6/2604:1380:1::1/tcp/1"), group("/ip6/2604:1380:ffff::2/tcp/2"));
    assert_ne!(group("/ip6/2604:1380::1/tcp/1"), group("/ip6/2604:1381::1/tcp/1"));
}

#[test]
fn the_peer_is_stripped_only_when_it_is_the_peer_itself() {
    let peer: PeerId = "12D3KooWKudojFn6pff7Kah2Mkem3jtFfcntpG9X3QBNiggsYxK2".parse().unwrap();
    let other: PeerId = "QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN".parse().unwrap();
    let plain = addr("/ip4/1.1.1.1/tcp/4001");
    let named = |peer: PeerId| plain.clone().with(Protocol::P2p(peer));
    assert_eq!(strip_peer(plain.clone(), &peer), Some(plain.clone()));
    assert_eq!(strip_peer(named(peer), &peer), Some(plain.clone()));
    assert_eq!(strip_peer(named(other), &peer), None);
    assert_eq!(strip_peer(named(other).with(Protocol::P2p(peer)), &peer), None);
    let circuit = named(other).with(Protocol::P2pCircuit);
    assert_eq!(strip_peer(circuit.clone(), &peer), Some(circuit.clone()));
    assert_eq!(strip_peer(circuit.clone().with(Protocol::P2p(peer)), &peer), Some(circuit.clone()));
    assert_eq!(strip_peer(circuit.with(Protocol::P2p(other)), &peer), None);
    assert_eq!(strip_peer(named(peer).with(Protocol::P2pCircuit), &peer), None, "through itself");
    assert_eq!(strip_peer(Multiaddr::empty().with(Protocol::P2p(peer)), &peer), None);
}

#[test]
fn a_name_that_is_none_is_refused_wherever_it_stands() {
    let peer = PeerId::random();
    let host = |name: &str| Multiaddr::empty().with(Protocol::Dns4(name.to_owned().into())).with(Protocol::Tcp(1));
    let server = |name: &str| addr("/ip4/1.1.1.1/tcp/1/tls").with(Protocol::Sni(name.to_owned().into()));
    for (name, taken) in [
        ("a-b_c.example.", true),
        ("xn--bcher-kva.example", true),
        ("a/p2p/b", false),
        ("a\n/ip4/1.2.3.4", false),
        ("\u{1b}[2J", false),
        ("b\u{fc}cher.example", false),
    ] {
        for addr in [host(name), server(name)] {
            assert_eq!(strip_peer(addr.clone(), &peer).is_some(), taken, "{name:?}");
            assert_eq!(AddressScope::Any.allows(&addr), taken, "{name:?}");
        }
    }
    assert_eq!(strip_peer(Multiaddr::empty().with(Protocol::Unix("/run/x".into())), &peer), None);
}

proptest! {
    #[test]
    fn no_address_is_both_public_and_private_or_either_without_being_dialable(bytes: Vec<u8>, ip: u32, port: u16) {
        let parsed = Multiaddr::try_from(bytes).ok();
        let ip4 = Multiaddr::empty().with(Protocol::Ip4(ip.into())).with(Protocol::Tcp(port));
        for addr in parsed.into_iter().chain([ip4]) {
            let (any, public, private) = (
                AddressScope::Any.allows(&addr),
                AddressScope::Public.allows(&addr),
                AddressScope::Private.allows(&addr),
            );
            prop_assert!(!(public && private));
            prop_assert!(any || !(public || private));
            let _ = IpGroups::default().of(&addr);
        }
    }
}
