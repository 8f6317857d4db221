//! Tests of the bootstrap list: joining through its peers, and reporting peers that fail.

use crate::ours::{self, Ours, addr, config, eventually, multihash};
use dhtstore::{
    config::Config,
    kad::{Dht, PeerInfo},
};
use dhtstore_testkit::port;
use libp2p::{Multiaddr, PeerId, identity::Keypair};
use std::time::Duration;

/// A configuration that refreshes often enough for a test.
fn refreshing() -> Config {
    let mut config = config();
    config.listen = vec![addr("/ip4/127.0.0.1/tcp/0")];
    config.jobs.routing_refresh.interval = Duration::from_secs(1);
    config
}

fn full(peer: &PeerInfo) -> Multiaddr {
    peer.addrs[0].clone().with_p2p(peer.id).unwrap()
}

/// Starts two nodes that know each other.
async fn pair() -> (Ours, Ours) {
    let first = ours::start_with(refreshing()).await;
    let second = ours::start_with(Config { bootstrap: vec![full(&first.info())], ..refreshing() }).await;
    eventually("they know each other", || !second.node.table(Dht::Wan).is_empty()).await;
    eventually("they know each other", || !first.node.table(Dht::Wan).is_empty()).await;
    (first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_added_to_the_list_joins_two_networks_while_known_peers_live() {
    let ((a1, a2), (b1, b2)) = (pair().await, pair().await);
    b2.node.find_node(Dht::Wan, &b1.info(), b"x").await.unwrap();
    a2.node.save_routing().await.unwrap();
    let a2 = a2.restart(Config { bootstrap: vec![full(&b1.info())], ..refreshing() }.node_settings()).await;
    let knows = |node: &Ours, other: &Ours| node.node.table(Dht::Wan).get(&other.node.peer_id()).is_some();
    eventually("the saved peer is in the table", || knows(&a2, &a1)).await;
    eventually("the bootstrap peer is in the table", || knows(&a2, &b1)).await;
    eventually("and the peer that it named", || knows(&a2, &b2)).await;
    // The others find each other by their own look-ups.
    for _ in 0..20 {
        a1.node.refresh_routing().await;
        b2.node.refresh_routing().await;
        if knows(&a1, &b2) && knows(&b2, &a1) {
            break;
        }
    }
    let delivery = b2.node.add_providers(Dht::Wan, &b1.info(), &[multihash(1)]).await;
    assert_eq!(delivery.confirmed(), 1, "{delivery:?}");
    let found = a1.node.find_providers(&multihash(1), 1, None).await;
    assert_eq!(found.iter().map(|peer| peer.id).collect::<Vec<_>>(), [b2.node.peer_id()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_halves_that_forgot_each_other_are_joined_by_a_refresh() {
    let (a1, _a2) = pair().await;
    let port = port::free();
    let key = Keypair::generate_ed25519();
    let other: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{}", key.public().to_peer_id()).parse().unwrap();
    // At first no node is there, as after a split that lasted longer than peers are remembered.
    let joined = a1.restart(Config { bootstrap: vec![other], ..refreshing() }.node_settings()).await;
    eventually("its failure is known", || joined.node.bootstrap()[0].answers == Some(false)).await;
    let config = Config { listen: vec![addr(&format!("/ip4/127.0.0.1/tcp/{port}"))], ..refreshing() };
    let there = ours::start_as(config, key, dhtstore::clock::SystemClock::new()).await;
    for _ in 0..30 {
        joined.node.refresh_routing().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        if joined.node.table(Dht::Wan).get(&there.node.peer_id()).is_some() {
            eventually("it answers", || joined.node.bootstrap()[0].answers == Some(true)).await;
            return;
        }
    }
    panic!("not joined: {:?}", joined.node.bootstrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_of_the_list_that_fail_are_named_with_the_reason() {
    let other = ours::start_with(refreshing()).await;
    let client = ours::start_with(Config { mode: dhtstore::config::Mode::Client, ..refreshing() }).await;
    let free = port::free();
    let at = |place: String| addr(&format!("{place}/p2p/{}", PeerId::random()));
    let own = Keypair::generate_ed25519();
    let list = vec![
        full(&other.info()),
        at(format!("/ip4/127.0.0.1/tcp/{free}")),
        at(other.info().addrs[0].to_string()),
        at("/dns/nowhere.invalid./tcp/1".to_owned()),
        client.node.listeners()[0].clone().with_p2p(client.node.peer_id()).unwrap(),
        addr(&format!("/ip4/127.0.0.1/tcp/1/p2p/{}", own.public().to_peer_id())),
    ];
    let node =
        ours::start_as(Config { bootstrap: list, ..refreshing() }, own, dhtstore::clock::SystemClock::new()).await;
    eventually("all were asked", || node.node.bootstrap().iter().all(|peer| peer.answers.is_some())).await;
    let status = node.node.bootstrap();
    assert!(status[0].answers == Some(true) && status[0].error.is_none(), "{status:?}");
    let failing = |part: &str| status.iter().any(|peer| peer.error.as_ref().is_some_and(|error| error.contains(part)));
    for part in ["refused", "nowhere.invalid", "not a DHT server", &format!(" is {}", other.node.peer_id())] {
        assert!(failing(part), "{part}: {status:?}");
    }
    assert_eq!(status.len(), 5, "the node itself is left out: {status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_saved_peers_and_a_list_nobody_is_dialled() {
    let (first, second) = pair().await;
    second.node.save_routing().await.unwrap();
    let mut quiet = refreshing();
    quiet.routing.saved_peers = false;
    let second = second.restart(quiet.node_settings()).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    second.node.refresh_routing().await;
    assert!(second.node.peers().await.is_empty() && second.node.table(Dht::Wan).is_empty());
    let second = second.restart(refreshing().node_settings()).await;
    let id = first.node.peer_id();
    eventually("it is dialled by default", || second.node.table(Dht::Wan).get(&id).is_some()).await;
}
