//! Exports of the provider records: what they hold, and that what the log loses comes back from them.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]
#![allow(dead_code, reason = "the support module serves several tests")]

#[path = "store_support/support.rs"]
mod support;

use dhtstore::{
    clock::{ManualClock, UnixTime},
    store::{Settings, load::Loader, records::ExportReport},
};
use std::{fs, path::Path, path::PathBuf, sync::Arc, time::Duration};
use support::*;

const TTL: Duration = Duration::from_secs(12 * 3600);

fn reopen(dir: &Path, clock: &Arc<ManualClock>) -> Node {
    let node = open(dir, Settings::default(), clock);
    node.wait_replayed();
    node
}

async fn export(node: &Node) -> ExportReport {
    let report = node.store.records.export().await.unwrap();
    assert_eq!(report.paused, None);
    report
}

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

/// Rows and bodies: what remains is in the exports.
fn lose_the_log(dir: &Path) {
    for part in ["records", "log"] {
        fs::remove_dir_all(dir.join(part)).unwrap();
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir.join("exports")).unwrap().flatten().map(|e| e.path());
    let is_segment = |p: &PathBuf| p.file_name().unwrap().to_string_lossy().starts_with("records-");
    let mut found: Vec<_> = paths.filter(is_segment).collect();
    found.sort();
    found
}

fn counter(node: &Node, name: &str) -> u64 {
    node.store.stat().counters[name]
}

#[tokio::test]
async fn a_record_is_exported_once_and_for_as_long_as_it_lives() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    let node = reopen(tmp.path(), &clock);
    fill(&node, 0..500, 1).await;
    let first = export(&node).await;
    assert_eq!((first.segments, first.chunks, first.peers), (1, 50, 1));
    assert!(first.bytes < 500 * 40 + 50 * 40 + 300, "{first:?}");
    assert_eq!(export(&node).await.chunks, 0, "nothing is new");
    node.advance(3600);
    fill(&node, 500..600, 2).await;
    let second = export(&node).await;
    assert_eq!((second.segments, second.chunks, second.peers), (1, 10, 1));
    assert_eq!(counter(&node, "exported_chunks"), 60);
    assert_eq!(segments(tmp.path()).len(), 2);
    // A restart neither repeats nor forgets.
    node.close().await;
    let node = reopen(tmp.path(), &clock);
    assert_eq!(export(&node).await.chunks, 0);
    assert!(node.store.stat().exported_to > Some(T0 + 3600));
    node.advance(TTL.as_secs() - 1800);
    assert_eq!(export(&node).await.removed, 1);
    node.advance(3600);
    assert_eq!(export(&node).await.removed, 1);
    assert_eq!(segments(tmp.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn what_was_exported_comes_back_and_what_was_removed_does_not() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    let node = reopen(tmp.path(), &clock);
    fill(&node, 0..300, 1).await;
    export(&node).await;
    node.advance(600);
    assert!(node.store.records.remove(&multihash(7), &peer(1).id).await);
    fill(&node, 300..400, 2).await;
    export(&node).await;
    node.advance(600);
    fill(&node, 400..450, 3).await;
    node.close().await;
    lose_the_log(tmp.path());

    let node = reopen(tmp.path(), &clock);
    assert_eq!((have(&node, 0..300, 1), have(&node, 300..400, 2), have(&node, 400..450, 3)), (299, 100, 0));
    assert!(node.found(7).is_empty(), "a removal was exported, and is forgotten");
    assert_eq!(node.store.records.addresses(&peer(1).id), Some(peer(1).addrs));
    let notes = node.store.stat().notes;
    assert!(notes.iter().any(|n| n.contains("records/ is not there")), "{notes:?}");
    assert!(notes.iter().any(|n| n.contains("were restored from exports/")), "{notes:?}");
    assert!(notes.iter().any(|n| n.contains("are lost until they are announced again")), "{notes:?}");
    assert_eq!(counter(&node, "restored_chunks"), 40);
    assert_eq!(counter(&node, "lost_chunks"), 5);
    // It is in the log again, and goes on from there.
    fill(&node, 400..410, 4).await;
    node.close().await;
    let node = reopen(tmp.path(), &clock);
    assert_eq!(node.store.stat().notes, Vec::<String>::new());
    assert_eq!(counter(&node, "restored_chunks"), 0);
    assert_eq!((have(&node, 0..300, 1), have(&node, 300..400, 2), have(&node, 400..410, 4)), (299, 100, 10));
    let _ = export(&node).await;
    // Chunks of the log and of segments are the same ones.
    assert_eq!(counter(&node, "replayed_entries"), 411);
}

#[tokio::test]
async fn a_kill_during_a_restore_is_made_up_for() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    let node = reopen(tmp.path(), &clock);
    for part in 0..20 {
        fill(&node, part * 200..(part + 1) * 200, 1).await;
        node.advance(100);
        export(&node).await;
    }
    node.close().await;
    lose_the_log(tmp.path());
    let mut image = tmp.path().to_owned();
    let images = tempfile::tempdir().unwrap();
    for n in 0..4 {
        let node = open(&image, Settings::default(), &clock);
        let next = images.path().join(n.to_string());
        kill(&image, &next);
        drop(node);
        image = next;
    }
    let node = reopen(&image, &clock);
    assert_eq!(have(&node, 0..4000, 1), 4000);
    assert_eq!(counter(&node, "lost_chunks"), 0);
}

