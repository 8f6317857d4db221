//! Exports of provider records by older versions: a start salvages the chunks that the log lacks, then removes the
//! exports. The last test shows the same for the log's own segments.

use dhtstore::{
    clock::ManualClock,
    store::{Settings, check, check::Level, stat_stopped},
};
use dhtstore_testkit::{files::fingerprint, store::*};
use std::{fs, path::Path, path::PathBuf, sync::Arc, time::Duration};

const TTL: Duration = Duration::from_secs(12 * 3600);

/// Adds a range of keys, announced by one peer. Every ten keys make a chunk.
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

/// Copies the exports of another node into a directory. Starting at [`T0`], [`fill`] added keys 0..60 of peer 1 to that
/// node. 600 s later, record 7 was removed, and keys 60..100 of peer 2 were added.
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

/// Returns a clock that stands 20 minutes after [`T0`]. The exports are older than that.
fn later() -> Arc<ManualClock> {
    let clock = clock();
    clock.advance(Duration::from_secs(1200));
    clock
}

/// Checks that all records of the exports are there, and that the removed one stays removed.
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
    assert_eq!(have(&node, 0..100, 1), 0, "their dates must stay the same");
}

#[tokio::test]
async fn exports_of_a_log_that_is_whole_change_nothing_and_are_removed() {
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
    // An older version renames an export like this when it finds damage.
    fs::write(first.with_extension("export.damaged"), bytes).unwrap();
    fs::remove_file(first).unwrap();
    let node = reopen(tmp.path(), &clock);
    assert_eq!(have(&node, 60..100, 2), 40);
    assert!(have(&node, 0..60, 1) >= 49, "{}", have(&node, 0..60, 1));
    assert_eq!(exports(tmp.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_kill_while_exports_are_read_loses_nothing() {
    let (tmp, clock) = (tempfile::tempdir().unwrap(), later());
    put_exports(tmp.path());
    let (images, mut dir) = (tempfile::tempdir().unwrap(), tmp.path().to_owned());
    for n in 0..4 {
        let node = open(&dir, Settings::default(), &clock);
        let next = images.path().join(n.to_string());
        // The store may remove exports during the copy. The copy gets them back, as if their removal had not reached
        // the disk.
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
async fn a_read_only_store_reads_exports_and_leaves_them() {
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
async fn exports_are_salvaged_into_a_new_log_with_other_peer_numbers() {
    let (tmp, clock) = (tempfile::tempdir().unwrap(), later());
    // The new log gives the old numbers to other peers, and another number to one of the old peers.
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
    assert_eq!(
        node.counter("salvaged_chunks"),
        41,
        "the ten removed chunks, the damaged one, and the 30 that name the removed peer"
    );
    node.close().await;
    let node = reopen(tmp.path(), &clock);
    assert_eq!((have(&node, 0..300, 1), have(&node, 300..600, 2)), (300, 300));
    assert_eq!(node.store.stat().notes, Vec::<String>::new());
}
