//! Tests of `dhtstore stat` of a running and of a stopped node.

use crate::harness::{TestNode, eventually, fails, fingerprint, multihash};
use dhtstore_testkit::kad_peer::KadPeer;
use serde_json::Value;
use std::time::Duration;

fn limit<'s>(stat: &'s Value, name: &str) -> &'s Value {
    let limits = stat["store"]["limits"].as_array().unwrap();
    limits.iter().find(|limit| limit["limit"] == name).unwrap_or_else(|| panic!("no {name} in {limits:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn stat_tells_what_records_take_and_what_limits_them_running_and_stopped() {
    let mut node = TestNode::new().with("RECORDS_MAX", "20000000").with("STORE_MAX_DISK", "1073741824");
    node.start();
    let peer = KadPeer::client_of(node.peer_id(), node.multiaddr()).await;
    for i in 0..20 {
        assert!(peer.announce(&multihash(&format!("record {i}"))).await);
    }
    let stat = || node.rows(&["stat", "--format", "json"]).remove(0);
    eventually("all are in the log", Duration::from_secs(10), || stat()["store"]["log_entries"] == 20);
    let running = stat();
    let takes = &running["store"]["per_record"];
    assert_eq!(takes["log_copies"], 1.0, "{takes}");
    for bytes in ["disk_bytes", "index_bytes", "memory_bytes"] {
        assert!(takes[bytes].as_f64().unwrap() > 0.0, "{bytes} in {takes}");
    }
    assert!(running["store"]["oldest_age_s"].as_u64().unwrap() < 60, "{running}");
    let records = limit(&running, "records.max");
    assert_eq!(
        (&records["max"], &records["now"], &records["unit"]),
        (&20_000_000.into(), &20.into(), &"records".into())
    );
    assert_eq!(limit(&running, "store.max_disk")["max"], 1 << 30);
    assert!(limit(&running, "memory")["max"].as_u64().unwrap() > limit(&running, "memory")["now"].as_u64().unwrap());
    let text = node.ok(&["stat", "--format", "table"]);
    for words in ["Per record", "1.0 of each record", "records.max = 20,000,000: 20 now", "store.max_disk = 1.00 GiB"] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    fails(&node.cli(&["stat", "--stopped"]), 75, &["is running"]);

    assert_eq!(node.stop(), Some(0));
    fails(&node.cli(&["stat"]), 69, &[]);
    let before = fingerprint(&node.dir());
    let stopped = node.rows(&["stat", "--stopped", "--format", "json"]).remove(0);
    assert_eq!(fingerprint(&node.dir()), before);
    for figure in ["records", "keys", "peers", "log_entries", "oldest", "newest"] {
        assert_eq!(stopped["store"][figure], running["store"][figure], "{figure}");
    }
    assert_eq!(limit(&stopped, "records.max")["now"], 20);
    assert_eq!(stopped["store"]["per_record"]["memory_bytes"], Value::Null);
    let text = node.ok(&["stat", "--stopped", "--format", "table"]);
    assert!(text.contains("records.max = 20,000,000") && text.contains("Oldest"), "{text}");
}
