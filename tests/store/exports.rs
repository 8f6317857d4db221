//! Exports of provider records, as older versions made them: what the log lacks is taken from them once, then they go. And what
//! the log's own segments give back.

use dhtstore::{
    clock::ManualClock,
    store::{Settings, check, check::Level, stat_stopped},
};
use dhtstore_testkit::{files::fingerprint, store::*};
use std::{fs, path::Path, path::PathBuf, sync::Arc, time::Duration};

const TTL: Duration = Duration::from_secs(12 * 3600);

/// Adds a range of keys by one peer, a chunk for each ten.
async fn fill(node: &Node, keys: std::ops::Range<u32>, by: u8) {
    for key in keys {
        node.add(key, &peer(by)).await.unwrap();
        if key % 10 == 9 {
            node.advance(1);
        }
    }
    node.store.flush().await.unwrap();
}

fn have(node: &Node, keys: std::ops::Range<u32>, by: u8) -> usize {
    keys.filter(|key| node.found(*key) == [peer(by).id]).count()
}

/// Puts the exports of a node that had [`fill`]ed 0..60 by peer 1, then removed record 7, 600 s later, and filled 60..100 by
/// peer 2, from [`T0`] on.
fn put_exports(dir: &Path) {
    fs::create_dir_all(dir.join("exports")).unwrap();
    for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/exports")).unwrap().flatten() {
        fs::copy(entry.path(), dir.join("exports").join(entry.file_name())).unwrap();
    }
}

fn exports(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir.join("exports")).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_export = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("records-");
    let mut found: Vec<_> = paths.filter(is_export).collect();
    found.sort();
    found
}

/// Some time after the exports were made.
fn later() -> Arc<ManualClock> {
    let clock = clock();
    clock.advance(Duration::from_secs(1200));
    clock
}

/// All of the exports, and what was removed stays removed.
fn assert_all(node: &Node) {
    assert_eq!((have(node, 0..60, 1), have(node, 60..100, 2)), (59, 40));
    assert!(node.found(7).is_empty());
    assert_eq!(node.store.records.addresses(&peer(1).id), Some(peer(1).addrs));
}

#[tokio::test]
async fn what_the_log_lacks_comes_back_once_and_the_exports_go() {
    let (tmp, clock) = (tempfile::tempdir().unwrap(), later());
    put_exports(tmp.path());
    let node = reopen(tmp.path(), &clock);
    assert_all(&node);
    let notes = node.store.stat().notes;
    assert!(notes.iter().any(|note| note.contains("10 chunks") && note.contains("exports/")), "{notes:?}");
    assert_eq!(exports(tmp.path()), Vec::<PathBuf>::new());
    fill(&node, 200..210, 3).await;
    node.close().await;
    let node = reopen(tmp.path(), &clock);
    assert_all(&node);
    assert_eq!((have(&node, 200..210, 3), node.counter("salvaged_chunks")), (10, 0));
    assert_eq!(node.store.stat().notes, Vec::<String>::new());
    node.advance(TTL.as_secs());
    assert_eq!(have(&node, 0..100, 1), 0, "they expire as they would have");
}

#[tokio::test]
async fn beside_a_log_that_has_it_all_they_change_nothing_and_go() {
    let (tmp, clock) = (tempfile::tempdir().unwrap(), later());
    put_exports(tmp.path());
    reopen(tmp.path(), &clock).close().await;
    put_exports(tmp.path());
    let node = reopen(tmp.path(), &clock);
    assert_all(&node);
    assert_eq!((node.counter("salvaged_chunks"), exports(tmp.path())), (0, Vec::new()));
    assert_eq!(node.store.stat().notes, Vec::<String>::new());
}

