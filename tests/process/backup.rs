//! `dhtstore backup` and `dhtstore restore`: a node moves to another machine.

use crate::{
    harness::{TestNode, cid, eventually, fails, fingerprint, multihash, text},
    kad_peer::KadPeer,
    small_disk::{fill, free, small_disk},
};
use dhtstore::clock::{Clock, SystemClock, UnixTime};
use libp2p_kad::Mode;
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

const CONTENT: &str = "/ipfs/bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";

/// A node that has something of everything, and the server by which it is on the network.
async fn lived() -> (TestNode, TestNode, KadPeer) {
    let hub = TestNode::started();
    let mut node = TestNode::new().joining(&hub);
    node.start();
    eventually("the hub is known", Duration::from_secs(10), || table(&node).contains(&hub.peer_id().to_string()));
    let peer = KadPeer::start(Mode::Client).await;
    peer.know(node.peer_id(), node.multiaddr()).await;
    peer.bootstrap().await;
    for i in 0..10 {
        assert!(peer.announce(&multihash(&format!("record {i}"))).await);
    }
    node.ok(&["provide", "--wait", &cid("own 1"), &cid("own 2")]);
    node.ok(&["put", "--ipns", CONTENT]);
    eventually("all have arrived", Duration::from_secs(10), || count(&node, "providers") >= 10);
    (hub, node, peer)
}

fn count(node: &TestNode, table: &str) -> u64 {
    node.rows(&["dump", table, "--count"])[0]["rows"].as_u64().unwrap()
}

/// Peers of the routing tables.
fn table(node: &TestNode) -> String {
    node.ok(&["closest", "--local", "--format", "ids", &cid("anything")])
}

/// The hash of each table, and of all.
fn hashes(node: &TestNode) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    node.rows(&["dump", "--hash"]).iter().map(|row| (text(&row["table"]), text(&row["hash"]))).collect()
}

fn own(node: &TestNode) -> Vec<Value> {
    node.rows(&["provided", "--format", "ndjson"])
}

