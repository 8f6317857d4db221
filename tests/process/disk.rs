//! A real node on a file system that is full.

use crate::{
    harness::{TestNode, cid, eventually, multihash},
    kad_peer::KadPeer,
    small_disk::{fill, free, small_disk},
};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_a_node_answers_says_what_is_wrong_and_goes_on_when_there_is_space() {
    let name = "disk::on_a_full_disk_a_node_answers_says_what_is_wrong_and_goes_on_when_there_is_space";
    let Some(disk) = small_disk(name, 24) else { return };
    let mut node = TestNode::new().with("STORE_RESERVE", "2MiB");
    node.start();
    let notes = || node.rows(&["stat"])[0]["store"]["notes"].to_string();
    let peer = KadPeer::client_of(node.peer_id(), node.multiaddr()).await;
    assert!(peer.announce(&multihash("before")).await);
    let limit = Duration::from_secs(20);
    eventually("the first is held", limit, || node.held(&cid("before")).len() == 1);
    // Commands of the command line want some for themselves.
    fill(&disk, 1 << 20);
    eventually("stat says it", limit, || notes().contains("announcements are refused, what is stored is served"));
    peer.announce(&multihash("meanwhile")).await;
    let refused = || node.rows(&["stat"])[0]["store"]["counters"]["refused_read_only"].as_u64().unwrap_or(0);
    eventually("it is refused", limit, || refused() > 0);
    // FIND_NODE (the bootstrap of a newcomer) and GET_PROVIDERS are answered.
    let asker = KadPeer::client_of(node.peer_id(), node.multiaddr()).await;
    assert_eq!(asker.find_providers(&multihash("before")).await, vec![peer.id]);
    assert!(node.held(&cid("meanwhile")).is_empty());
    free(&disk);
    eventually("stat is quiet", limit, || notes() == "[]");
    assert!(peer.announce(&multihash("after")).await);
    eventually("announcements are taken again", limit, || node.held(&cid("after")).len() == 1);
    assert_eq!(node.stop(), Some(0));
}
