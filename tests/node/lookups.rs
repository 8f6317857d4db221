//! Tests of our look-ups through networks of `libp2p-kad` nodes.

use crate::{
    ours::{self, config, eventually, multihash},
    theirs::{self, network},
};
use dhtstore::kad::{Dht, PeerInfo, keyspace::Key};
use libp2p::PeerId;
use std::time::Duration;
use tokio::time::Instant;

fn closest_of<'a>(peers: impl Iterator<Item = &'a PeerInfo>, target: &[u8], n: usize) -> Vec<PeerId> {
    let target = Key::for_value(target);
    let mut ids: Vec<PeerId> = peers.map(|peer| peer.id).collect();
    ids.sort_by_key(|id| Key::for_peer(id).distance(&target));
    ids.truncate(n);
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn lkp_1_prv_9_we_join_a_network_of_libp2p_kad_find_the_closest_announce_and_are_found() {
    let servers = network(24).await;
    let ours = ours::joining(&[servers[0].info.clone()]).await;
    eventually("we know half of them", || ours.table_len() >= 12).await;
    theirs::settled(&servers).await;

    let target = multihash(1);
    let expected = closest_of(servers.iter().map(|s| &s.info), &target, 20);
    // On a busy machine a server may be too slow to answer and is rightly left out, so the look-up is repeated.
    let mut found = ours.node.closest_peers(Dht::Wan, &target, None).await;
    for _ in 0..3 {
        if found.peers.iter().map(|peer| peer.id).eq(expected.iter().copied()) {
            break;
        }
        found = ours.node.closest_peers(Dht::Wan, &target, None).await;
    }
    let ids: Vec<PeerId> = found.peers.iter().map(|peer| peer.id).collect();
    assert_eq!(ids, expected);

    let multihashes: Vec<Vec<u8>> = (1..=300).map(multihash).collect();
    for peer in &found.peers[..3] {
        let delivery = ours.node.add_providers(Dht::Wan, peer, &multihashes).await;
        assert_eq!(delivery.confirmed(), 300, "{delivery:?}");
        assert!(delivery.error.is_none());
    }

    let other = ours::joining(&[servers[23].info.clone()]).await;
    eventually("the other joined", || other.table_len() >= 12).await;
    let providers = other.node.find_providers(&target, 20, None).await;
    assert_eq!(providers.len(), 1);
    assert_eq!(providers[0].id, ours.node.peer_id());
    assert!(ours.info().addrs.iter().all(|a| providers[0].addrs.contains(a)), "{providers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_tenth_of_the_peers_mute_a_look_up_ends_within_two_seconds() {
    let servers = network(27).await;
    let mut mutes = Vec::new();
    for _ in 0..3 {
        let mute = theirs::mute().await;
        for server in &servers {
            server.learns(&mute).await;
        }
        mutes.push(mute);
    }
    let ours = ours::joining(&[servers[0].info.clone()]).await;
    eventually("we know half of them", || ours.table_len() >= 13).await;
    theirs::settled(&servers).await;
    for n in 0..5 {
        let target = multihash(n);
        let begun = Instant::now();
        let found = ours.node.closest_peers(Dht::Wan, &target, None).await;
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        let ids: Vec<PeerId> = found.peers.iter().map(|peer| peer.id).collect();
        // An answer names 20 peers, including mute ones, so the farthest three may never have been named.
        let expected = closest_of(servers.iter().map(|s| &s.info), &target, 17);
        assert_eq!(ids.get(..17), Some(&expected[..]));
    }
    for mute in &mutes {
        assert!(ours.node.table(Dht::Wan).get(&mute.id).is_none(), "a mute peer was admitted (RT-8)");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_4_a_peer_that_went_away_leaves_the_table_and_one_that_stays_does_not() {
    let stays = ours::start().await;
    let goes = ours::start().await;
    let ours = ours::joining(&[stays.info(), goes.info()]).await;
    let lens = || Dht::ALL.map(|dht| ours.node.table(dht).len());
    eventually("both are in the tables", || lens() == [2, 2]).await;
    let gone = goes.info();
    goes.node.shutdown().await;
    for dht in Dht::ALL {
        assert!(ours.node.find_node(dht, &gone, b"target").await.is_err());
    }
    eventually("one has left", || lens() == [1, 1]).await;
    assert!(Dht::ALL.iter().all(|&dht| ours.node.table(dht).get(&stays.node.peer_id()).is_some()));
    assert_eq!(ours.counter("routing peers removed"), 2, "from both tables");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_saved_table_is_used_without_any_bootstrap_list() {
    let servers = network(8).await;
    let ours = ours::joining(&[servers[0].info.clone()]).await;
    eventually("we know all", || ours.table_len() == 8).await;
    ours.node.save_routing().await.unwrap();
    let ours = ours.restart(config().node_settings()).await;
    eventually("we know all again", || ours.table_len() == 8).await;
    // An empty table does not replace the saved one.
    let lonely = ours.restart(config().node_settings()).await;
    lonely.node.save_routing().await.unwrap();
    assert_eq!(lonely.store.routing.load(Dht::Wan).len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_dhts_have_a_table_of_their_own() {
    let one = ours::start().await;
    let two = ours::joining(&[one.info()]).await;
    for dht in Dht::ALL {
        eventually("they know each other", || two.node.table(dht).len() == 1 && one.node.table(dht).len() == 1).await;
        assert_eq!(two.node.closest_peers(dht, b"target", None).await.peers.len(), 1);
    }
    assert!(two.node.refresh_routing().await.contains("lan: 1 peers"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_refused_costs_only_itself() {
    let one = ours::start().await;
    let two = ours::start().await;
    let batch = vec![multihash(1), b"no multihash".to_vec(), multihash(2), multihash(3)];
    let delivery = two.node.add_providers(Dht::Wan, &one.info(), &batch).await;
    assert_eq!(delivery.read, [0, 2, 3], "{delivery:?}");
    assert!(delivery.error.is_some());
    for n in 1..=3 {
        assert_eq!(one.store.records.providers(&multihash(n), 10, 0).await.len(), 1);
    }
}
