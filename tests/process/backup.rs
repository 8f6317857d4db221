//! Tests of `dhtstore backup` and `dhtstore restore`: a node moves to another machine.

use crate::harness::{TestNode, cid, eventually, fails, fingerprint, multihash, signal, text};
use dhtstore_testkit::kad_peer::KadPeer;
use rustix::process::Signal;
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

const CONTENT: &str = "/ipfs/bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";

/// Returns a node with rows in every table, the server through which it joined, and the peer that announced to it.
async fn lived() -> (TestNode, TestNode, KadPeer) {
    let hub = TestNode::started();
    let mut node = TestNode::new().joining(&hub);
    node.start();
    eventually("the hub is known", Duration::from_secs(10), || table(&node).contains(&hub.peer_id().to_string()));
    let peer = KadPeer::client_of(node.peer_id(), node.multiaddr()).await;
    for i in 0..10 {
        assert!(peer.announce(&multihash(&format!("record {i}"))).await);
    }
    node.ok(&["provide", "--wait", &cid("own 1"), &cid("own 2")]);
    node.ok(&["put", "--ipns", CONTENT]);
    eventually("all have arrived", Duration::from_secs(10), || count(&node, "providers") >= 10);
    (hub, node, peer)
}

pub fn count(node: &TestNode, table: &str) -> u64 {
    node.rows(&["dump", table, "--count"])[0]["rows"].as_u64().unwrap()
}

/// Returns the peers of the routing tables.
fn table(node: &TestNode) -> String {
    node.ok(&["closest", "--local", "--format", "ids", &cid("anything")])
}

/// Returns the hash of each table, and of all together.
pub fn hashes(node: &TestNode) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    node.rows(&["dump", "--hash"]).iter().map(|row| (text(&row["table"]), text(&row["hash"]))).collect()
}

pub fn own(node: &TestNode) -> Vec<Value> {
    node.rows(&["provided", "--format", "ndjson"])
}

/// Returns the path of a file next to the data directory.
pub fn beside(node: &TestNode, name: &str) -> PathBuf {
    node.dir().parent().unwrap().join(name)
}

