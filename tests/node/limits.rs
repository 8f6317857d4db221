//! Tests of listeners, private networks, connection limits and shutdown.

use crate::{
    ours::{self, addr, config, eventually, multihash},
    theirs::Over,
};
use dhtstore::{
    clock::SystemClock,
    config::Config,
    kad::Dht,
    node::{Node, NodeError},
};
use dhtstore_testkit::raw::Raw;
use libp2p::identity::Keypair;
use std::time::Duration;
use tokio::time::Instant;

fn with_swarm_key(dir: &std::path::Path, name: &str, byte: &str) -> Config {
    let path = dir.join(name);
    std::fs::write(&path, format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", byte.repeat(32))).unwrap();
    let mut config = config();
    config.swarm_key = Some(path);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swarm_key_lets_in_those_who_have_it_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let one = ours::start_with(with_swarm_key(dir.path(), "a", "11")).await;
    assert!(one.node.listeners().iter().all(|a| !a.to_string().contains("quic")), "QUIC is off");
    let same = ours::start_with(with_swarm_key(dir.path(), "b", "11")).await;
    let other = ours::start_with(with_swarm_key(dir.path(), "c", "22")).await;
    let none = ours::start().await;
    let target = one.address(false).with_p2p(one.node.peer_id()).unwrap();
    assert_eq!(same.node.connect(target.clone()).await.unwrap(), one.node.peer_id());
    assert_eq!(same.node.add_providers(Dht::Wan, &one.info(), &[multihash(1)]).await.confirmed(), 1);
    assert!(other.node.connect(target.clone()).await.is_err());
    assert!(none.node.connect(target).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_an_error_that_names_it() {
    let one = ours::start().await;
    let mut second = config();
    second.listen = one.node.listeners();
    for listen in one.node.listeners() {
        second.listen = vec![listen.clone()];
        let error =
            Node::start(second.node_settings(), Keypair::generate_ed25519(), one.store.stores(), SystemClock::new())
                .await;
        let Err(NodeError::Listen(dhtstore::transport::listen::ListenError::Bind { addr, reason })) = error else {
            panic!("{listen} was bound twice")
        };
        assert_eq!(addr, listen);
        assert!(reason.contains("is taken"), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wildcard_default_listens_on_both_transports() {
    let mut config = config();
    config.listen = vec![
        addr("/ip4/0.0.0.0/tcp/0"),
        addr("/ip4/0.0.0.0/udp/0/quic-v1"),
        // Only a warning on a machine without IPv6.
        addr("/ip6/::/tcp/0"),
        addr("/ip6/::/udp/0/quic-v1"),
    ];
    let ours = ours::start_with(config).await;
    let listeners: Vec<String> = ours.node.listeners().iter().map(ToString::to_string).collect();
    assert!(listeners.iter().any(|a| a.starts_with("/ip4/127.0.0.1/tcp/")), "{listeners:?}");
    assert!(listeners.iter().any(|a| a.starts_with("/ip4/127.0.0.1/udp/")), "{listeners:?}");
    assert!(!ours.node.addresses(Dht::Wan).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ip_address_gets_so_many_connections() {
    let mut config = config();
    config.connections.max_per_ip = 3;
    let ours = ours::start_with(config).await;
    let mut raws = Vec::new();
    for _ in 0..3 {
        raws.push(Raw::connect(ours.address(false), Over::Noise).await);
        raws.last().unwrap().stream().await;
    }
    let fourth = Raw::try_connect(ours.address(false), Over::Noise).await;
    let served = match &fourth {
        Some(raw) => raw.try_stream("/ipfs/kad/1.0.0").await.is_some(),
        None => false,
    };
    assert!(!served);
    assert_eq!(ours.counter("connections denied, per IP"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn can_dial_tells_who_is_there_and_who_is_not() {
    let one = ours::start().await;
    let two = ours::start().await;
    assert!(two.node.can_dial(&one.info()).await.is_ok());
    let mut wrong = one.info();
    wrong.id = libp2p::PeerId::random();
    assert!(two.node.can_dial(&wrong).await.is_err());
    let mut nowhere = wrong.clone();
    nowhere.addrs = vec![addr("/ip4/127.0.0.1/tcp/1")];
    assert!(two.node.can_dial(&nowhere).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_connections_and_does_not_take_long() {
    let one = ours::start().await;
    let two = ours::joining(&[one.info()]).await;
    eventually("they know each other", || two.table_len() == 1).await;
    let begun = Instant::now();
    one.node.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    eventually("the other notices", || futures::executor::block_on(two.node.peers()).is_empty()).await;
    assert!(one.node.find_node(Dht::Wan, &two.info(), b"x").await.is_err());
}