#[tokio::test]
async fn rows_missing_in_the_middle_of_the_log_and_of_the_address_book_come_back() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    let node = reopen(tmp.path(), &clock);
    fill(&node, 0..300, 1).await;
    fill(&node, 300..600, 2).await;
    export(&node).await;
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
    assert_eq!(counter(&node, "salvaged_chunks"), 41, "ten, the damaged one, and those of the peer");
    node.close().await;
    let node = reopen(tmp.path(), &clock);
    assert_eq!((have(&node, 0..300, 1), have(&node, 300..600, 2)), (300, 300));
    assert_eq!(node.store.stat().notes, Vec::<String>::new());
}

#[tokio::test]
async fn a_damaged_export_gives_what_can_be_read_and_is_written_anew() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    let node = reopen(tmp.path(), &clock);
    fill(&node, 0..300, 1).await;
    export(&node).await;
    node.close().await;
    lose_the_log(tmp.path());
    let segment = segments(tmp.path()).remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&segment, bytes).unwrap();
    let node = reopen(tmp.path(), &clock);
    assert_eq!(have(&node, 0..300, 1), 290);
    assert_eq!(counter(&node, "lost_chunks"), 1);
    let notes = node.store.stat().notes;
    assert!(notes.iter().any(|n| n.contains("checksum")), "{notes:?}");
    let report = export(&node).await;
    assert_eq!(report.chunks, 29);
    let names: Vec<_> = segments(tmp.path()).iter().map(|p| p.extension().unwrap().to_owned()).collect();
    assert_eq!(names, ["export", "damaged"], "the damaged one is kept");
    node.advance(TTL.as_secs() + 60);
    assert_eq!(export(&node).await.removed, 2);
}

#[tokio::test]
async fn exports_of_a_log_that_was_begun_anew_meanwhile_fit_it_all_the_same() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    let node = reopen(tmp.path(), &clock);
    fill(&node, 0..100, 1).await;
    fill(&node, 100..200, 2).await;
    export(&node).await;
    node.close().await;
    let (exports, away) = (tmp.path().join("exports"), tmp.path().join("away"));
    fs::rename(&exports, &away).unwrap();
    lose_the_log(tmp.path());
    // The same numbers, other peers; and one of the old ones under another number.
    let node = reopen(tmp.path(), &clock);
    fill(&node, 200..300, 3).await;
    fill(&node, 300..400, 1).await;
    node.close().await;
    // There is none without own CIDs and without an export.
    assert!(!exports.exists());
    fs::rename(&away, &exports).unwrap();
    for restored in [20, 0] {
        let node = reopen(tmp.path(), &clock);
        let found = [(0, 1), (100, 2), (200, 3), (300, 1)].map(|(from, by)| have(&node, from..from + 100, by));
        assert_eq!(found, [100; 4]);
        assert_eq!(counter(&node, "restored_chunks"), restored);
        node.close().await;
    }
}

