//! Tests of what a node still knows after a stop and after a SIGKILL.

use crate::harness::{TestNode, cid, eventually, fails, multihash};
use dhtstore_testkit::kad_peer::KadPeer;
use std::time::Duration;

/// Announces `contents` to `node` with a stock libp2p-kad client.
async fn announce(node: &TestNode, contents: &[&str]) -> KadPeer {
    let peer = KadPeer::client_of(node.peer_id(), node.multiaddr()).await;
    for content in contents {
        assert!(peer.announce(&multihash(content)).await);
    }
    for content in contents {
        eventually("the announcement arrived", Duration::from_secs(10), || {
            node.held(&cid(content)).iter().any(|(provider, _)| *provider == peer.id.to_string())
        });
    }
    peer
}

/// Waits until the records are in the database: a second for the open chunk, and half a second for sled.
fn wait_for_the_log() {
    std::thread::sleep(Duration::from_millis(2_200));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_and_their_addresses_survive_kill_9() {
    let mut node = TestNode::started();
    let peer = announce(&node, &["one", "two"]).await;
    wait_for_the_log();
    node.kill();
    node.start();
    for content in ["one", "two"] {
        let held = node.held(&cid(content));
        assert_eq!(held.len(), 1, "{held:?}");
        assert_eq!(held[0].0, peer.id.to_string());
        assert!(held[0].1.contains(&peer.addr.to_string()), "{held:?}");
    }
    // They are also served over the wire.
    let asker = KadPeer::client_of(node.peer_id(), node.multiaddr()).await;
    assert_eq!(asker.find_providers(&multihash("one")).await, vec![peer.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn prv_6_addresses_count_from_the_newest_announcement_also_after_kill_9() {
    let mut node = TestNode::new().with("RECORDS_ADDRESS_TTL", "8s");
    node.start();
    let peer = announce(&node, &["steady"]).await;
    // The same announcement is repeated until the address ttl of the first has passed.
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(peer.announce(&multihash("steady")).await);
    }
    wait_for_the_log();
    node.kill();
    node.start();
    let held = node.held(&cid("steady"));
    assert!(held.len() == 1 && held[0].1.contains(&peer.addr.to_string()), "{held:?}");
    // The addresses end once the announcements stop, while the record lives on.
    eventually("addresses end", Duration::from_secs(15), || {
        let held = node.held(&cid("steady"));
        assert_eq!(held.len(), 1, "the record itself lives on");
        held[0].1.is_empty()
    });
}

#[test]
fn own_cids_are_kept_once_provide_has_returned() {
    let mut node = TestNode::started();
    for round in 0..5 {
        let new = cid(&format!("own {round}"));
        node.ok(&["provide", &new]);
        node.kill();
        node.start();
        let listed = node.ok(&["provided", "--format", "ndjson"]);
        assert_eq!(listed.lines().count(), round + 1, "{listed}");
    }
    node.ok(&["unprovide", &cid("own 3")]);
    node.kill();
    node.start();
    assert_eq!(node.ok(&["provided", "--format", "ndjson"]).lines().count(), 4);
}

#[test]
fn fifty_kills_lose_nothing_that_was_on_disk() {
    let mut node = TestNode::started();
    for round in 0..50_u64 {
        let added: Vec<String> = (0..20).map(|i| cid(&format!("kill {round} {i}"))).collect();
        let output = node.cli_with_input(&["provide", "--file", "-"], &added.join("\n"));
        assert!(output.status.success(), "{}", crate::harness::text(&output));
        // Each round kills the node at another moment of its background work.
        std::thread::sleep(Duration::from_millis(round * 7 % 40));
        node.kill();
        node.start();
        if round % 10 == 9 {
            let listed = node.ok(&["provided", "--format", "ids"]);
            assert_eq!(listed.lines().count() as u64, (round + 1) * 20);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_routing_table_comes_back_without_the_bootstrap_list() {
    let hub = TestNode::started();
    let mut node = TestNode::new().joining(&hub);
    node.start();
    let others = [TestNode::new().joining(&hub), TestNode::new().joining(&hub)].map(|mut other| {
        other.start();
        other
    });
    let known = |node: &TestNode| {
        let table = node.ok(&["dump", "routing", "--format", "ndjson"]);
        others.iter().chain([&hub]).filter(|other| table.contains(&other.peer_id().to_string())).count()
    };
    let in_table = |node: &TestNode| {
        let table = node.ok(&["closest", "--local", "--format", "ndjson", &cid("anything")]);
        others.iter().chain([&hub]).filter(|other| table.contains(&other.peer_id().to_string())).count()
    };
    eventually("all three are in the table", Duration::from_secs(20), || in_table(&node) == 3);
    assert_eq!(node.stop(), Some(0));
    assert_eq!(known(&node), 3, "saved on shutdown, readable while stopped");
    node.forget_bootstrap();
    node.start();
    eventually("all three are back, verified", Duration::from_secs(20), || in_table(&node) == 3);
}

#[test]
fn sigterm_ends_the_process_with_0_and_frees_the_directory() {
    let mut node = TestNode::started();
    node.ok(&["provide", &cid("kept")]);
    assert_eq!(node.stop(), Some(0), "{}", node.log());
    fails(&node.cli(&["peers"]), 69, &["run"]);
    assert_eq!(node.ok(&["provided", "--format", "ids"]).lines().count(), 1);
}