#[tokio::test]
async fn a_damaged_export_gives_what_can_be_read() {
    let (tmp, clock) = (tempfile::tempdir().unwrap(), later());
    put_exports(tmp.path());
    let first = exports(tmp.path()).remove(0);
    let mut bytes = fs::read(&first).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    // A start of an older version had found it so.
    fs::write(first.with_extension("export.damaged"), bytes).unwrap();
    fs::remove_file(first).unwrap();
    let node = reopen(tmp.path(), &clock);
    assert_eq!(have(&node, 60..100, 2), 40);
    assert!(have(&node, 0..60, 1) >= 49, "{}", have(&node, 0..60, 1));
    assert_eq!(exports(tmp.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_kill_while_they_are_read_is_made_up_for() {
    let (tmp, clock) = (tempfile::tempdir().unwrap(), later());
    put_exports(tmp.path());
    let (images, mut dir) = (tempfile::tempdir().unwrap(), tmp.path().to_owned());
    for n in 0..4 {
        let node = open(&dir, Settings::default(), &clock);
        let next = images.path().join(n.to_string());
        // A copy takes time, in which exports may go: they stay, as though their end had not come to the disk.
        for part in ["node", "records", "log"].into_iter().filter(|part| dir.join(part).exists()) {
            kill(&dir.join(part), &next.join(part));
        }
        put_exports(&next);
        drop(node);
        dir = next;
    }
    assert_all(&reopen(&dir, &clock));
}

#[tokio::test]
async fn who_only_reads_a_directory_sees_them_and_leaves_them() {
    let (tmp, clock) = (tempfile::tempdir().unwrap(), later());
    reopen(tmp.path(), &clock).close().await;
    put_exports(tmp.path());
    let now = dhtstore::clock::Clock::wall(&*clock);
    let before = fingerprint(tmp.path());
    assert_eq!(stat_stopped(tmp.path(), Settings::default(), now).unwrap().records, 99);
    let found = check::stopped(tmp.path(), TTL, now).unwrap();
    assert!(found.iter().all(|finding| finding.level != Level::Damaged), "{found:?}");
    assert!(found.iter().any(|finding| finding.found.contains("2 exports of provider records")), "{found:?}");
    assert_eq!(fingerprint(tmp.path()), before);
}

#[tokio::test]
async fn those_of_a_log_that_was_begun_anew_meanwhile_fit_it_all_the_same() {
    let (tmp, clock) = (tempfile::tempdir().unwrap(), later());
    // The same numbers, other peers; and one of the old ones under another number.
    let node = reopen(tmp.path(), &clock);
    fill(&node, 200..300, 3).await;
    fill(&node, 300..400, 1).await;
    node.close().await;
    put_exports(tmp.path());
    for brought_back in [10, 0] {
        let node = reopen(tmp.path(), &clock);
        assert_all(&node);
        assert_eq!((have(&node, 200..300, 3), have(&node, 300..400, 1)), (100, 100));
        assert_eq!(node.counter("salvaged_chunks"), brought_back);
        node.close().await;
    }
}

#[tokio::test]
async fn rows_missing_in_the_middle_of_the_log_and_of_the_address_book_come_back() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    let node = reopen(tmp.path(), &clock);
    fill(&node, 0..300, 1).await;
    fill(&node, 300..600, 2).await;
    node.close().await;
    {
        let db = sled::open(tmp.path().join("records")).unwrap();
        let log = db.open_tree("log").unwrap();
        let keys: Vec<_> = log.iter().keys().map(Result::unwrap).collect();
        keys[10..20].iter().for_each(|key| drop(log.remove(key).unwrap()));
        log.insert(&keys[25], b"no chunk").unwrap();
        let peers = db.open_tree("peers").unwrap();
        let last = peers.last().unwrap().unwrap().0;
        peers.remove(last).unwrap();
        db.flush().unwrap();
    }
    let node = reopen(tmp.path(), &clock);
    assert_eq!((have(&node, 0..300, 1), have(&node, 300..600, 2)), (300, 300));
    assert_eq!(node.counter("salvaged_chunks"), 41, "ten, the damaged one, and those of the peer");
    node.close().await;
    let node = reopen(tmp.path(), &clock);
    assert_eq!((have(&node, 0..300, 1), have(&node, 300..600, 2)), (300, 300));
    assert_eq!(node.store.stat().notes, Vec::<String>::new());
}
