//! Tests of a real node on a full file system.

use crate::harness::{TestNode, cid, eventually, fails, fingerprint, multihash, text};
use dhtstore_testkit::{
    kad_peer::KadPeer,
    small_disk::{fill, free, small_disk, small_disk_with},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

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
    // Commands need some space themselves.
    fill(&disk, 1 << 20);
    eventually("stat says it", limit, || notes().contains("announcements are refused, stored records are served"));
    peer.announce(&multihash("meanwhile")).await;
    let refused = || node.rows(&["stat"])[0]["store"]["counters"]["refused_read_only"].as_u64().unwrap_or(0);
    eventually("it is refused", limit, || refused() > 0);
    // FIND_NODE (as for the bootstrap of a new node) and GET_PROVIDERS are answered.
    let asker = KadPeer::client_of(node.peer_id(), node.multiaddr()).await;
    assert_eq!(asker.find_providers(&multihash("before")).await, vec![peer.id]);
    assert!(node.held(&cid("meanwhile")).is_empty());
    free(&disk);
    eventually("stat is quiet", limit, || notes() == "[]");
    assert!(peer.announce(&multihash("after")).await);
    eventually("announcements are taken again", limit, || node.held(&cid("after")).len() == 1);
    assert_eq!(node.stop(), Some(0));
}

const LIMIT: Duration = Duration::from_secs(20);

