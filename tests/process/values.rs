//! Tests of values: through commands, and across a SIGKILL.

use crate::harness::{TestNode, cid, eventually, fails, text};
use std::{io::Write, process::Stdio, time::Duration};

const CONTENT: &str = "/ipfs/bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";

#[test]
fn val_5_a_value_survives_kill_9_and_is_served_with_its_better_sequence_only() {
    let mut keeper = TestNode::started();
    let mut publisher = TestNode::new().joining(&keeper);
    publisher.start();
    let known = |node: &TestNode| node.ok(&["closest", "--local", "--format", "ids", CONTENT]).lines().count();
    eventually("the keeper is known", Duration::from_secs(10), || known(&publisher) == 2);
    let name = format!("/ipns/{}", publisher.peer_id());
    fails(&publisher.cli(&["get", &name]), 1, &["no server holds"]);

    for sequence in 0..2 {
        let report = &publisher.rows(&["put", "--ipns", CONTENT])[0];
        assert_eq!((&report["confirmed"], &report["stored_here"]), (&1.into(), &true.into()), "{report}");
        assert_eq!(report["sequence"], sequence, "one above the highest found");
    }
    fails(&publisher.cli(&["put", "--ipns", CONTENT, "--sequence", "1"]), 65, &["not above 1"]);
    // sled flushes every half second.
    std::thread::sleep(Duration::from_millis(1_000));
    keeper.kill();
    publisher.kill();
    keeper.start();
    let row = &keeper.rows(&["get", "--local", &name])[0];
    assert_eq!((&row["value"], &row["sequence"]), (&CONTENT.into(), &1.into()), "{row}");
    assert!(row["received"].is_string() && row["key"].as_str().unwrap().starts_with("/ipns/k51"), "{row}");
    let stat = &keeper.rows(&["stat"])[0];
    assert_eq!(stat["store"]["values"], 1);
    let dumped = &keeper.rows(&["dump", "values"])[0];
    assert_eq!((&dumped["key"], &dumped["record"]), (&row["key"], &row["record"]));

    // A third node, which knows only the keeper, puts the bytes of the record and gets the record back.
    let record = keeper.cli(&["get", "--raw", &name]).stdout;
    let mut other = TestNode::new().joining(&keeper);
    other.start();
    eventually("the keeper is known", Duration::from_secs(10), || known(&other) >= 2);
    let put = |bytes: &[u8]| {
        let mut child = other.command(&["put", &name, "-"]);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        child.wait_with_output().unwrap()
    };
    let output = put(&record);
    assert!(output.status.success(), "{}", text(&output));
    // A forged record: every copy of the path is changed, and the signature stays the same.
    let forged = replaced(&record, b"igh2akis", b"igh2akit");
    assert_ne!(forged, record);
    fails(&put(&forged), 65, &["signature"]);
    fails(&put(b"hello"), 65, &["IPNS record"]);
    let got = other.cli(&["-v", "get", &name]);
    let said = String::from_utf8_lossy(&got.stderr).into_owned();
    assert!(got.status.success() && said.contains("holds sequence 1: the best"), "{}", text(&got));
    assert_eq!(keeper.stop(), Some(0));
    assert_eq!(keeper.rows(&["dump", "values"]).len(), 1, "stopped as well as running");
}

#[test]
fn val_6_get_corrects_the_server_that_holds_an_older_sequence() {
    let (old, mut new) = (TestNode::started(), TestNode::started());
    let name = format!("/ipns/{}", new.peer_id());
    let sequence = |node: &TestNode| node.rows(&["get", "--local", &name])[0]["sequence"].clone();
    for expected in 0..2 {
        // The node is alone: it stores the value and reports that no other server has it.
        fails(&new.cli(&["put", "--ipns", CONTENT]), 1, &["no server is known"]);
        assert_eq!(sequence(&new), expected);
        if expected == 0 {
            let record = new.cli(&["get", "--local", "--raw", &name]).stdout;
            let path = old.dir().join("record");
            std::fs::write(&path, record).unwrap();
            fails(&old.cli(&["put", &name, path.to_str().unwrap()]), 1, &["no server is known"]);
        }
    }
    assert_eq!((sequence(&old), sequence(&new)), (0.into(), 1.into()));

    let mut reader = TestNode::new().joining(&old);
    reader.start();
    reader.ok(&["connect", &new.address()]);
    let known = || reader.ok(&["closest", "--local", "--format", "ids", CONTENT]);
    eventually("the reader knows both", Duration::from_secs(10), || {
        [&old, &new].iter().all(|node| known().matches(&node.peer_id().to_string()).count() == 2)
    });
    assert_eq!(sequence(&old), 0, "a connection alone does not correct a server");
    let got = &reader.rows(&["get", &name])[0];
    assert_eq!(got["sequence"], 1, "{got}");
    assert_eq!((sequence(&old), sequence(&new)), (1.into(), 1.into()));
    assert_eq!(new.stop(), Some(0));
}