pub fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a restore that must succeed. Returns its output.
pub fn restored(node: &TestNode, file: &Path) -> Value {
    let output = node.cli(&["restore", path(file)]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("must not run any more"), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn moving_to_another_machine_keeps_the_peer_id_and_loses_nothing() {
    let (hub, mut node, peer) = lived().await;
    let (running, stopped, small) = (beside(&node, "running"), beside(&node, "stopped"), beside(&node, "small"));
    let output = node.cli(&["backup", "--records", path(&running)]);
    assert!(output.status.success() && text(&output).contains("private key"), "{}", text(&output));
    let (id, own_before) = (node.peer_id(), own(&node));
    assert!(own_before.iter().all(|row| row["announced"].is_string() && row["confirmed"] == 1), "{own_before:?}");
    let running_hashes = hashes(&node);
    assert_eq!(node.stop(), Some(0));
    let before = fingerprint(&node.dir());
    node.ok(&["backup", "--records", path(&stopped)]);
    node.ok(&["backup", path(&small)]);
    assert_eq!(fingerprint(&node.dir()), before, "a stopped node's directory stays as it is");
    let stopped_hashes = hashes(&node);

    for (file, expected, records) in
        [(&stopped, &stopped_hashes, true), (&running, &running_hashes, true), (&small, &stopped_hashes, false)]
    {
        let mut moved = TestNode::new();
        moved.port = node.port;
        let said = restored(&moved, file);
        assert_eq!(said["peer_id"], id.to_string());
        assert_eq!((&said["own_cids"], &said["routing"]), (&2.into(), &2.into()), "{said}");
        assert_eq!((&said["expired"], &said["refused"]), (&0.into(), &0.into()), "{said}");
        assert!(!moved.dir().join(".dhtstore-restore").exists());
        for (table, hash) in hashes(&moved) {
            // The running node saved its routing tables again after the backup, and dates its address book by the hour.
            let is_same = match table.as_str() {
                "provided" => true,
                "providers" | "values" => records,
                "peers" | "all" => records && file == &stopped,
                _ => file != &running,
            };
            assert!(!is_same || expected.contains(&(table.clone(), hash)), "{table} of {}", file.display());
        }
        let whole = moved.cli(&["check", "--format", "ndjson"]);
        assert!(whole.status.success(), "{}", text(&whole));

        // It has no bootstrap list.
        moved.start();
        assert_eq!(moved.peer_id(), id);
        eventually("it finds its network", Duration::from_secs(20), || {
            table(&moved).contains(&hub.peer_id().to_string())
        });
        assert_eq!(own(&moved), own_before, "nothing is announced twice");
        assert_eq!(count(&moved, "values"), u64::from(records));
        if records {
            let asker = KadPeer::client_of(id, moved.multiaddr()).await;
            assert_eq!(asker.find_providers(&multihash("record 3")).await, vec![peer.id]);
            let mut asker = TestNode::new().joining(&moved);
            asker.start();
            eventually("the moved node is known", Duration::from_secs(10), || table(&asker).contains(&id.to_string()));
            let found = asker.rows(&["findprovs", "--format", "ndjson", &cid("record 4")]);
            assert_eq!(found[0]["peer"], peer.id.to_string());
            assert!(found[0]["addresses"].to_string().contains(&peer.addr.to_string()), "{found:?}");
        }
        // A kill loses nothing.
        moved.kill();
        assert_eq!(own(&moved), own_before);
    }
}

#[test]
fn a_backup_is_for_its_owner_only_and_overwrites_nothing_unless_it_is_told_to() {
    let mut node = TestNode::started();
    let file = beside(&node, "node.backup");
    fs::write(&file, "something else").unwrap();
    for is_running in [true, false] {
        fails(&node.cli(&["backup", path(&file)]), 73, &["exists", "--force"]);
        assert_eq!(fs::read(&file).unwrap(), b"something else");
        if is_running {
            node.stop();
        }
    }
    node.ok(&["backup", "--force", path(&file)]);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&file).unwrap().starts_with(r#"{"dhtstore":"backup","version":1"#));
    fails(&node.cli(&["backup", "--force", "/dev/null"]), 73, &["plain file"]);
    fails(&node.cli(&["backup", "--force", path(&node.dir())]), 73, &["plain file"]);
    fails(&node.cli(&["backup", "/nonexistent/file"]), 73, &["/nonexistent"]);
    let left = fs::read_dir(file.parent().unwrap()).unwrap().count();
    assert_eq!(left, 3, "data, log and backup: nothing unfinished was left");
    // Through a pipe, from one node to another, and with a reader that stops early, like `| head`.
    let piped = node.ok(&["backup", "-"]);
    let other = TestNode::new();
    let output = other.cli_with_input(&["restore", "-"], &piped);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(other.peer_id(), node.peer_id());
    let mut child = node.command(&["backup", "-"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::with_capacity(64, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
}

#[test]
fn without_a_database_or_an_identity_there_is_no_backup() {
    let node = TestNode::new();
    let file = beside(&node, "node.backup");
    fails(&node.cli(&["backup", path(&file)]), 66, &["cannot find a dhtstore database", "--data-dir"]);
    let lock = dhtstore::store::data_dir::Lock::acquire(&node.dir()).unwrap();
    fs::create_dir_all(node.dir().join("node")).unwrap();
    fails(&node.cli(&["backup", path(&file)]), 75, &["in use"]);
    drop(lock);
    fails(&node.cli(&["backup", path(&file)]), 65, &["identity.key", "CREDENTIALS_DIRECTORY"]);
    fs::write(node.dir().join("identity.key"), "no key").unwrap();
    fails(&node.cli(&["backup", path(&file)]), 65, &["identity.key"]);
    assert!(!file.exists());
}

#[test]
fn a_backup_that_is_ended_by_a_signal_leaves_no_key_about() {
    let (node, _) = crate::restore::stopped(30_000);
    let file = beside(&node, "ended");
    let unfinished = || {
        let names = fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with(".dhtstore-backup")).count()
    };
    let mut ended = 0;
    for round in 0..5 {
        let command = ["backup", "--records", "--force", path(&file)];
        let mut child = node.command(&command).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        while unfinished() == 0 && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(5 + round * 20));
        if child.try_wait().unwrap().is_none() {
            signal(&child, Signal::INT);
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!(unfinished(), 0, "{}", text(&output));
        if output.status.code() == Some(1) {
            ended += 1;
            assert!(text(&output).contains("signal") && !file.exists(), "{}", text(&output));
        } else {
            fs::remove_file(&file).unwrap();
        }
    }
    assert!(ended > 0, "none was ended");
}
