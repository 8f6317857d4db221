//! Tests with servers that read only one request of each stream, as litep2p does.

use crate::ours::{self, multihash};
use dhtstore::kad::{Dht, PeerInfo};
use dhtstore_testkit::stub_peer::{self, Single};
use libp2p::identity::Keypair;
use std::sync::{Arc, atomic::Ordering};

async fn start(closes: bool, takes: fn(&[u8]) -> bool) -> (Arc<Single>, PeerInfo) {
    let single = Arc::new(Single::default());
    let serve = stub_peer::single(single.clone(), closes, takes);
    (single, stub_peer::start(Keypair::generate_ed25519(), serve).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn prv_9_a_server_that_reads_one_request_of_each_stream_is_told_everything() {
    for closes in [true, false] {
        let (single, peer) = start(closes, |_| true).await;
        let ours = ours::start().await;
        let mut found_out = 0;
        for round in 0..3 {
            let multihashes: Vec<Vec<u8>> = (round * 20..round * 20 + 20).map(multihash).collect();
            let delivery = ours.node.add_providers(Dht::Wan, &peer, &multihashes).await;
            assert_eq!(delivery.read, (0..20).collect::<Vec<_>>(), "closes: {closes}, round {round}: {delivery:?}");
            assert!(delivery.error.is_none(), "{delivery:?}");
            let held = single.held.lock().unwrap();
            assert!(multihashes.iter().all(|multihash| held.get(multihash) == Some(&ours.node.peer_id())));
            if round == 0 {
                found_out = single.streams.load(Ordering::Relaxed);
            }
        }
        // The node remembers that this server reads one request of each stream, so it does not test that again. Each
        // announcement takes one stream, and its confirmation another. The probe for the table may take one more.
        let streams = single.streams.load(Ordering::Relaxed) - found_out;
        assert!((80..=81).contains(&streams), "{streams}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prv_9_one_announcement_alone_reaches_such_a_server_too() {
    let (single, peer) = start(false, |_| true).await;
    let ours = ours::start().await;
    let delivery = ours.node.add_providers(Dht::Wan, &peer, &[multihash(1)]).await;
    assert_eq!(delivery.confirmed(), 1, "{delivery:?}");
    assert!(single.held.lock().unwrap().contains_key(&multihash(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_such_a_server_does_not_take_is_not_confirmed() {
    let (_, peer) = start(false, |multihash| multihash != crate::ours::multihash(3)).await;
    let ours = ours::start().await;
    let multihashes: Vec<Vec<u8>> = (1..=5).map(multihash).collect();
    for _ in 0..2 {
        let delivery = ours.node.add_providers(Dht::Wan, &peer, &multihashes).await;
        assert_eq!(delivery.read, [0, 1, 3, 4], "{delivery:?}");
        assert!(delivery.error.is_some());
    }
    let (single, deaf) = start(false, |_| false).await;
    let delivery = ours.node.add_providers(Dht::Wan, &deaf, &(0..200).map(multihash).collect::<Vec<_>>()).await;
    assert_eq!(delivery.confirmed(), 0);
    let streams = single.streams.load(Ordering::Relaxed);
    assert!(streams < 100, "{streams} streams to a server that accepts nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_a_row_are_answered_by_such_a_server() {
    let (_, peer) = start(true, |_| true).await;
    let ours = ours::start().await;
    for n in 0..10 {
        ours.node.find_node(Dht::Wan, &peer, b"target").await.unwrap();
        ours.node.get_providers(Dht::Wan, &peer, &multihash(n)).await.unwrap();
    }
    let asking = (0..20).map(|_| ours.node.find_node(Dht::Wan, &peer, b"target"));
    assert!(futures::future::join_all(asking).await.iter().all(Result::is_ok));
}