#[tokio::test]
async fn after_a_step_of_the_clock_exports_hold_the_dates_of_the_log() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    clock.set_wall(UnixTime(T0 + 7 * 24 * 3600));
    let node = reopen(tmp.path(), &clock);
    fill(&node, 0..100, 1).await;
    export(&node).await;
    // A week back: believed after ten minutes, then everything is dated anew.
    clock.set_wall(UnixTime(T0));
    node.store.records.collect_garbage().await.unwrap();
    node.advance(700);
    node.store.records.collect_garbage().await.unwrap();
    node.store.flush().await.unwrap();
    let report = export(&node).await;
    assert_eq!((report.segments, report.removed), (1, 1));
    assert!(node.store.stat().exported_to < Some(T0 + 3600));
    node.close().await;
    lose_the_log(tmp.path());
    let node = reopen(tmp.path(), &clock);
    assert_eq!(have(&node, 0..100, 1), 100);
    node.advance(TTL.as_secs());
    assert_eq!(have(&node, 0..100, 1), 0, "nothing lives for ever");
}

#[tokio::test]
async fn an_export_waits_for_space_on_the_disk() {
    let tmp = tempfile::tempdir().unwrap();
    let node = open(tmp.path(), Settings { reserve: u64::MAX, ..Settings::default() }, &clock());
    node.wait_replayed();
    let report = node.store.records.export().await.unwrap();
    assert!(report.paused.unwrap().contains("free some space"));
}

/// Loads one record from a dump: `key` of `peer(by)`, announced at `time`.
async fn load(node: &Node, key: u32, by: u8, time: u32) {
    let (cid, peer) =
        (cid::Cid::new_v1(0x55, cid::multihash::Multihash::from_bytes(&multihash(key)).unwrap()), peer(by));
    let line = format!(
        r#"{{"table":"providers","cid":"{cid}","provider":"{}","addresses":["{}"],"received":"{}"}}"#,
        peer.id,
        peer.addrs[0],
        UnixTime(time)
    );
    let store = node.store.clone();
    let load = move || Loader::new(store).load(line.as_bytes(), 1, false).unwrap();
    assert_eq!(tokio::task::spawn_blocking(load).await.unwrap().rows("loaded"), 1);
    node.store.flush().await.unwrap();
}

/// Whether the export comes in the same run as the load, or after a restart.
#[tokio::test]
async fn what_is_loaded_behind_an_export_is_exported_as_well() {
    for restart in [false, true] {
        let tmp = tempfile::tempdir().unwrap();
        let clock = clock();
        let mut node = reopen(tmp.path(), &clock);
        fill(&node, 0..500, 1).await;
        export(&node).await;
        load(&node, 1000, 2, T0 + 20).await;
        if restart {
            node.close().await;
            node = reopen(tmp.path(), &clock);
        }
        assert_eq!(export(&node).await.chunks, 51, "restart: {restart}");
        assert_eq!(segments(tmp.path()).len(), 1, "the old one is not needed any more");
        assert_eq!(export(&node).await.chunks, 0, "restart: {restart}");
        node.close().await;
        lose_the_log(tmp.path());
        let node = reopen(tmp.path(), &clock);
        assert_eq!((have(&node, 0..500, 1), have(&node, 1000..1001, 2)), (500, 1), "restart: {restart}");
        node.close().await;
    }
}