/// Checks that a node starts, serves and stops while `full` fills the disk, and that it accepts announcements after
/// `give_back`.
async fn starts_on_a_disk_without_room(full: impl Fn(), give_back: impl Fn()) {
    let mut node = TestNode::new().with("STORE_RESERVE", "1MiB");
    // The log of the node must not need space on the full disk.
    let start = |node: &mut TestNode| node.start_logging_to(Stdio::null(), Stdio::null());
    start(&mut node);
    let peer = KadPeer::client_of(node.peer_id(), node.multiaddr()).await;
    assert!(peer.announce(&multihash("before")).await);
    node.ok(&["provide", &cid("own")]);
    eventually("the first is held", LIMIT, || node.held(&cid("before")).len() == 1);
    let ballast = node.dir().join("ballast");
    let pieces = || fs::read_dir(&ballast).map_or(0, |found| found.count());
    eventually("there is ballast", LIMIT, || pieces() == 16);
    assert_eq!(node.stop(), Some(0));
    full();
    // After kills and after clean stops, each start has space.
    for round in 0..3 {
        start(&mut node);
        let peer = KadPeer::client_of(node.peer_id(), node.multiaddr()).await;
        assert!(!peer.find_providers(&multihash("before")).await.is_empty(), "round {round}: what is stored is served");
        assert_eq!(node.rows(&["provided", "--format", "ndjson"]).len(), 1);
        peer.announce(&multihash("meanwhile")).await;
        let stat = || node.rows(&["stat"]).remove(0);
        let refused = || stat()["store"]["counters"]["refused_read_only"].as_u64().unwrap_or(0);
        eventually("it is refused", LIMIT, || {
            refused() > 0 || !stat()["store"]["notes"].as_array().unwrap().is_empty()
        });
        if round == 2 {
            break;
        }
        match round {
            0 => node.kill(),
            _ => drop(node.stop()),
        }
        full();
    }
    give_back();
    let peer = KadPeer::client_of(node.peer_id(), node.multiaddr()).await;
    eventually("stat is quiet", LIMIT, || node.rows(&["stat"])[0]["store"]["notes"] == serde_json::json!([]));
    assert!(peer.announce(&multihash("after")).await);
    eventually("announcements are taken again", LIMIT, || node.held(&cid("after")).len() == 1);
    eventually("there is ballast again", LIMIT, || pieces() == 16);
    assert_eq!(node.stop(), Some(0));
    let check = node.cli(&["check"]);
    assert!(check.status.success(), "{}", text(&check));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_disk_serves_refuses_and_recovers() {
    let name = "disk::a_start_on_a_full_disk_serves_refuses_and_recovers";
    let Some(disk) = small_disk(name, 32) else { return };
    let full = || fill(&disk, 0);
    starts_on_a_disk_without_room(full, || free(&disk)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_inodes_serves_refuses_and_recovers() {
    let name = "disk::a_start_without_inodes_serves_refuses_and_recovers";
    let Some(disk) = small_disk_with(name, "size=64m,nr_inodes=150") else { return };
    let many = disk.join("many");
    let full = || {
        let _ = fs::create_dir(&many);
        (0..)
            .take_while(|n| fs::write(many.join(format!("{}-{n}", std::process::id())), []).is_ok() || *n < 40)
            .count();
    };
    starts_on_a_disk_without_room(full, || fs::remove_dir_all(&many).unwrap()).await;
}

#[test]
fn a_first_start_on_a_full_disk_is_73_and_says_why() {
    let name = "disk::a_first_start_on_a_full_disk_is_73_and_says_why";
    let Some(disk) = small_disk(name, 8) else { return };
    let node = TestNode::new();
    fill(&disk, 0);
    let run = ["run", "--listen", "/ip4/127.0.0.1/tcp/0"];
    for command in [&run[..], &["init"]] {
        fails(&node.cli(command), 73, &["space", "free some"]);
    }
    assert!(!node.dir().join("identity.key").exists());
    // The same with an existing identity and no database yet.
    free(&disk);
    node.ok(&["init"]);
    fill(&disk, 0);
    fails(&node.cli(&run), 73, &["space", "free some"]);
}

/// A data directory of an earlier version has no ballast.
#[test]
fn a_start_on_a_full_disk_without_ballast_is_73_changes_nothing_and_works_once_there_is_space() {
    let name = "disk::a_start_on_a_full_disk_without_ballast_is_73_changes_nothing_and_works_once_there_is_space";
    let Some(disk) = small_disk(name, 32) else { return };
    let mut node = TestNode::started();
    node.ok(&["provide", &cid("own")]);
    assert_eq!(node.stop(), Some(0));
    let _ = fs::remove_dir_all(node.dir().join("ballast"));
    let before = fingerprint(&node.dir());
    fill(&disk, 0);
    fails(&node.cli(&["run", "--listen", "/ip4/127.0.0.1/tcp/0"]), 73, &["no space", "free some"]);
    let own = |files: BTreeMap<PathBuf, String>| {
        files
            .into_iter()
            .filter(|(path, _)| path.components().any(|part| part.as_os_str() == "exports"))
            .collect::<Vec<_>>()
    };
    assert_eq!(own(fingerprint(&node.dir())), own(before));
    free(&disk);
    node.start();
    assert_eq!(node.rows(&["provided", "--format", "ndjson"]).len(), 1);
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn a_start_on_a_read_only_disk_is_73_says_so_and_works_once_it_is_writable() {
    let name = "disk::a_start_on_a_read_only_disk_is_73_says_so_and_works_once_it_is_writable";
    let Some(disk) = small_disk(name, 32) else { return };
    let mut node = TestNode::started();
    node.ok(&["provide", &cid("own")]);
    assert_eq!(node.stop(), Some(0));
    let remount = |how: &str| {
        let status = Command::new("mount").args(["-o", &format!("remount,bind,{how}")]).arg(&disk).status().unwrap();
        assert!(status.success());
    };
    remount("ro");
    let output = node.cli(&["run", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    remount("rw");
    fails(&output, 73, &["read-only"]);
    node.start();
    assert_eq!(node.rows(&["provided", "--format", "ndjson"]).len(), 1);
    assert_eq!(node.stop(), Some(0));
}

/// Mounts a tmpfs over a directory and keeps its contents.
fn mount_over(dir: &Path, mebibytes: u32) {
    let aside = dir.with_extension("aside");
    fs::rename(dir, &aside).unwrap();
    fs::create_dir(dir).unwrap();
    let options = format!("size={mebibytes}m,mode=700");
    assert!(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(dir).status().unwrap().success());
    let from: PathBuf = aside.join(".");
    assert!(Command::new("cp").arg("-a").arg(from).arg(dir).status().unwrap().success());
    fs::remove_dir_all(aside).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_databases_on_full_disks_of_their_own_serves_and_recovers() {
    let name = "disk::a_start_with_databases_on_full_disks_of_their_own_serves_and_recovers";
    let Some(_disk) = small_disk(name, 48) else { return };
    let mut node = TestNode::new().with("STORE_RESERVE", "1MiB");
    node.start();
    let peer = KadPeer::client_of(node.peer_id(), node.multiaddr()).await;
    assert!(peer.announce(&multihash("before")).await);
    eventually("the first is held", LIMIT, || node.held(&cid("before")).len() == 1);
    assert_eq!(node.stop(), Some(0));
    let parts = ["records", "node"].map(|part| node.dir().join(part));
    parts.iter().for_each(|part| mount_over(part, 24));
    node.start();
    let pieces = |dir: &Path| fs::read_dir(dir.join("ballast")).map_or(0, |found| found.count());
    eventually("each has ballast", LIMIT, || parts.iter().all(|part| pieces(part) == 16));
    assert_eq!(node.stop(), Some(0));
    parts.iter().for_each(|part| fill(part, 0));
    node.start();
    let peer = KadPeer::client_of(node.peer_id(), node.multiaddr()).await;
    assert!(!peer.find_providers(&multihash("before")).await.is_empty());
    let notes = || node.rows(&["stat"])[0]["store"]["notes"].to_string();
    eventually("stat says it", LIMIT, || notes().contains("announcements are refused"));
    parts.iter().for_each(|part| fs::remove_file(part.join("ballast-of-others")).unwrap());
    eventually("stat is quiet", LIMIT, || notes() == "[]");
    assert!(peer.announce(&multihash("after")).await);
    eventually("announcements are taken again", LIMIT, || node.held(&cid("after")).len() == 1);
    assert_eq!(node.stop(), Some(0));
}
