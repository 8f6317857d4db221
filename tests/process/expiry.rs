//! Tests of expiry by the clock of a real process. A clock that is set back must not keep a record for ever.

use crate::harness::{TestNode, cid, eventually, multihash};
use dhtstore::{
    clock::{Clock, ManualClock, SystemClock, UnixTime},
    kad::{Dht, PeerInfo},
    store::{Settings, Store, data_dir},
};
use dhtstore_testkit::kad_peer::KadPeer;
use libp2p::PeerId;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn prv_5_a_record_is_served_for_its_ttl_and_never_after_then_collected() {
    let mut node = TestNode::new()
        .with("RECORDS_TTL", "3s")
        .with("REPROVIDE_INTERVAL", "2s")
        .with("JOBS_GC_CRON", "* * * * * *")
        .with("JOBS_GC_INTERVAL", "1s");
    node.start();
    let peer = KadPeer::client_of(node.peer_id(), node.multiaddr()).await;
    let before = Instant::now();
    assert!(peer.announce(&multihash("short")).await);
    eventually("it is held", Duration::from_secs(2), || node.held(&cid("short")).len() == 1);
    eventually("it is gone", Duration::from_secs(6), || node.held(&cid("short")).is_empty());
    assert!(before.elapsed() > Duration::from_secs(2), "gone after {:?} already", before.elapsed());
    eventually("and collected", Duration::from_secs(10), || {
        node.rows(&["dump", "providers", "--expired", "--format", "ndjson"]).is_empty()
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn prv_5_announcing_again_keeps_a_record_alive_beyond_its_ttl() {
    let mut node = TestNode::new().with("RECORDS_TTL", "3s").with("REPROVIDE_INTERVAL", "2s");
    node.start();
    let peer = KadPeer::client_of(node.peer_id(), node.multiaddr()).await;
    for _ in 0..6 {
        assert!(peer.announce(&multihash("steady")).await);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(node.held(&cid("steady")).len(), 1);
    }
}

/// Fills a data directory like a node whose clock is `ahead`, then starts a process with the true time.
fn node_with_records_from(ahead: Duration) -> TestNode {
    let mut node = TestNode::new().with("RECORDS_TTL", "3s").with("REPROVIDE_INTERVAL", "2s");
    node.set("RECORDS_CLOCK_GRACE", "2s");
    node.set("JOBS_GC_CRON", "* * * * * *");
    node.set("JOBS_GC_INTERVAL", "1s");
    let now = SystemClock::new().wall();
    let clock = ManualClock::at(UnixTime(now.0 + u32::try_from(ahead.as_secs()).unwrap()));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let lock = data_dir::Lock::acquire(&node.dir()).unwrap();
        let settings = Settings { ttl: Duration::from_secs(3), ..Settings::default() };
        let store = Store::open(&lock, settings, clock).unwrap();
        let provider = PeerInfo { id: PeerId::random(), addrs: vec!["/ip4/192.0.2.1/tcp/4001".parse().unwrap()] };
        store.records.add(&multihash("from the future"), &provider, Dht::Wan).await.unwrap();
        store.close().await.unwrap();
    });
    node.start();
    node
}

#[test]
fn a_record_from_before_the_clock_was_set_back_a_day_ends_all_the_same() {
    let node = node_with_records_from(Duration::from_secs(24 * 3600));
    eventually("it is collected", Duration::from_secs(25), || {
        node.rows(&["dump", "providers", "--expired", "--format", "ndjson"]).is_empty()
    });
}
