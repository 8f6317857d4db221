//! `dhtstore check`, `dhtstore migrate` and `dhtstore compact`.

use crate::copy::copy;
use crate::harness::{TestNode, cid, eventually, fails, fingerprint, multihash, text};
use dhtstore::clock::{Clock, SystemClock, UnixTime};
use std::{fs, path::Path, time::Duration};

/// A node with an own CID, stopped.
fn stopped() -> TestNode {
    let mut node = TestNode::started();
    node.ok(&["provide", &cid("own")]);
    let output = node.cli_with_input(&["load", "-"], &dump_of_now());
    assert!(output.status.success(), "{}", text(&output));
    let running = node.rows(&["check", "--format", "ndjson"]);
    assert!(running.iter().all(|finding| finding["level"] != "damaged"), "{running:?}");
    assert_eq!(node.stop(), Some(0));
    node
}

/// Records received a minute ago.
fn dump_of_now() -> String {
    let time = SystemClock::new().wall();
    let received = UnixTime(time.0 - 60);
    let mut dump = format!(
        r#"{{"dhtstore":"dump","version":1,"schema":2,"peer_id":null,"time":"{time}","tables":["providers"]}}"#
    );
    for n in 0..100 {
        let cid = cid::Cid::new_v1(0x55, cid::multihash::Multihash::from_bytes(&multihash(&n.to_string())).unwrap());
        let provider = "12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5";
        dump += &format!(
            "\n{{\"table\":\"providers\",\"cid\":\"{cid}\",\"provider\":\"{provider}\",\"addresses\":[],\"received\":\"{received}\"}}"
        );
    }
    dump + "\n{\"dhtstore\":\"end\",\"rows\":100,\"tables\":{\"providers\":100},\"damaged\":0}\n"
}

fn damaged(node: &TestNode) -> Vec<String> {
    let output = node.cli(&["check", "--format", "ndjson"]);
    let rows = String::from_utf8(output.stdout.clone()).unwrap();
    let rows = rows.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let damaged: Vec<serde_json::Value> = rows.filter(|row| row["level"] == "damaged").collect();
    assert_eq!(output.status.code(), Some(if damaged.is_empty() { 0 } else { 65 }), "{}", text(&output));
    assert!(damaged.iter().all(|row| row["next"].is_string()), "{damaged:?}");
    damaged.iter().map(|row| row["place"].as_str().unwrap().to_owned()).collect()
}

/// Flips every bit of some bytes in the middle of a file.
fn spoil(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].iter_mut().take(64).for_each(|byte| *byte = !*byte);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_whole_directory_is_found_whole_and_stays_byte_for_byte() {
    let node = stopped();
    let before = fingerprint(&node.dir());
    assert_eq!(damaged(&node), Vec::<String>::new());
    assert_eq!(fingerprint(&node.dir()), before);
}

#[test]
fn damage_is_told_with_the_next_step_and_stays_as_it_is() {
    let node = stopped();
    let export = fs::read_dir(node.dir().join("exports")).unwrap().flatten().map(|entry| entry.path());
    let export = export.filter(|path| path.extension().is_some_and(|ending| ending == "export")).max().unwrap();
    spoil(&export);
    let identity = node.dir().join("identity.key");
    let key = fs::read(&identity).unwrap();
    fs::write(&identity, "nonsense").unwrap();
    fs::write(node.dir().join("records/db"), vec![0xa5; 1 << 20]).unwrap();
    let before = fingerprint(&node.dir());
    let places = damaged(&node);
    for place in ["exports/node-", "identity.key", "records/"] {
        assert!(places.iter().any(|found| found.starts_with(place)), "{place} is not among {places:?}");
    }
    assert_eq!(fingerprint(&node.dir()), before);
    fs::write(&identity, key).unwrap();
    assert!(!damaged(&node).iter().any(|found| found == "identity.key"));
}

#[test]
fn no_database_is_66_and_creates_nothing() {
    let node = TestNode::new();
    for command in ["check", "migrate"] {
        fails(&node.cli(&[command]), 66, &[node.dir().to_str().unwrap()]);
    }
    assert!(!node.dir().exists());
}

#[test]
fn compacting_keeps_all_and_a_kill_between_the_renames_is_made_good() {
    let mut node = stopped();
    let hash = |node: &TestNode| node.rows(&["dump", "--hash"]).pop().unwrap();
    let before = hash(&node);
    let rows = node.rows(&["compact", "--format", "ndjson"]);
    assert_eq!(rows.iter().map(|row| row["database"].as_str().unwrap()).collect::<Vec<_>>(), ["records", "node"]);
    assert_eq!(hash(&node), before);
    assert_eq!(damaged(&node), Vec::<String>::new());
    // As a kill leaves it: the old one is aside, the new one not yet in its place.
    for name in ["records", "node"] {
        copy(&node.dir().join(name), &node.dir().join(format!("{name}.compacted")));
        fs::rename(node.dir().join(name), node.dir().join(format!("{name}.recovering"))).unwrap();
        node.start();
        assert_eq!(hash(&node), before, "{name}");
        fails(&node.cli(&["compact"]), 75, &["running"]);
        assert_eq!(node.stop(), Some(0));
    }
    node.ok(&["compact"]);
    assert!(!node.dir().join("node.compacted").exists());
    assert_eq!(hash(&node), before);
}

