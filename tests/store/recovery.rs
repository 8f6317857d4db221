//! Known failures of sled, caused on purpose: intact data comes back, losses are reported, and later starts lose
//! nothing more.

use dhtstore::{
    clock::{ManualClock, UnixTime},
    kad::Dht,
    store::{Settings, Store, StoreError, data_dir::Lock, routing::SavedPeer},
};
use dhtstore_testkit::store::*;
use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

const RECORDS: u32 = 20_000;
const OWN: u32 = 600;

fn saved() -> Vec<SavedPeer> {
    (0..50).map(|n| SavedPeer { peer: peer(n), heard: UnixTime(T0) }).collect()
}

/// Fills a directory with records, own CIDs and a routing table, and closes it cleanly.
async fn filled(dir: &Path) -> Arc<ManualClock> {
    let clock = clock();
    let node = open(dir, Settings::default(), &clock);
    for key in 0..RECORDS {
        node.add(key, &peer((key % 20) as u8)).await.unwrap();
        if key % 1000 == 0 {
            node.advance(1);
        }
    }
    node.store.provided.add((0..OWN).map(own_cid).collect()).await.unwrap();
    node.store.routing.save(Dht::Wan, saved()).await.unwrap();
    node.close().await;
    clock
}

fn records(node: &Node) -> usize {
    (0..RECORDS).filter(|key| !node.found(*key).is_empty()).count()
}

fn snapshots(dir: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(dir).unwrap().flatten().map(|e| e.path());
    names.filter(|p| p.file_name().unwrap().to_string_lossy().starts_with("snap.")).collect()
}

fn set_aside(dir: &Path, name: &str) -> usize {
    let names = fs::read_dir(dir).unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    names.filter(|n| n.starts_with(&format!("{name}.damaged-"))).count()
}

fn zero(file: &Path, at: u64, bytes: usize) {
    OpenOptions::new().write(true).open(file).unwrap().write_all_at(&vec![0; bytes], at).unwrap();
}

fn assert_own_is_whole(node: &Node) {
    assert_eq!(node.store.provided.len(), OWN as usize);
    assert!((0..OWN).all(|n| node.store.provided.contains(&multihash(n))));
}

#[tokio::test]
async fn a_snapshot_that_was_never_finished_does_no_harm() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = filled(tmp.path()).await;
    for (name, bytes) in [("records", &b""[..]), ("node", &b"torn"[..])] {
        fs::write(tmp.path().join(name).join("snap.00000000FFFFFFFF.generating"), bytes).unwrap();
    }
    let node = reopen(tmp.path(), &clock);
    assert_eq!(records(&node), RECORDS as usize);
    assert_own_is_whole(&node);
    assert_eq!(node.store.stat().notes, Vec::<String>::new());
}

#[tokio::test]
async fn a_torn_snapshot_is_recovered_on_a_copy_and_the_original_kept() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = filled(tmp.path()).await;
    // sled writes its snapshot when it is opened.
    reopen(tmp.path(), &clock).close().await;
    let snapshots = snapshots(&tmp.path().join("records"));
    assert!(!snapshots.is_empty());
    for snapshot in snapshots {
        let len = fs::metadata(&snapshot).unwrap().len();
        OpenOptions::new().write(true).open(&snapshot).unwrap().set_len(len / 2).unwrap();
    }
    let node = reopen(tmp.path(), &clock);
    assert_eq!(records(&node), RECORDS as usize);
    let notes = node.store.stat().notes;
    assert!(notes[0].contains("it holds everything"), "{notes:?}");
    assert_eq!(set_aside(tmp.path(), "records"), 1);
    assert!(!tmp.path().join("records.recovering").exists());
    assert_own_is_whole(&node);
}

#[tokio::test]
async fn zeros_in_the_middle_of_records_cost_no_record_and_no_own_cid() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = filled(tmp.path()).await;
    let db = tmp.path().join("records/db");
    for part in 1..8 {
        zero(&db, fs::metadata(&db).unwrap().len() * part / 8, 4096);
    }
    let node = reopen(tmp.path(), &clock);
    assert_own_is_whole(&node);
    assert_eq!(records(&node), RECORDS as usize, "{:?}", node.store.stat().notes);
    // The store takes new records, and keeps them.
    node.add(RECORDS + 1, &peer(1)).await.unwrap();
    node.close().await;
    let node = reopen(tmp.path(), &clock);
    assert_eq!(node.found(RECORDS + 1), [peer(1).id]);
    assert_eq!(records(&node), RECORDS as usize);
}

