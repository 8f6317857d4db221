//! Tests of `dhtstore dump` of a running and of a stopped node.

use crate::harness::{TestNode, cid, fails, fingerprint, multihash, text};
use dhtstore_testkit::kad_peer::KadPeer;
use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::Duration,
};

/// Returns a node with `count` records of another peer, and an own CID.
pub async fn node_with_records(count: usize) -> TestNode {
    let node = TestNode::started();
    let peer = KadPeer::client_of(node.peer_id(), node.multiaddr()).await;
    for i in 0..count {
        assert!(peer.announce(&multihash(&format!("record {i}"))).await);
    }
    node.ok(&["provide", &cid("own")]);
    crate::harness::eventually("all have arrived", Duration::from_secs(10), || {
        node.rows(&["dump", "providers", "--count"])[0]["rows"] == count
    });
    node
}

/// Returns rows without the field that changes with time.
fn rows(node: &TestNode, args: &[&str]) -> Vec<serde_json::Value> {
    let mut rows = node.rows(args);
    for row in &mut rows {
        row.as_object_mut().unwrap().remove("expires_in_s");
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn running_and_stopped_agree_and_stopped_leaves_every_byte_as_it_was() {
    let mut node = node_with_records(20).await;
    for table in ["providers", "provided", "peers"] {
        let running = rows(&node, &["dump", table, "--format", "ndjson"]);
        assert!(!running.is_empty(), "{table}");
    }
    let running = ["providers", "provided", "peers"].map(|table| rows(&node, &["dump", table, "--format", "ndjson"]));
    assert_eq!(node.stop(), Some(0));
    let before = fingerprint(&node.dir());
    let stopped = ["providers", "provided", "peers"].map(|table| rows(&node, &["dump", table, "--format", "ndjson"]));
    assert_eq!(running, stopped);
    assert_eq!(fingerprint(&node.dir()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_a_dump_has_every_record_and_changes_nothing() {
    let mut node = node_with_records(20).await;
    // After this time, accepted records are on disk.
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    node.kill();
    let before = fingerprint(&node.dir());
    let output = node.cli(&["dump", "providers", "--format", "ndjson"]);
    assert!(output.status.success(), "{}", text(&output));
    // A header, the rows, the end.
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 22, "{}", text(&output));
    assert_eq!(fingerprint(&node.dir()), before);
    let all = node.ok(&["dump", "--format", "ndjson"]);
    for table in ["providers", "provided", "peers", "meta"] {
        assert!(all.contains(&format!("\"table\":\"{table}\"")), "no {table} in {all}");
    }
    assert_eq!(fingerprint(&node.dir()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_choose_rows() {
    let node = node_with_records(5).await;
    let count = |args: &[&str]| node.rows(&[&["dump", "providers", "--format", "ndjson"], args].concat()).len();
    let provider = node.rows(&["dump", "providers", "--limit", "1", "--format", "ndjson"])[0]["provider"].clone();
    assert_eq!(count(&["--cid", &cid("record 3")]), 1);
    assert_eq!(count(&["--cid", &cid("nobody")]), 0);
    assert_eq!(count(&["--peer", provider.as_str().unwrap()]), 5);
    assert_eq!(count(&["--peer", &node.peer_id().to_string()]), 0);
    assert_eq!(count(&["--limit", "2"]), 2);
    assert_eq!(count(&["--since", "1h"]), 5);
    assert_eq!(count(&["--until", "1h"]), 0);
    assert_eq!(count(&["--since", "2020-01-01T00:00:00Z", "--until", "2020-01-02T00:00:00Z"]), 0);
    let csv = node.ok(&["dump", "providers", "--format", "csv"]);
    assert_eq!(csv.lines().count(), 6, "a header and five rows: {csv}");
    assert!(csv.lines().next().unwrap().contains("multihash"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_after_the_first_row_is_no_error() {
    let mut node = node_with_records(200).await;
    for stopped in [false, true] {
        if stopped {
            node.stop();
        }
        let mut child = node
            .command(&["dump", "providers", "--format", "ndjson"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        // Reads one line, then closes the pipe, as `head -1` does.
        BufReader::with_capacity(64, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with('{'), "{line}");
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    }
}

#[test]
fn a_directory_without_a_database_is_66_and_stays_empty() {
    let node = TestNode::new();
    std::fs::create_dir(node.dir()).unwrap();
    fails(&node.cli(&["dump"]), 66, &[node.dir().to_str().unwrap()]);
    assert_eq!(std::fs::read_dir(node.dir()).unwrap().count(), 0);
    let nowhere = TestNode::new();
    fails(&nowhere.cli(&["dump"]), 66, &[nowhere.dir().to_str().unwrap()]);
    assert!(!nowhere.dir().exists());
}

#[test]
fn a_locked_directory_whose_owner_does_not_answer_is_75() {
    let node = TestNode::new();
    let lock = dhtstore::store::data_dir::Lock::acquire(&node.dir()).unwrap();
    std::fs::create_dir_all(node.dir().join("records")).unwrap();
    std::fs::create_dir_all(node.dir().join("node")).unwrap();
    fails(&node.cli(&["dump"]), 75, &["in use"]);
    drop(lock);
}