#[test]
fn a_migration_is_told_and_tried_without_a_trace_and_then_done() {
    let node = TestNode::new();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/fixtures/schema-1"), &node.dir());
    let before = fingerprint(&node.dir());
    let status = |node: &TestNode| node.rows(&["migrate", "--status", "--format", "ndjson"]).remove(0);
    assert_eq!((&status(&node)["schema"], &status(&node)["program"]), (&1.into(), &3.into()));
    assert!(status(&node)["steps"][0].as_str().unwrap().contains("0002"));
    let dry = node.rows(&["migrate", "--dry-run", "--format", "ndjson"]).remove(0);
    assert_eq!(dry["own_cids"], 1, "{dry}");
    assert_eq!(fingerprint(&node.dir()), before);
    // The fixture has an own CID and no identity.
    assert_eq!(damaged(&node), ["identity.key"]);
    let done = node.rows(&["migrate", "--format", "ndjson"]).remove(0);
    assert_eq!((&done["outcome"], &done["own_cids"]), (&"done".into(), &1.into()), "{done}");
    assert_eq!(status(&node)["schema"], 3);
    assert_eq!(status(&node)["steps"].as_array().unwrap().len(), 0);
}

#[test]
fn a_database_from_the_future_is_78_and_stays_untouched() {
    let node = TestNode::new();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/fixtures/schema-1"), &node.dir());
    let db = sled::open(node.dir().join("node")).unwrap();
    db.open_tree("meta").unwrap().insert("schema", &[1, 99]).unwrap();
    drop(db);
    let before = fingerprint(&node.dir());
    for args in [&["migrate"][..], &["migrate", "--status"], &["migrate", "--dry-run"], &["check"]] {
        fails(&node.cli(args), 78, &["schema 99"]);
        assert_eq!(fingerprint(&node.dir()), before, "{args:?}");
    }
}

#[test]
fn under_a_new_identity_own_cids_are_announced_at_once_and_check_misses_the_old_one() {
    let server = TestNode::started();
    let mut node = TestNode::new().joining(&server);
    node.start();
    let content = cid("mine");
    let provide = || node.cli(&["provide", "--wait", &content]).status.success();
    eventually("it has joined, and announces", Duration::from_secs(20), provide);
    let before = node.peer_id().to_string();
    let names = || server.held(&content).into_iter().map(|(peer, _)| peer).collect::<Vec<_>>();
    assert_eq!(names(), [before.clone()]);

    let identity = node.dir().join("identity.key");
    let aside = node.dir().with_extension("aside");
    std::fs::rename(&identity, &aside).unwrap();
    let words = ["identity.key", "is not there", "1 own CIDs are announced as", &before];
    let missing = |node: &TestNode| {
        let found = node.cli(&["check", "--format", "ndjson"]);
        assert!(
            found.status.code() == Some(65) && words.iter().all(|word| text(&found).contains(word)),
            "{}",
            text(&found)
        );
    };
    missing(&node);
    assert_eq!(node.stop(), Some(0));
    missing(&node);

    node.start();
    let now = node.peer_id().to_string();
    assert_ne!(now, before);
    eventually("it is announced under the new id", Duration::from_secs(20), || names().contains(&now));
    let log = node.log();
    let line = log.lines().find(|line| line.contains("another peer id than before")).expect(&log);
    assert!(line.contains(&before) && line.contains(&now) && line.contains("own_cids=1"), "{line}");
    assert_eq!(node.cli(&["check"]).status.code(), Some(0), "{}", text(&node.cli(&["check"])));
    assert_eq!(node.stop(), Some(0));
    assert_eq!(node.cli(&["check"]).status.code(), Some(0), "{}", text(&node.cli(&["check"])));

    // Another one in its place, before the start.
    std::fs::rename(&aside, &identity).unwrap();
    let found = node.cli(&["check", "--format", "ndjson"]);
    assert!(
        found.status.code() == Some(0) && text(&found).contains("the next start announces all of them again"),
        "{}",
        text(&found)
    );
    node.start();
    assert_eq!(node.peer_id().to_string(), before);
    assert_eq!(node.log().matches("another peer id than before").count(), 2);
}