#[tokio::test]
async fn a_truncated_database_is_noticed_by_the_floor_and_the_log_gives_back_what_it_held() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = filled(tmp.path()).await;
    let db = tmp.path().join("records/db");
    let len = fs::metadata(&db).unwrap().len();
    OpenOptions::new().write(true).open(&db).unwrap().set_len(len / 2).unwrap();
    let node = reopen(tmp.path(), &clock);
    let notes = node.store.stat().notes;
    assert!(!notes.is_empty());
    assert_own_is_whole(&node);
    node.close().await;
    assert_eq!(records(&reopen(tmp.path(), &clock)), RECORDS as usize, "{notes:?}");
}

#[tokio::test]
async fn an_emptied_database_is_noticed_by_the_floor_and_filled_from_the_log() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = filled(tmp.path()).await;
    fs::remove_dir_all(tmp.path().join("records")).unwrap();
    // A valid database without rows, as sled leaves one when it cuts its file.
    let other = tempfile::tempdir().unwrap();
    open(other.path(), Settings::default(), &clock).close().await;
    fs::rename(other.path().join("records"), tmp.path().join("records")).unwrap();
    let node = reopen(tmp.path(), &clock);
    assert_eq!(records(&node), RECORDS as usize);
    let notes = node.store.stat().notes;
    assert!(notes[0].contains("the log is empty, and went to"), "{notes:?}");
    assert_eq!(set_aside(tmp.path(), "records"), 1);
}

#[tokio::test]
async fn what_has_expired_meanwhile_is_not_missed() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = filled(tmp.path()).await;
    clock.advance(std::time::Duration::from_secs(13 * 3600));
    fs::remove_dir_all(tmp.path().join("records")).unwrap();
    let node = reopen(tmp.path(), &clock);
    assert_eq!(node.store.stat().notes, Vec::<String>::new());
}

#[tokio::test]
async fn a_crash_between_the_renames_of_a_recovery_is_finished() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = filled(tmp.path()).await;
    fs::rename(tmp.path().join("records"), tmp.path().join("records.recovering")).unwrap();
    let node = reopen(tmp.path(), &clock);
    assert_eq!(records(&node), RECORDS as usize);
    assert!(!tmp.path().join("records.recovering").exists());
}

#[tokio::test]
async fn own_cids_and_routing_survive_any_damage_to_node() {
    let whole = tempfile::tempdir().unwrap();
    let clock = filled(whole.path()).await;
    type Damage = (&'static str, fn(&Path));
    let damages: [Damage; 5] = [
        ("zeros", |node| {
            let db = node.join("db");
            let len = fs::metadata(&db).unwrap().len();
            (0..len / 16384).for_each(|n| zero(&db, n * 16384 + 8192, 4096));
        }),
        ("truncated", |node| {
            let db = node.join("db");
            let len = fs::metadata(&db).unwrap().len();
            OpenOptions::new().write(true).open(&db).unwrap().set_len(len / 3).unwrap();
        }),
        ("emptied", |node| fs::write(node.join("db"), b"").unwrap()),
        ("garbage", |node| fs::write(node.join("db"), vec![0xa5; 1 << 20]).unwrap()),
        ("removed", |node| fs::remove_dir_all(node).unwrap()),
    ];
    for (name, damage) in damages {
        let tmp = tempfile::tempdir().unwrap();
        kill(whole.path(), tmp.path());
        damage(&tmp.path().join("node"));
        let node = reopen(tmp.path(), &clock);
        assert_own_is_whole(&node);
        assert!(node.store.routing.load(Dht::Wan) == saved(), "{name}");
        assert_eq!(records(&node), RECORDS as usize, "{name}");
        assert!(!node.store.stat().notes.is_empty(), "{name}");
        node.close().await;
        let node = reopen(tmp.path(), &clock);
        assert_own_is_whole(&node);
        assert_eq!(node.store.stat().notes, Vec::<String>::new(), "{name}: the second start must not report it again");
    }
}

#[tokio::test]
async fn own_cids_outlive_a_damaged_export_as_well() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = filled(tmp.path()).await;
    // Make a second export, and then changes that only a journal has.
    let node = reopen(tmp.path(), &clock);
    node.store.provided.add((OWN..OWN + 10).map(own_cid).collect()).await.unwrap();
    node.close().await;
    let node = reopen(tmp.path(), &clock);
    node.store.provided.add((OWN + 10..OWN + 20).map(own_cid).collect()).await.unwrap();
    node.store.provided.add((OWN + 20..OWN + 30).map(own_cid).collect()).await.unwrap();
    node.store.provided.remove((0..5).map(multihash).collect()).await.unwrap();
    let image = tmp.path().join("image");
    fs::create_dir(&image).unwrap();
    for part in ["node", "records", "exports"] {
        kill(&tmp.path().join(part), &image.join(part));
    }
    drop(node);
    fs::remove_dir_all(image.join("node")).unwrap();
    let newest = fs::read_dir(image.join("exports")).unwrap().flatten().map(|e| e.path());
    let newest = newest.filter(|p| p.extension().is_some_and(|e| e == "export")).max().unwrap();
    zero(&newest, 100, 50);
    let node = reopen(&image, &clock);
    let have = |n| node.store.provided.contains(&multihash(n));
    assert!((5..OWN + 30).all(have));
    assert!(!(0..5).any(have), "removed CIDs must stay removed");
}

