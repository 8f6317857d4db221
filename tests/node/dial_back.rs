//! RT-4: a peer that dials us is dialled back before its claimed addresses are believed.

use crate::{
    ours::{self, Ahead, Ours, addr, config, eventually},
    theirs::{Over, Theirs},
};
use dhtstore::kad::{Dht, PeerInfo};
use dhtstore_testkit::port;
use libp2p::{Multiaddr, PeerId, identity::Keypair};
use std::time::Duration;

/// Returns an address on which no process listens.
fn nobody() -> Multiaddr {
    let port = port::free();
    addr(&format!("/ip4/127.0.0.1/tcp/{port}"))
}

fn is_connected(ours: &Ours, peer: PeerId) -> bool {
    futures::executor::block_on(ours.node.peers()).iter().any(|known| known.peer == peer.to_string())
}

fn entry(ours: &Ours, peer: PeerId) -> Option<Vec<Multiaddr>> {
    ours.node.table(Dht::Wan).get(&peer).map(|entry| entry.peer.addrs.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_4_a_peer_that_claims_addresses_where_nobody_answers_is_not_admitted_while_connected() {
    let ours = ours::start().await;
    let nowhere = nobody();
    let liar = Theirs::claiming(vec![nowhere.clone()]).await;
    liar.dials(ours.address(false)).await;
    eventually("it was dialled back", || ours.counter("routing probes failed") == 1).await;
    assert!(is_connected(&ours, liar.info.id) && ours.node.table(Dht::Wan).is_empty());
    // It answers over the connection that it made, which does not admit it.
    let claimed = PeerInfo { id: liar.info.id, addrs: vec![nowhere] };
    ours.node.find_node(Dht::Wan, &claimed, b"target").await.unwrap();
    assert!(is_connected(&ours, liar.info.id) && ours.node.table(Dht::Wan).is_empty());
    assert_eq!(ours.counter("routing probes failed"), 1, "it is not dialled for each answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_4_a_peer_that_claims_the_address_of_another_is_not_admitted_while_connected() {
    let (ours, other) = (ours::start().await, Theirs::server(Over::Noise).await);
    let liar = Theirs::claiming(other.info.addrs.clone()).await;
    liar.dials(ours.address(false)).await;
    eventually("it was dialled back", || ours.counter("routing probes failed") == 1).await;
    assert!(is_connected(&ours, liar.info.id) && ours.node.table(Dht::Wan).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_4_of_a_peer_that_dialled_us_the_address_that_answered_comes_first() {
    let ours = ours::start().await;
    let server = Theirs::server(Over::Noise).await;
    for _ in 0..3 {
        server.claims(nobody()).await;
    }
    server.dials(ours.address(false)).await;
    eventually("it was admitted", || entry(&ours, server.info.id).is_some()).await;
    assert_eq!(entry(&ours, server.info.id).unwrap()[0], server.info.addrs[0]);
    assert_eq!(ours.counter("routing probes answered"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_4_a_peer_that_can_no_longer_be_dialled_is_removed_at_its_check_though_it_is_connected() {
    let clock = Ahead::new();
    let ours = ours::start_as(config(), Keypair::generate_ed25519(), clock.clone()).await;
    let server = Theirs::server(Over::Noise).await;
    let id = server.info.id;
    server.dials(ours.address(false)).await;
    eventually("it was admitted", || entry(&ours, id).is_some()).await;
    server.hides_from(ours.node.peer_id()).await;
    eventually("it left", || !is_connected(&ours, id)).await;
    server.dials(ours.address(false)).await;
    eventually("it is back", || is_connected(&ours, id)).await;
    // It asks us, and answers us, over the connection that it made.
    server.learns(&ours.info()).await;
    server.finds_closest(b"target".to_vec()).await;
    ours.node.find_node(Dht::Wan, &server.info, b"target").await.unwrap();
    assert!(entry(&ours, id).is_some(), "a check removes it, not its claims");
    clock.pass(6 * 60);
    let done = ours.node.refresh_routing().await;
    assert!(done.contains("wan: 0 peers, 1 checked, 1 removed"), "{done}");
    assert!(is_connected(&ours, id));
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_4_a_dial_back_leaves_one_connection_when_the_other_is_idle() {
    for over in [Over::Noise, Over::Quic] {
        one_connection_is_left(over).await;
    }
}

async fn one_connection_is_left(over: Over) {
    let mut config = config();
    config.connections.idle = Duration::from_secs(1);
    let ours = ours::start_with(config).await;
    let server = Theirs::server(over).await;
    server.dials(ours.address(over == Over::Quic)).await;
    eventually("it was admitted", || entry(&ours, server.info.id).is_some()).await;
    assert_eq!(server.connections().await, 2, "the connection that it made, and the one that proved its address");
    for _ in 0..50 {
        // Requests keep the connection that they use.
        ours.node.find_node(Dht::Wan, &server.info, b"target").await.unwrap();
        if server.connections().await == 1 {
            return assert_eq!(ours.counter("routing probes answered"), 1);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("still two connections over {over:?}");
}