/// A file beside the data directory.
fn beside(node: &TestNode, name: &str) -> PathBuf {
    node.dir().parent().unwrap().join(name)
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A restore that must succeed: what it printed.
fn restored(node: &TestNode, file: &Path) -> Value {
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
            // The running one saved its tables again after the backup, and its address book is dated by the hour.
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

        // Without a bootstrap list.
        moved.start();
        assert_eq!(moved.peer_id(), id);
        eventually("it finds its network", Duration::from_secs(20), || {
            table(&moved).contains(&hub.peer_id().to_string())
        });
        assert_eq!(own(&moved), own_before, "nothing is announced twice");
        assert_eq!(count(&moved, "values"), u64::from(records));
        if records {
            let asker = KadPeer::start(Mode::Client).await;
            asker.know(id, moved.multiaddr()).await;
            asker.bootstrap().await;
            assert_eq!(asker.find_providers(&multihash("record 3")).await, vec![peer.id]);
            let mut asker = TestNode::new().joining(&moved);
            asker.start();
            eventually("the moved node is known", Duration::from_secs(10), || table(&asker).contains(&id.to_string()));
            let found = asker.rows(&["findprovs", "--format", "ndjson", &cid("record 4")]);
            assert_eq!(found[0]["peer"], peer.id.to_string());
            assert!(found[0]["addresses"].to_string().contains(&peer.addr.to_string()), "{found:?}");
        }
        // A kill takes nothing away again.
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
    // Through a pipe, from one to the other; and cut off, as `| head` does.
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
    fails(&node.cli(&["backup", path(&file)]), 66, &["no dhtstore database", "--data-dir"]);
    let lock = dhtstore::store::data_dir::Lock::acquire(&node.dir()).unwrap();
    fs::create_dir_all(node.dir().join("node")).unwrap();
    fails(&node.cli(&["backup", path(&file)]), 75, &["in use"]);
    drop(lock);
    fails(&node.cli(&["backup", path(&file)]), 65, &["identity.key", "CREDENTIALS_DIRECTORY"]);
    fs::write(node.dir().join("identity.key"), "no key").unwrap();
    fails(&node.cli(&["backup", path(&file)]), 65, &["identity.key"]);
    assert!(!file.exists());
}

/// Records received a minute ago (and one a day ago, one in an hour), as a dump.
fn dump(records: u64) -> String {
    let now = SystemClock::new().wall();
    let mut dump =
        format!(r#"{{"dhtstore":"dump","version":1,"schema":2,"peer_id":null,"time":"{now}","tables":["providers"]}}"#);
    for n in 0..records {
        let cid = cid::Cid::new_v1(0x55, cid::multihash::Multihash::from_bytes(&multihash(&n.to_string())).unwrap());
        let received = UnixTime(now.0 - 60 - u32::try_from(n % 600).unwrap());
        dump += &format!(
            "\n{{\"table\":\"providers\",\"cid\":\"{cid}\",\"provider\":\"12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5\",\"addresses\":[],\"received\":\"{received}\"}}"
        );
    }
    dump + &format!("\n{{\"dhtstore\":\"end\",\"rows\":{records},\"tables\":{{}},\"damaged\":0}}\n")
}

/// A stopped node with so many records, an own CID and an identity; and its backup.
fn stopped(records: u64) -> (TestNode, PathBuf) {
    let mut node = TestNode::started();
    node.ok(&["provide", &cid("own")]);
    assert_eq!(node.stop(), Some(0));
    let output = node.cli_with_input(&["load", "-"], &dump(records));
    assert!(output.status.success(), "{}", text(&output));
    let file = beside(&node, "node.backup");
    node.ok(&["backup", "--records", path(&file)]);
    (node, file)
}

#[test]
fn what_is_no_whole_backup_is_refused_and_nothing_is_written() {
    let (_node, file) = stopped(200);
    let (whole, target) = (fs::read(&file).unwrap(), TestNode::new());
    let bad = beside(&target, "bad");
    let refused = |bytes: &[u8], words: &[&str]| {
        fs::write(&bad, bytes).unwrap();
        fails(&target.cli(&["restore", path(&bad)]), 65, words);
        assert!(!target.dir().exists(), "something was written");
    };
    refused(b"", &["no backup", "nothing in it"]);
    refused(b"hello\n", &["no backup"]);
    refused(dump(1).as_bytes(), &["dhtstore load"]);
    refused(b"\x1f\x8b\x08\x00", &["gzip -dc"]);
    let text = String::from_utf8(whole.clone()).unwrap();
    refused(text.replacen("\"version\":1", "\"version\":2", 1).as_bytes(), &["version 2", "install"]);
    refused(&[&whole[..], b"more"].concat(), &["damaged"]);
    for at in (0..40).map(|n| n * (whole.len() - 1) / 39) {
        refused(&whole[..at], &[]);
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        refused(&flipped, &[]);
    }
    refused(&whole[..whole.len() - 1], &["cut off"]);
    fails(&target.cli(&["restore", "/nonexistent/file"]), 65, &["/nonexistent/file"]);
    fails(&target.cli(&["restore", "/proc"]), 65, &["/proc", "directory"]);
    fails(&target.cli_with_input(&["restore", "-"], &text[..text.len() / 2]), 65, &["cut off"]);
    assert!(!target.dir().exists());
    assert_eq!(fs::read_dir(bad.parent().unwrap()).unwrap().count(), 1, "only the bad file");
}

#[test]
fn what_is_in_the_way_stays() {
    let (node, file) = stopped(3);
    let before = fingerprint(&node.dir());
    fails(&node.cli(&["restore", path(&file)]), 73, &["not empty", "move it away", "--data-dir"]);
    assert_eq!(fingerprint(&node.dir()), before);
    let mut other = TestNode::new();
    other.ok(&["init"]);
    let before = fingerprint(&other.dir());
    fails(&other.cli(&["restore", path(&file)]), 73, &["identity.key"]);
    assert_eq!(fingerprint(&other.dir()), before);
    other.start();
    fails(&other.cli(&["restore", path(&file)]), 75, &["in use", "stop it"]);
    assert_eq!(other.stop(), Some(0));
    let blocked = TestNode::new();
    fs::write(blocked.dir(), "a file").unwrap();
    fails(&blocked.cli(&["restore", path(&file)]), 73, &[path(&blocked.dir())]);
    // An empty directory, as a mount point is.
    let empty = TestNode::new();
    fs::create_dir_all(empty.dir().join("lost+found")).unwrap();
    restored(&empty, &file);
    assert_eq!(empty.peer_id(), node.peer_id());
}

#[test]
fn killed_at_any_moment_a_restore_is_begun_anew_or_finished() {
    let (node, file) = stopped(60_000);
    let expected = hashes(&node);
    let target = TestNode::new();
    let staging = target.dir().join(".dhtstore-restore");
    let mut cut_off = 0;
    for round in 0..30u64 {
        let mut child =
            target.command(&["restore", path(&file)]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while !staging.exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(round * round));
        child.kill().unwrap();
        child.wait().unwrap();
        if !staging.exists() {
            break;
        }
        cut_off += 1;
        if fs::read_dir(&staging).unwrap().next().is_some() {
            for command in [&["run", "--listen", "/ip4/127.0.0.1/tcp/0"][..], &["load", path(&file)]] {
                let output = target.cli(command);
                assert_eq!(output.status.code(), Some(65), "{command:?}: {}", text(&output));
            }
            let run = target.cli(&["run", "--listen", "/ip4/127.0.0.1/tcp/0"]);
            fails(&run, 65, &["restore", "again"]);
        }
    }
    assert!(cut_off >= 3, "{cut_off} were cut off");
    if !target.dir().join("identity.key").exists() {
        let said = restored(&target, &file);
        assert_eq!(said["providers"], 60_000, "{said}");
    }
    assert_eq!(hashes(&target), expected);
    assert!(!staging.exists());
}

#[test]
fn the_configuration_is_in_effect_where_it_is_restored_and_what_does_not_fit_is_told() {
    let node = TestNode::new();
    // As an operator has it, not as the tests: no DHTSTORE_CONFIG.
    let command = |node: &TestNode, args: &[&str]| -> Command {
        let mut command = node.command(args);
        command.env_remove("DHTSTORE_CONFIG").env("HOME", node.dir().parent().unwrap());
        command
    };
    let run = |node: &TestNode, args: &[&str]| command(node, args).output().unwrap();
    fs::create_dir_all(node.dir()).unwrap();
    let config = node.dir().join("dhtstore.toml");
    fs::write(&config, "data_dir = \"/old/place\"\nlisten = [\"/ip4/192.0.2.7/tcp/4001\"]\n[records]\nttl = \"40h\"\n[reprovide]\ninterval = \"11h\"\n").unwrap();
    assert!(run(&node, &["init"]).status.success());
    // Received 30 hours ago: by the default ttl it would have ended.
    let now = SystemClock::new().wall();
    let old = dump(1).replace(&UnixTime(now.0 - 60).to_string()[..13], &UnixTime(now.0 - 108_000).to_string()[..13]);
    let mut child = command(&node, &["load", "-"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), old.as_bytes()).unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    let file = beside(&node, "node.backup");
    let output =
        command(&node, &["backup", "--records", path(&file)]).env("DHTSTORE_VALUES_TTL", "20h").output().unwrap();
    assert!(output.status.success() && text(&output).contains("values.ttl (DHTSTORE_VALUES_TTL)"), "{}", text(&output));

    let moved = TestNode::new();
    let output = run(&moved, &["restore", path(&file)]);
    assert!(output.status.success(), "{}", text(&output));
    for word in ["\"providers\":1", "/old/place", "192.0.2.7", "dhtstore.toml"] {
        assert!(text(&output).contains(word), "{word}: {}", text(&output));
    }
    assert_eq!(fs::read(moved.dir().join("dhtstore.toml")).unwrap(), fs::read(&config).unwrap());
    assert!(text(&run(&moved, &["config", "show"])).contains("ttl = \"40h\""));

    // Another one by --config: then that one counts, and it is said.
    let own = beside(&moved, "own.toml");
    fs::write(&own, "").unwrap();
    let other = TestNode::new();
    let output = run(&other, &["--config", path(&own), "restore", path(&file)]);
    assert!(output.status.success(), "{}", text(&output));
    for word in ["\"providers\":0", "is not the one that is read", "own.toml"] {
        assert!(text(&output).contains(word), "{word}: {}", text(&output));
    }

    // One that this version does not know.
    fs::write(&config, "[records]\nttl = \"40h\"\nnonsense = 7\n").unwrap();
    let unknown = beside(&node, "unknown.backup");
    let output = run(&node, &["--config", path(&config), "backup", path(&unknown)]);
    assert_eq!(output.status.code(), Some(78), "not backed up either: {}", text(&output));
}

#[test]
fn a_private_network_moves_with_its_key() {
    let mut node = TestNode::new();
    node.ok(&["init", "--private"]);
    node.start();
    let file = beside(&node, "node.backup");
    node.ok(&["backup", path(&file)]);
    assert_eq!(node.stop(), Some(0));
    let moved = TestNode::new();
    let said = restored(&moved, &file);
    assert_eq!(said["files"], serde_json::json!(["identity.key", "swarm.key"]));
    for name in ["identity.key", "swarm.key"] {
        let place = moved.dir().join(name);
        assert_eq!(fs::read(&place).unwrap(), fs::read(node.dir().join(name)).unwrap());
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn limits_and_clocks_leave_nothing_out_in_silence() {
    let (_node, file) = stopped(10);
    let limited = TestNode::new();
    fails(&limited.cli(&["--set", "records.max=4", "restore", path(&file)]), 1, &["6 rows were refused", "raise"]);
    assert_eq!(count(&limited, "providers"), 4);
    let none = TestNode::new();
    fails(
        &none.cli(&["--set", "reprovide.max_cids=0", "restore", path(&file)]),
        78,
        &["own CIDs", "reprovide.max_cids"],
    );
    assert!(!none.dir().join("node").exists());
    restored(&none, &file);
    assert_eq!(own(&none).len(), 1);
}

#[test]
fn on_a_full_disk_nothing_is_left_half_done() {
    let name = "backup::on_a_full_disk_nothing_is_left_half_done";
    let Some(disk) = small_disk(name, 24) else { return };
    let mut node = TestNode::new().with("STORE_RESERVE", "1MiB");
    node.start();
    node.ok(&["provide", &cid("own")]);
    fill(&disk, 2 << 20);
    let listing = || fs::read_dir(&disk).unwrap().count();
    let dir = tempfile::tempdir_in(&disk).unwrap();
    let before = listing();
    // More than there is space for.
    let output = node.cli_with_input(&["load", "-"], &dump(100));
    assert!(output.status.success(), "{}", text(&output));
    fill_to_the_brim(&disk);
    let file = dir.path().join("node.backup");
    fails(&node.cli(&["backup", "--records", path(&file)]), 73, &["node.backup", "free some space"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    fs::remove_file(disk.join("brim")).unwrap();
    assert_eq!(listing(), before);
    node.ok(&["backup", "--records", path(&file)]);
    // Below the reserve nothing is restored, and with space it is.
    let target = TestNode::new();
    fails(&target.cli(&["restore", path(&file)]), 73, &["store.reserve"]);
    assert!(!target.dir().join("node").exists() && !target.dir().join(".dhtstore-restore").exists());
    free(&disk);
    let output = target.cli(&["--set", "store.reserve=1MiB", "restore", path(&file)]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(target.peer_id(), node.peer_id());
    assert_eq!(node.stop(), Some(0));
}

/// Takes what [`fill`] has left.
fn fill_to_the_brim(dir: &Path) {
    let mut file = fs::File::create(dir.join("brim")).unwrap();
    while std::io::Write::write(&mut file, &[1; 4096]).is_ok_and(|written| written == 4096) {}
}
