//! Tests of `dhtstore check`, `dhtstore migrate` and `dhtstore compact`.

use crate::harness::{TestNode, cid, eventually, fails, fingerprint, multihash, text};
use dhtstore::clock::{Clock, SystemClock, UnixTime};
use dhtstore_testkit::files::copy;
use std::{fs, path::Path, time::Duration};

/// Returns a stopped node with an own CID and 100 records.
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

/// Returns a dump of records received a minute ago.
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

/// Flips all bits of 64 bytes in the middle of a file.
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
    // The state after a kill: the old database is moved aside, and the new one is not in its place yet.
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
    assert_eq!(names(), std::slice::from_ref(&before));

    let identity = node.dir().join("identity.key");
    let aside = node.dir().with_extension("aside");
    std::fs::rename(&identity, &aside).unwrap();
    let words = ["identity.key", "is missing", "1 own CIDs are announced as", &before];
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
    let line = log.lines().find(|line| line.contains("the node has a new peer id")).expect(&log);
    assert!(line.contains(&before) && line.contains(&now) && line.contains("own_cids=1"), "{line}");
    assert_eq!(node.cli(&["check"]).status.code(), Some(0), "{}", text(&node.cli(&["check"])));
    assert_eq!(node.stop(), Some(0));
    assert_eq!(node.cli(&["check"]).status.code(), Some(0), "{}", text(&node.cli(&["check"])));

    // Another identity is put in its place before the start.
    std::fs::rename(&aside, &identity).unwrap();
    let found = node.cli(&["check", "--format", "ndjson"]);
    assert!(
        found.status.code() == Some(0) && text(&found).contains("the next start announces them all again"),
        "{}",
        text(&found)
    );
    node.start();
    assert_eq!(node.peer_id().to_string(), before);
    assert_eq!(node.log().matches("the node has a new peer id").count(), 2);
}

/// Returns a node that was killed with 40 own CIDs in its journal, each acknowledged separately.
fn killed_with_a_journal() -> (TestNode, std::path::PathBuf) {
    let mut node = TestNode::started();
    for n in 0..40 {
        node.ok(&["provide", &cid(&n.to_string())]);
    }
    node.kill();
    let exports = fs::read_dir(node.dir().join("exports")).unwrap().flatten().map(|entry| entry.path());
    let journal = exports.filter(|path| path.extension().is_some_and(|ending| ending == "journal")).max().unwrap();
    (node, journal)
}

#[test]
fn damage_anywhere_in_a_journal_is_damage_and_what_stands_behind_it_is_not_lost() {
    let (node, journal) = killed_with_a_journal();
    assert_eq!(damaged(&node), Vec::<String>::new());
    let whole = fs::read(&journal).unwrap();
    assert!(whole.len() > 1000, "{}", whole.len());
    for at in [0, 1, 2, 5, 9, whole.len() / 2, whole.len() / 2 + 1, whole.len() - 70, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&journal, bytes).unwrap();
        let places = damaged(&node);
        assert!(places.iter().any(|place| place.starts_with("exports/own-")), "byte {at}: {places:?}");
    }
    // Cut off in its last change, as after a kill. Only that change is missing, because node/ is whole.
    fs::write(&journal, &whole[..whole.len() - 3]).unwrap();
    assert!(!damaged(&node).iter().any(|place| place.starts_with("exports/own-")));
    // Damage in the middle loses at most one of 40, even if node/ is lost too.
    let mut bytes = whole.clone();
    bytes[whole.len() / 2] ^= 0x10;
    fs::write(&journal, bytes).unwrap();
    let exports = fs::read_dir(node.dir().join("exports")).unwrap().flatten().map(|entry| entry.path());
    exports
        .filter(|path| path.extension().is_some_and(|e| e == "export"))
        .for_each(|path| fs::remove_file(path).unwrap());
    fs::remove_dir_all(node.dir().join("node")).unwrap();
    let mut node = node;
    node.start();
    assert!(node.rows(&["provided", "--format", "ndjson"]).len() >= 39);
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn damage_to_the_beginning_of_a_segment_is_told_and_costs_nothing_if_the_database_is_lost_too() {
    let mut node = stopped();
    let segment = || {
        let mut found: Vec<_> =
            fs::read_dir(node.dir().join("log")).unwrap().flatten().map(|entry| entry.path()).collect();
        found.sort();
        found.remove(0)
    };
    let (path, whole) = (segment(), fs::read(segment()).unwrap());
    for at in [0, 5, 18, 19, 21, 24, 27, 28, 30] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(damaged(&node).iter().any(|place| place.starts_with("log/")), "byte {at}");
    }
    fs::remove_dir_all(node.dir().join("records")).unwrap();
    for file in fs::read_dir(node.dir().join("exports")).unwrap().flatten() {
        if file.file_name().to_string_lossy().starts_with("records-") {
            fs::remove_file(file.path()).unwrap();
        }
    }
    node.start();
    assert_eq!(node.rows(&["dump", "providers"]).len(), 100);
    assert_eq!(node.stop(), Some(0));
    assert_eq!(node.rows(&["dump", "providers"]).len(), 100);
}

