//! Tests of clauses of `docs/conformance.md` that need real connections, one test each.

use crate::{
    ours::{self, Ahead, addr, config, eventually, multihash},
    theirs::{self, Over, Theirs},
};
use dhtstore::{
    clock::SystemClock,
    config::{Config, Profile},
    kad::{
        Dht,
        message::{self, EncodedPeer, Message, MessageType},
    },
    node::Node,
    transport::identity::Identity,
};
use dhtstore_testkit::port;
use dhtstore_testkit::raw::{End, Raw, RawStream};
use libp2p::{Multiaddr, PeerId, identity::Keypair};
use std::time::Duration;

const WAN: &str = "/ipfs/kad/1.0.0";
const LAN: &str = "/ipfs/lan/kad/1.0.0";
const SOON: Duration = Duration::from_secs(3);

/// Returns one key of each kind that nodes have (NET-4).
fn keys_of_every_kind() -> [Keypair; 4] {
    let rsa = Identity::from_base64(include_str!("../fixtures/throwaway-rsa.base64")).unwrap();
    [Keypair::generate_ed25519(), Keypair::generate_secp256k1(), Keypair::generate_ecdsa(), rsa.keypair]
}

/// Listens on TCP only: a dial to a closed UDP port is not refused but times out.
fn tcp() -> Config {
    Config { listen: vec![addr("/ip4/127.0.0.1/tcp/0")], ..config() }
}

/// The rules of the public DHT, on loopback and without bootstrap peers.
fn amino() -> Config {
    Config { listen: config().listen, bootstrap: Vec::new(), ..Config::defaults(Profile::Amino) }
}

/// Sends a request and waits for its answer.
pub async fn ask(stream: &mut RawStream, kind: MessageType, key: &[u8]) -> Vec<u8> {
    stream.send(&message::request(kind, key)).await;
    tokio::time::timeout(SOON, stream.receive()).await.unwrap().unwrap()
}

/// Returns the closer peers of an answer, with the addresses as sent.
pub fn closer(body: &[u8]) -> Vec<(PeerId, Vec<Multiaddr>)> {
    named(Message::decode(body).unwrap().closer_peers())
}

fn providers(body: &[u8]) -> Vec<(PeerId, Vec<Multiaddr>)> {
    named(Message::decode(body).unwrap().provider_peers())
}