#[tokio::test]
async fn a_torn_journal_costs_nothing_that_was_acknowledged() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    let node = open(tmp.path(), Settings::default(), &clock);
    node.store.provided.add(vec![own_cid(1)]).await.unwrap();
    node.store.provided.add(vec![own_cid(2)]).await.unwrap();
    let image = tmp.path().join("image");
    kill(&tmp.path().join("exports"), &image.join("exports"));
    drop(node);
    let journal = fs::read_dir(image.join("exports")).unwrap().flatten().map(|e| e.path());
    let journal = journal.filter(|p| p.extension().is_some_and(|e| e == "journal")).max().unwrap();
    let mut bytes = fs::read(&journal).unwrap();
    bytes.extend_from_slice(&[40, 0, 0, 0, 1, 2, 3, 4, 1]);
    fs::write(&journal, bytes).unwrap();
    let node = reopen(&image, &clock);
    assert_eq!(node.store.provided.len(), 2);
    node.store.provided.add(vec![own_cid(3)]).await.unwrap();
    drop(node);
    fs::remove_dir_all(image.join("node")).unwrap();
    assert_eq!(reopen(&image, &clock).store.provided.len(), 3);
}

#[tokio::test]
async fn originals_set_aside_are_bounded() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = filled(tmp.path()).await;
    for _ in 0..4 {
        fs::write(tmp.path().join("records/db"), vec![0xa5; 1 << 20]).unwrap();
        let node = reopen(tmp.path(), &clock);
        node.add(1, &peer(1)).await.unwrap();
        node.close().await;
    }
    assert_eq!(set_aside(tmp.path(), "records"), 2);
}

#[test]
fn a_database_of_a_later_version_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let db = sled::open(tmp.path().join("node")).unwrap();
    db.open_tree("meta").unwrap().insert("schema", &[1, 99]).unwrap();
    drop(db);
    let lock = Lock::acquire(tmp.path()).unwrap();
    let outcome = Store::open(&lock, Settings::default(), clock());
    assert!(matches!(outcome, Err(StoreError::FromTheFuture { found: 99, known: 3 })));
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_an_error_and_not_damage() {
    let tmp = tempfile::tempdir().unwrap();
    filled(tmp.path()).await;
    fs::remove_dir_all(tmp.path().join("records")).unwrap();
    fs::write(tmp.path().join("records"), b"in the way").unwrap();
    let lock = Lock::acquire(tmp.path()).unwrap();
    assert!(Store::open(&lock, Settings::default(), clock()).is_err());
    assert_eq!(fs::read(tmp.path().join("records")).unwrap(), b"in the way");
}