#[test]
fn little_space_is_no_damage() {
    // No disk has this much space, so announcements are refused and `check` has a note.
    let mut node = TestNode::new().with("STORE_RESERVE", "65536GiB");
    node.start();
    let found = node.rows(&["check", "--format", "ndjson"]);
    assert!(found.iter().any(|finding| finding["level"] == "note" && finding["place"] == "store"), "{found:?}");
    assert_eq!(damaged(&node), Vec::<String>::new());
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn a_file_in_the_place_of_a_database_is_damage() {
    let node = stopped();
    for name in ["node", "records"] {
        let aside = node.dir().join("aside");
        fs::rename(node.dir().join(name), &aside).unwrap();
        assert!(damaged(&node).contains(&format!("{name}/")), "{name} is missing");
        fs::write(node.dir().join(name), "a file").unwrap();
        assert!(damaged(&node).contains(&format!("{name}/")), "{name} is a file");
        fails(&node.cli(&["run", "--listen", "/ip4/127.0.0.1/tcp/0"]), 73, &[name]);
        fs::remove_file(node.dir().join(name)).unwrap();
        fs::rename(&aside, node.dir().join(name)).unwrap();
        assert_eq!(damaged(&node), Vec::<String>::new());
    }
}

/// Runs `check` as the user that owns the directory, even if root runs the tests.
fn check_as_a_user(node: &TestNode) -> std::process::Output {
    use std::os::unix::process::CommandExt;
    let mut command = node.command(&["check", "--format", "ndjson"]);
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534).env("TMPDIR", "/tmp");
    }
    command.output().unwrap()
}

#[test]
fn what_may_not_be_read_is_no_damage_and_the_owner_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let (mut node, journal) = killed_with_a_journal();
    node.start();
    assert_eq!(node.stop(), Some(0));
    let journal = Some(journal).filter(|path| path.exists());
    let root = rustix::process::geteuid().is_root();
    let mut files = vec![node.dir()];
    let mut all = Vec::new();
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(&path).unwrap().flatten().map(|entry| entry.path()));
        }
        all.push(path);
    }
    all.push(node.dir().parent().unwrap().to_owned());
    if root {
        all.iter().for_each(|path| std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap());
    }
    let output = check_as_a_user(&node);
    assert!(output.status.success(), "{}", text(&output));
    let some = |ending: &str| all.iter().find(|path| path.extension().is_some_and(|e| e == ending)).cloned();
    let named = ["records/db", "node/db", "identity.key"].map(|name| Some(node.dir().join(name)));
    let unreadable = named.into_iter().chain([journal, some("export"), some("segment")]).flatten();
    for path in unreadable {
        let mode = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        let output = check_as_a_user(&node);
        fs::set_permissions(&path, mode).unwrap();
        fails(&output, 73, &["permission denied", "owner", path.file_name().unwrap().to_str().unwrap()]);
        assert!(!String::from_utf8_lossy(&output.stdout).contains("cut off"), "{}", text(&output));
    }
}
