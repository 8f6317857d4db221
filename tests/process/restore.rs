//! Tests of `dhtstore restore`: bad files, directories in use, kills, and other machines.

use crate::{
    backup::{beside, count, hashes, own, path, restored},
    harness::{TestNode, cid, fails, fingerprint, multihash, text},
};
use dhtstore::clock::{Clock, SystemClock, UnixTime};
use dhtstore_testkit::small_disk::{fill, free, small_disk};
use sha2::{Digest, Sha256};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// Returns a dump of records received within the last eleven minutes.
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

/// Returns a stopped node with `records` records, an own CID and an identity, and its backup.
pub fn stopped(records: u64) -> (TestNode, PathBuf) {
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
    refused(b"", &["not a backup", "it is empty"]);
    refused(b"hello\n", &["not a backup"]);
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
    fails(&other.cli(&["restore", path(&file)]), 75, &["in use", "stop that process"]);
    assert_eq!(other.stop(), Some(0));
    let blocked = TestNode::new();
    fs::write(blocked.dir(), "a file").unwrap();
    fails(&blocked.cli(&["restore", path(&file)]), 73, &[path(&blocked.dir())]);
    // An empty directory, such as a mount point.
    let empty = TestNode::new();
    fs::create_dir_all(empty.dir().join("lost+found")).unwrap();
    restored(&empty, &file);
    assert_eq!(empty.peer_id(), node.peer_id());
}

#[test]
fn killed_at_any_moment_a_restore_is_begun_anew_or_finished() {
    let (node, file) = stopped(40_000);
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
        assert_eq!(said["providers"], 40_000, "{said}");
    }
    assert_eq!(hashes(&target), expected);
    assert!(!staging.exists());
}

#[test]
fn the_configuration_is_in_effect_where_it_is_restored_and_what_does_not_fit_is_told() {
    let node = TestNode::new();
    // Like an operator and unlike other tests, without DHTSTORE_CONFIG.
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
    // Received 30 hours ago, so it would have expired with the default ttl.
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

    // A configuration named by --config is used instead, and that is reported.
    let own = beside(&moved, "own.toml");
    fs::write(&own, "").unwrap();
    let other = TestNode::new();
    let output = run(&other, &["--config", path(&own), "restore", path(&file)]);
    assert!(output.status.success(), "{}", text(&output));
    for word in ["\"providers\":0", "is not the one that is read", "own.toml"] {
        assert!(text(&output).contains(word), "{word}: {}", text(&output));
    }
}

/// Returns the backup with changed lines and a correct checksum.
fn forged(whole: &str, change: impl Fn(&str) -> String) -> String {
    let mut lines: Vec<String> = whole.lines().map(change).collect();
    lines.pop();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let (count, sha256) = (lines.len(), format!("{:x}", Sha256::digest(&text)));
    text + &format!("{{\"dhtstore\":\"end-of-backup\",\"lines\":{count},\"sha256\":\"{sha256}\"}}\n")
}

#[test]
fn a_forged_backup_writes_nothing_outside_and_one_with_another_configuration_says_what_to_do() {
    let (node, file) = stopped(3);
    let whole = fs::read_to_string(&file).unwrap();
    let target = TestNode::new();
    let restore = |backup: &str| target.cli_with_input(&["restore", "-"], backup);
    for name in ["../evil", "/tmp/evil", "node", "lock"] {
        let evil = forged(&whole, |line| line.replace("\"identity.key\"", &format!("\"{name}\"")));
        fails(&restore(&evil), 65, &["damaged"]);
    }
    let other = libp2p::identity::Keypair::generate_ed25519().public().to_peer_id().to_string();
    let of_another = forged(&whole, |line| match line.starts_with("{\"dhtstore\":\"backup\"") {
        true => line.replace(&node.peer_id().to_string(), &other),
        false => line.to_owned(),
    });
    fails(&restore(&of_another), 65, &["identity.key", &other]);
    let bad_row = forged(&whole, |line| line.replace("\"received\"", "\"perceived\""));
    fails(&restore(&bad_row), 65, &["row", "received", "nothing was restored"]);
    assert!(!target.dir().join("node").exists() && !target.dir().join(".dhtstore-restore").exists());

    // A backup of a version that has more settings.
    let config = multibase::encode(multibase::Base::Base64, "[records]\nnew = 7\n");
    let later = forged(&whole, |line| match line.starts_with("{\"file\":\"identity.key\"") {
        true => format!("{line}\n{{\"file\":\"dhtstore.toml\",\"content\":\"{config}\"}}"),
        false => line.replace("[\"identity.key\"]", "[\"identity.key\",\"dhtstore.toml\"]"),
    });
    let later = forged(&later, str::to_owned);
    let mut child = target.command(&["restore", "-"]);
    child.env_remove("DHTSTORE_CONFIG").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), later.as_bytes()).unwrap();
    fails(&child.wait_with_output().unwrap(), 78, &["records.new", "--config"]);
    assert!(!target.dir().join("node").exists());
    let output = restore(&later);
    assert!(output.status.success() && text(&output).contains("not the one that is read"), "{}", text(&output));
    assert_eq!(target.peer_id(), node.peer_id());
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
    let tomorrow = UnixTime(SystemClock::new().wall().0 + 86_400).to_string();
    let ahead = forged(&fs::read_to_string(&file).unwrap(), |line| {
        let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
        if row["table"] == "providers" {
            row["received"] = tomorrow.as_str().into();
            return row.to_string();
        }
        line.to_owned()
    });
    let slow = TestNode::new();
    fails(&slow.cli_with_input(&["restore", "-"], &ahead), 1, &["10 rows", "lie ahead", "set the clock"]);
    assert_eq!((count(&slow, "providers"), own(&slow).len()), (0, 1));
    let limited = TestNode::new();
    fails(&limited.cli(&["--set", "records.max=4", "restore", path(&file)]), 1, &["6 rows", "refused", "raise"]);
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
    let name = "restore::on_a_full_disk_nothing_is_left_half_done";
    let Some(disk) = small_disk(name, 24) else { return };
    let mut node = TestNode::new().with("STORE_RESERVE", "1MiB");
    node.start();
    node.ok(&["provide", &cid("own")]);
    fill(&disk, 2 << 20);
    let listing = || fs::read_dir(&disk).unwrap().count();
    let dir = tempfile::tempdir_in(&disk).unwrap();
    let before = listing();
    // A backup that needs more space than there is.
    let output = node.cli_with_input(&["load", "-"], &dump(100));
    assert!(output.status.success(), "{}", text(&output));
    fill_to_the_brim(&disk);
    let file = dir.path().join("node.backup");
    fails(&node.cli(&["backup", "--records", path(&file)]), 73, &["node.backup", "free some space"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    fs::remove_file(disk.join("brim")).unwrap();
    assert_eq!(listing(), before);
    node.ok(&["backup", "--records", path(&file)]);
    // With less space than the reserve nothing is restored; with more, everything is.
    let target = TestNode::new();
    fails(&target.cli(&["restore", path(&file)]), 73, &["store.reserve"]);
    assert!(!target.dir().join("node").exists() && !target.dir().join(".dhtstore-restore").exists());
    free(&disk);
    let output = target.cli(&["--set", "store.reserve=1MiB", "restore", path(&file)]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(target.peer_id(), node.peer_id());
    assert_eq!(node.stop(), Some(0));
}

/// Fills the space that [`fill`] has left.
fn fill_to_the_brim(dir: &Path) {
    let mut file = fs::File::create(dir.join("brim")).unwrap();
    while std::io::Write::write(&mut file, &[1; 4096]).is_ok_and(|written| written == 4096) {}
}