fn named<'a>(peers: impl Iterator<Item = message::RawPeer<'a>>) -> Vec<(PeerId, Vec<Multiaddr>)> {
    let addrs = |peer: &message::RawPeer<'_>| peer.addrs().map(|a| Multiaddr::try_from(a.to_vec()).unwrap()).collect();
    peers.map(|peer| (PeerId::from_bytes(peer.id).unwrap(), addrs(&peer))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn mode_1_mode_2_net_1_both_protocols_are_advertised_and_accepted_and_pings_answered() {
    let ours = ours::start().await;
    let (said, _round_trip) = theirs::observe(ours.address(false)).await;
    let speaks = |name: &str| said.protocols.iter().any(|protocol| protocol.as_ref() == name);
    for protocol in [WAN, LAN, "/ipfs/ping/1.0.0", "/ipfs/id/1.0.0"] {
        assert!(speaks(protocol), "{protocol} of {:?}", said.protocols);
    }
    assert!(!said.listen_addrs.is_empty());

    let raw = Raw::connect(ours.address(false), Over::Noise).await;
    for protocol in [WAN, LAN] {
        let mut stream = raw.try_stream(protocol).await.unwrap();
        ask(&mut stream, MessageType::FindNode, b"target").await;
    }
    for other in ["/ipfs/kad/2.0.0", "/ipfs/other/kad/1.0.0", "/kad"] {
        let opened = tokio::time::timeout(Duration::from_millis(200), raw.try_stream(other)).await;
        assert!(!matches!(opened, Ok(Some(_))), "{other}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn net_1_we_ping_whom_we_are_connected_to() {
    let (one, two) = (ours::start().await, ours::start().await);
    one.node.connect(two.address(false)).await.unwrap();
    for ours in [&one, &two] {
        eventually("a ping was answered", || {
            futures::executor::block_on(ours.node.peers()).iter().any(|peer| peer.ping_ms.is_some())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn net_2_net_3_noise_alone_tls_alone_and_quic_work_in_both_directions() {
    for over in Over::ALL {
        let ours = ours::start().await;
        let inbound = Raw::connect(ours.address(over == Over::Quic), over).await;
        ask(&mut inbound.stream().await, MessageType::FindNode, b"target").await;
        let theirs = Theirs::server(over).await;
        ours.node.find_node(Dht::Wan, &theirs.info, b"target").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn net_4_every_kind_of_identity_works_on_both_sides_of_every_transport() {
    let mut others = keys_of_every_kind();
    // There is only one RSA key, and a node must not meet its own key.
    others.rotate_left(1);
    for (key, other) in keys_of_every_kind().into_iter().zip(others) {
        let kind = key.key_type();
        let ours = ours::start_as(config(), key, SystemClock::new()).await;
        for over in Over::ALL {
            // First we dial a libp2p-kad node with this key. Then another such node dials us, announces and asks.
            let theirs = Theirs::server_as(over, other.clone()).await;
            let asker = ours::start().await;
            asker.node.find_node(Dht::Wan, &theirs.info, b"target").await.unwrap();
            theirs.learns(&ours.info()).await;
            theirs.announces(multihash(1)).await;
            assert_eq!(theirs.finds_providers(multihash(1)).await, [theirs.info.id], "{kind:?} {over:?}");
            assert_eq!(crate::ours::holds(&ours, &multihash(1)).await, 1, "{kind:?} {over:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_8_who_does_not_answer_the_probe_is_not_admitted() {
    let ours = ours::start().await;
    let refusing = theirs::refusing().await;
    let full = |info: &dhtstore::kad::PeerInfo| info.addrs[0].clone().with_p2p(info.id).unwrap();
    ours.node.connect(full(&refusing)).await.unwrap();
    eventually("the probe failed", || ours.counter("routing probes failed") >= 1).await;
    assert!(ours.node.table(Dht::Wan).is_empty());

    let server = Theirs::server(Over::Noise).await;
    ours.node.connect(full(&server.info)).await.unwrap();
    eventually("the server was admitted", || ours.node.table(Dht::Wan).get(&server.info.id).is_some()).await;
    assert_eq!(ours.counter("routing probes answered"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_a_peer_can_be_dialled_is_told_by_a_dial_and_not_by_a_connection_that_is_open() {
    let ours = ours::start().await;
    // It does not listen, like a peer behind a NAT.
    let behind_nat = Raw::connect(ours.address(false), Over::Noise).await;
    let server = Theirs::server(Over::Noise).await;
    server.dials(ours.address(false)).await;
    eventually("both are connected", || futures::executor::block_on(ours.node.peers()).len() == 2).await;
    let free_port = port::free();
    let said = format!("/ip4/127.0.0.1/tcp/{free_port}").parse().unwrap();
    let behind_nat = dhtstore::kad::PeerInfo { id: behind_nat.id, addrs: vec![said] };
    assert!(ours.node.can_dial(&behind_nat).await.is_err());
    ours.node.can_dial(&server.info).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_7_the_unheard_are_asked_and_the_silent_removed() {
    let (stays, goes) = (ours::start_with(tcp()).await, ours::start_with(tcp()).await);
    let clock = Ahead::new();
    let ours = ours::start_as(config(), Keypair::generate_ed25519(), clock.clone()).await;
    for peer in [&stays, &goes] {
        ours.node.connect(peer.address(false)).await.unwrap();
    }
    let lens = || Dht::ALL.map(|dht| ours.node.table(dht).len());
    eventually("both are in the tables", || lens() == [2, 2]).await;
    // Both answered within the last five minutes, so neither is checked.
    clock.pass(4 * 60);
    let done = ours.node.refresh_routing().await;
    assert_eq!(done, "wan: 2 peers, 0 checked, 0 removed; lan: 2 peers, 0 checked, 0 removed");
    goes.node.shutdown().await;
    clock.pass(6 * 60);
    let done = ours.node.refresh_routing().await;
    // The one that stays is not checked if it has answered another request in the meantime.
    assert_eq!((done.matches(": 1 peers").count(), done.matches(" 1 removed").count()), (2, 2), "{done}");
    assert!(Dht::ALL.iter().all(|&dht| ours.node.table(dht).get(&stays.node.peer_id()).is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_5_a_server_that_starts_again_while_it_is_checked_stays() {
    let key = Keypair::generate_ed25519();
    let peer = ours::start_as(tcp(), key.clone(), SystemClock::new()).await;
    let clock = Ahead::new();
    let ours = ours::start_as(config(), Keypair::generate_ed25519(), clock.clone()).await;
    ours.node.connect(peer.address(false)).await.unwrap();
    let known = || Dht::ALL.iter().all(|&dht| ours.node.table(dht).get(&peer.node.peer_id()).is_some());
    eventually("it is in the tables", known).await;
    let (listen, store) = (peer.node.listeners(), peer.store.clone());
    peer.node.shutdown().await;
    eventually("the connection is gone", || futures::executor::block_on(ours.node.peers()).is_empty()).await;
    clock.pass(6 * 60);
    let back = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        Node::start(Config { listen, ..config() }.node_settings(), key, store.stores(), SystemClock::new())
            .await
            .unwrap()
    };
    let (done, _back) = tokio::join!(ours.node.refresh_routing(), back);
    assert!(known(), "{done}");
    assert_eq!(ours.counter("routing peers removed"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn srv_2_a_peer_that_stopped_answering_is_not_handed_out() {
    let (stays, goes) = (ours::start_with(tcp()).await, ours::start_with(tcp()).await);
    let ours = ours::joining(&[stays.info(), goes.info()]).await;
    eventually("both are in the table", || ours.table_len() == 2).await;
    let raw = Raw::connect(ours.address(false), Over::Noise).await;
    let mut stream = raw.stream().await;
    assert_eq!(closer(&ask(&mut stream, MessageType::FindNode, b"target").await).len(), 2);
    goes.node.shutdown().await;
    assert!(ours.node.find_node(Dht::Wan, &goes.info(), b"target").await.is_err());
    eventually("it has left the table", || ours.table_len() == 1).await;
    let left = closer(&ask(&mut stream, MessageType::FindNode, b"target").await);
    assert_eq!(left.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [stays.node.peer_id()]);
    assert!(!left[0].1.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn srv_5_a_client_with_private_addresses_is_named_on_the_public_dht_and_so_are_both_ends() {
    let ours = ours::start_with(amino()).await;
    let client = Theirs::client(Over::Noise).await;
    client.dials(ours.address(false)).await;
    eventually("identify is done", || {
        futures::executor::block_on(ours.node.peers()).iter().any(|peer| peer.agent.is_some())
    })
    .await;
    let raw = Raw::connect(ours.address(false), Over::Noise).await;
    let mut stream = raw.stream().await;
    let found = closer(&ask(&mut stream, MessageType::FindNode, &client.info.id.to_bytes()).await);
    assert_eq!(found, [(client.info.id, client.info.addrs.clone())]);
    // The node itself, without addresses: on loopback it has no public ones.
    let found = closer(&ask(&mut stream, MessageType::FindNode, &ours.node.peer_id().to_bytes()).await);
    assert_eq!(found, [(ours.node.peer_id(), Vec::new())]);
    // The requester, once its addresses are known.
    let own = [addr("/ip4/8.8.8.8/tcp/4001")];
    stream.send(&message::add_provider(&multihash(1), &EncodedPeer::new(&raw.id, &own))).await;
    let found = closer(&ask(&mut stream, MessageType::FindNode, &raw.id.to_bytes()).await);
    assert_eq!(found, [(raw.id, own.to_vec())]);
    // SRV-3: for any other target neither is named.
    assert_eq!(closer(&ask(&mut stream, MessageType::FindNode, b"target").await), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn lan_1_on_the_public_profile_who_comes_from_elsewhere_enters_no_lan_table() {
    let ours = ours::start_with(amino()).await;
    // A server of both DHTs; loopback is neither public nor of the local network.
    let theirs = ours::start().await;
    ours.node.connect(theirs.address(false)).await.unwrap();
    eventually("identify is done", || {
        futures::executor::block_on(ours.node.peers()).iter().any(|peer| peer.wan && peer.lan)
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(ours.counter("routing probes answered") + ours.counter("routing probes failed"), 0);
    assert!(Dht::ALL.iter().all(|&dht| ours.node.table(dht).is_empty()));
    // On a private network a loopback address counts like any other.
    eventually("they have us in their table", || theirs.node.table(Dht::Lan).len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn srv_3_prv_7_each_dht_is_told_its_own_addresses_of_a_provider_and_one_without_any_is_told_too() {
    let ours = ours::start_with(amino()).await;
    let raw = Raw::connect(ours.address(false), Over::Noise).await;
    let (public, private) = (addr("/ip4/8.8.8.8/tcp/4001"), addr("/ip4/10.1.2.3/tcp/4001"));
    let all = [addr("/ip4/127.0.0.1/tcp/4001"), private.clone(), public.clone()];
    let (mut wan, mut lan) = (raw.try_stream(WAN).await.unwrap(), raw.try_stream(LAN).await.unwrap());

    // Announced in the WAN DHT only: the private address is not kept.
    wan.send(&message::add_provider(&multihash(1), &EncodedPeer::new(&raw.id, &all))).await;
    let told = providers(&ask(&mut wan, MessageType::GetProviders, &multihash(1)).await);
    assert_eq!(told, [(raw.id, vec![public.clone()])]);
    let told = providers(&ask(&mut lan, MessageType::GetProviders, &multihash(1)).await);
    assert_eq!(told, [(raw.id, Vec::new())], "a provider without addresses still counts");

    // Announced in both: each DHT hands out its own addresses.
    lan.send(&message::add_provider(&multihash(1), &EncodedPeer::new(&raw.id, &all))).await;
    let told = providers(&ask(&mut lan, MessageType::GetProviders, &multihash(1)).await);
    assert_eq!(told, [(raw.id, vec![private])]);
    let told = providers(&ask(&mut wan, MessageType::GetProviders, &multihash(1)).await);
    assert_eq!(told, [(raw.id, vec![public])]);

    // With only loopback addresses none is kept, but the peer still counts as a provider.
    let other = Raw::connect(ours.address(false), Over::Noise).await;
    let mut stream = other.stream().await;
    stream.send(&message::add_provider(&multihash(2), &EncodedPeer::new(&other.id, &all[..1]))).await;
    let told = providers(&ask(&mut stream, MessageType::GetProviders, &multihash(2)).await);
    assert_eq!(told, [(other.id, Vec::new())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn prv_7_a_circuit_through_a_public_relay_is_kept_and_told_last_also_after_a_restart() {
    let ours = ours::start_with(amino()).await;
    let raw = Raw::connect(ours.address(false), Over::Noise).await;
    let relay = PeerId::random();
    let circuit = |ip: &str| addr(&format!("/ip4/{ip}/tcp/4001/p2p/{relay}/p2p-circuit"));
    let (public, direct) = (circuit("8.8.8.8"), addr("/ip4/9.9.9.9/tcp/4001"));
    let own_suffix = public.clone().with_p2p(raw.id).unwrap();
    let all = [own_suffix, circuit("10.1.2.3"), direct.clone(), addr("/ip4/10.1.2.3/tcp/4001")];
    let mut wan = raw.try_stream(WAN).await.unwrap();
    wan.send(&message::add_provider(&multihash(1), &EncodedPeer::new(&raw.id, &all))).await;
    wan.send(&message::add_provider(&multihash(2), &EncodedPeer::new(&raw.id, &all[..2]))).await;
    let told = providers(&ask(&mut wan, MessageType::GetProviders, &multihash(2)).await);
    assert_eq!(told, [(raw.id, vec![public.clone()])], "a peer behind a NAT has its circuit");

    wan.send(&message::add_provider(&multihash(1), &EncodedPeer::new(&raw.id, &all))).await;
    let told = providers(&ask(&mut wan, MessageType::GetProviders, &multihash(1)).await);
    assert_eq!(told, [(raw.id, vec![direct.clone(), public.clone()])]);
    let id = raw.id;
    let ours = ours.restart(amino().node_settings()).await;
    let asker = Raw::connect(ours.address(false), Over::Noise).await;
    let mut wan = asker.try_stream(WAN).await.unwrap();
    let told = providers(&ask(&mut wan, MessageType::GetProviders, &multihash(1)).await);
    assert_eq!(told, [(id, vec![direct, public])]);
}

#[tokio::test(flavor = "multi_thread")]
async fn msg_2_what_was_asked_before_nonsense_is_answered_and_then_the_stream_ends() {
    let ours = ours::start().await;
    for over in Over::ALL {
        let raw = Raw::connect(ours.address(over == Over::Quic), over).await;
        for nonsense in [&[0xff; 11][..], &[2, 0xff, 0xff], &message::request(MessageType::GetProviders, b"abc")] {
            let mut stream = raw.stream().await;
            stream.send(&[&message::request(MessageType::FindNode, b"target"), nonsense].concat()).await;
            let answer = stream.receive().await.unwrap();
            assert_eq!(Message::decode(&answer).unwrap().kind, MessageType::FindNode, "{over:?}");
            assert_eq!(stream.end_within(SOON).await, over.refused(), "{over:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prv_3_prv_4_an_announcement_is_never_answered_whether_taken_or_refused() {
    let ours = ours::start().await;
    let raw = Raw::connect(ours.address(false), Over::Noise).await;
    let own = EncodedPeer::new(&raw.id, &[addr("/ip4/127.0.0.1/tcp/4001")]);
    let mut taken = raw.stream().await;
    taken.send(&message::add_provider(&multihash(1), &own)).await;
    assert_eq!(taken.end_within(Duration::from_millis(300)).await, End::Open);
    assert_eq!(crate::ours::holds(&ours, &multihash(1)).await, 1);
    let mut refused = raw.stream().await;
    refused.send(&message::add_provider(b"no multihash", &own)).await;
    assert_eq!(refused.end_within(SOON).await, End::Reset);
}
