//! Tests of the table refresh (RT-7), and of the time-out of probes (RT-8).

use crate::ours::{self, addr, config, eventually};
use dhtstore::{
    clock::SystemClock,
    config::Config,
    kad::{Dht, PeerInfo, keyspace::Key},
};
use dhtstore_testkit::stub_peer;
use libp2p::{PeerId, identity::Keypair};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Listens on TCP only.
fn tcp() -> Config {
    Config { listen: vec![addr("/ip4/127.0.0.1/tcp/0")], ..config() }
}

fn shared_with(near: &PeerId, target: &[u8]) -> u16 {
    Key::for_value(target).common_prefix_length(&Key::for_peer(near))
}

/// Returns the key of a peer that shares `cpl` bits with `near`.
fn keypair_in(near: &PeerId, cpl: u16) -> Keypair {
    std::iter::repeat_with(Keypair::generate_ed25519)
        .find(|key| shared_with(near, &key.public().to_peer_id().to_bytes()) == cpl)
        .unwrap()
}

/// Starts a server that knows no peers.
async fn lonely(keypair: Keypair) -> PeerInfo {
    stub_peer::start(keypair, stub_peer::answering(Duration::ZERO, |_| Vec::new())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_7_a_refresh_fills_each_bucket_that_has_room_and_ends_with_a_look_up_of_oneself() {
    let key = Keypair::generate_ed25519();
    let own = key.public().to_peer_id();
    let mut hidden = Vec::new();
    for cpl in 0..3 {
        hidden.push(lonely(keypair_in(&own, cpl)).await);
    }
    // Deeper than the last non-empty bucket: named only to a peer that asks for our own id.
    let neighbour = lonely(keypair_in(&own, 6)).await;

    // A server in bucket 2. Once `later` is set, it knows one peer of each bucket, and names it only in answers for
    // that bucket.
    let later = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let closer = {
        let (later, asked, hidden, neighbour) = (later.clone(), asked.clone(), hidden.clone(), neighbour.clone());
        move |target: &[u8]| {
            if !later.load(Ordering::Relaxed) {
                return Vec::new();
            }
            asked.lock().unwrap().push(target.to_vec());
            match target == own.to_bytes() {
                true => vec![neighbour.clone()],
                false => hidden.get(usize::from(shared_with(&own, target))).cloned().into_iter().collect(),
            }
        }
    };
    let knowing = keypair_in(&own, 2);
    let knowing = stub_peer::start(knowing, stub_peer::answering(Duration::ZERO, closer)).await;
    let full = knowing.addrs[0].clone().with_p2p(knowing.id).unwrap();
    let ours = ours::start_as(Config { bootstrap: vec![full], ..tcp() }, key, SystemClock::new()).await;
    eventually("it has joined", || ours.table_len() == 1).await;
    // Waits for the end of the look-up of its own key.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ours.table_len(), 1);

    later.store(true, Ordering::Relaxed);
    ours.node.refresh_routing().await;
    let table = ours.node.table(Dht::Wan);
    for (cpl, peer) in hidden.iter().enumerate() {
        assert!(table.get(&peer.id).is_some(), "bucket {cpl} has room and was not filled");
    }
    assert!(table.get(&neighbour.id).is_some(), "the peer closest to us was not found");
    let asked = asked.lock().unwrap();
    let (last, before) = asked.split_last().unwrap();
    assert_eq!(*last, own.to_bytes(), "the look-up of its own key comes last");
    let mut buckets: Vec<u16> = before.iter().map(|target| shared_with(&own, target)).collect();
    buckets.sort_unstable();
    assert_eq!(buckets, [0, 1, 2], "one target in each bucket up to the last non-empty one");
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_8_a_probe_that_is_answered_after_three_seconds_counts_and_one_after_eleven_does_not() {
    let ours = ours::start_with(tcp()).await;
    let after = async |seconds| {
        let serve = stub_peer::answering(Duration::from_secs(seconds), |_| Vec::new());
        let peer = stub_peer::start(Keypair::generate_ed25519(), serve).await;
        ours.node.connect(peer.addrs[0].clone().with_p2p(peer.id).unwrap()).await.unwrap();
        peer
    };
    let (slow, too_slow) = (after(3).await, after(11).await);
    let admitted = |peer: &PeerInfo| ours.node.table(Dht::Wan).get(&peer.id).is_some();
    eventually("the slow one is admitted", || admitted(&slow)).await;
    eventually("the other has failed", || ours.counter("routing probes failed") == 1).await;
    // Its answer arrives in this time.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!admitted(&too_slow) && admitted(&slow));
}