/// Returns `bytes` with every `from` replaced by `to`, which has the same length.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for at in 0..bytes.len() - from.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
    }
    bytes
}

#[test]
fn keys_that_are_none_are_refused_with_the_reason() {
    let node = TestNode::new();
    for (key, reason) in [("/ipns/docs.ipfs.tech", "DNS"), ("/ipfs/bafkqaaa", "/ipns/NAME"), ("nonsense", "peer id")] {
        fails(&node.cli(&["get", key]), 65, &[reason]);
        fails(&node.cli(&["put", key, "/dev/null"]), 65, &[reason]);
    }
    fails(&node.cli(&["put"]), 64, &["--ipns"]);
    fails(&node.cli(&["put", "--ipns", "bafkqaaa"]), 64, &["/ipfs/"]);
}

#[test]
fn an_own_name_never_goes_back_to_an_old_record_not_even_from_a_backup() {
    let mut lasting = TestNode::started();
    let mut other = TestNode::new().joining(&lasting);
    other.start();
    let mut node = TestNode::new().joining(&other);
    node.start();
    let put = |node: &TestNode, content: &str, args: &[&str]| {
        let path = format!("/ipfs/{}", cid(content));
        let done = node.ok(&[&["put", "--ipns", &path][..], args, &["--format", "ndjson"]].concat());
        serde_json::from_str::<serde_json::Value>(&done).unwrap()["sequence"].as_u64().unwrap()
    };
    let servers = || node.rows(&["closest", "--local", "--format", "ndjson", &cid("x")]).len();
    eventually("it has joined", Duration::from_secs(20), || servers() >= 2);
    // Valid for a year, on both servers. Then one of them is killed.
    assert_eq!(put(&node, "first", &["--lifetime", "365d"]), 0);
    lasting.kill();
    // The next record soon expires everywhere.
    assert_eq!(put(&node, "second", &["--lifetime", "3s", "--sequence", "9"]), 9);
    std::thread::sleep(Duration::from_secs(4));
    let backup = node.dir().with_extension("backup");
    node.ok(&["backup", backup.to_str().unwrap()]);
    node.kill();
    node.start();
    let knows_one = |node: &TestNode| !node.rows(&["closest", "--local", "--format", "ndjson", &cid("x")]).is_empty();
    eventually("it has joined", Duration::from_secs(20), || knows_one(&node));
    assert_eq!(put(&node, "third", &[]), 10, "above the sequence that has expired everywhere, also after kill -9");
    lasting.start();
    let name = format!("/ipns/{}", node.peer_id());
    let found = node.ok(&["get", &name]);
    assert!(found.contains(&format!("/ipfs/{}", cid("third"))), "{found}");

    // The backup is older than the third record. The next sequence number is above the one in the backup and above
    // those found in the network.
    node.kill();
    let mut moved = TestNode::new().joining(&other);
    assert!(moved.cli(&["restore", backup.to_str().unwrap()]).status.success());
    moved.start();
    eventually("it has joined", Duration::from_secs(20), || knows_one(&moved));
    assert_eq!(put(&moved, "fourth", &[]), 11);
}

#[test]
fn a_name_is_pointed_at_nothing_that_nobody_can_resolve() {
    let node = TestNode::started();
    for path in ["/ipfs/garbage", "/ipfs/", "/ipns/", "/ipns/garbage", "/ipns/bafkqaaa", "/ipfs//x"] {
        fails(&node.cli(&["put", "--ipns", path]), 65, &["nothing was published"]);
    }
    for path in [
        "/ipfs/bafkqaaa",
        "/ipfs/bafkqaaa/a/b",
        "/ipns/example.org",
        "/ipns/k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8/x",
    ] {
        // No other server is known, so only this node stores it.
        let done = node.cli(&["put", "--ipns", path, "--format", "ndjson"]);
        assert!(text(&done).contains("\"stored_here\":true"), "{path}: {}", text(&done));
    }
}
