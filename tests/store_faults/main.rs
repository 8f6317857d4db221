//! Disks that fail under a running store. The store still serves what it has, and accepts nothing that may be lost.
//! Once the disk works again, it goes on without a restart.
//!
//!     sudo DISK_TESTS=require cargo test --test store_faults
//!
//! The tests on a small file system need root or user namespaces. Without these they print that they were skipped.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, reason = "tests")]

use dhtstore::{
    kad::Dht,
    store::{Settings, records::Added, records::Refused, routing::SavedPeer},
};
use dhtstore_testkit::small_disk::{cannot, fill, free, inside, run_inside, small_disk};
use dhtstore_testkit::store::*;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Number of records that a file system of 24 MiB cannot hold.
const MANY: u32 = 2_000_000;

fn settings(reserve: u64) -> Settings {
    Settings { reserve, ..Settings::default() }
}

/// Polls until `condition` holds.
async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(40);
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Announces keys from `from` on until the store is read-only. Returns the first key that was refused.
async fn announce_until_refused(node: &Node, from: u32) -> u32 {
    for key in from..MANY {
        match node.add(key, &peer((key % 7) as u8)).await {
            Ok(_) => {}
            Err(Refused::ReadOnly) => return key,
            Err(other) => panic!("{other}"),
        }
        if key % 2000 == 0 {
            // Lets the writer run, and lets time pass for it.
            node.advance(1);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    panic!("never refused");
}

fn assert_all_served(node: &Node, keys: std::ops::Range<u32>) {
    let lost: Vec<u32> = keys.filter(|key| node.found(*key) != [peer((key % 7) as u8).id]).collect();
    assert!(lost.is_empty(), "{} lost, from {:?} to {:?}", lost.len(), lost.first(), lost.last());
}

/// Breaks the disk of a store during announcements, mends it, and checks that nothing accepted is lost.
async fn outlives(dir: &Path, break_it: impl Fn(), mend_it: impl Fn()) {
    let clock = clock();
    let node = open(dir, settings(0), &clock);
    for key in 0..10_000 {
        node.add(key, &peer((key % 7) as u8)).await.unwrap();
    }
    assert_eq!(node.store.provided.add((0..300).map(own_cid).collect()).await.unwrap(), 300);
    node.store
        .routing
        .save(Dht::Wan, vec![SavedPeer { peer: peer(1), heard: dhtstore::clock::UnixTime(T0) }])
        .await
        .unwrap();
    break_it();
    let accepted = announce_until_refused(&node, 10_000).await;
    assert_all_served(&node, 0..accepted);
    // Own CIDs are refused with an error, and none of them is stored.
    let own = node.store.provided.add((300..310).map(own_cid).collect()).await;
    assert!(own.as_ref().is_err_and(|error| error.to_string().contains("exports")), "{own:?}");
    assert_eq!(node.store.provided.len(), 300);
    assert!(node.store.routing.save(Dht::Lan, vec![]).await.is_err() || node.store.flush().await.is_err());
    let stat = node.store.stat();
    assert!(stat.notes.iter().any(|note| note.contains("records/ is read-only")), "{:?}", stat.notes);
    assert!(stat.counters["refused_read_only"] > 0 && stat.counters["records_database_failures"] > 0);
    let report = node.store.records.collect_garbage().await.unwrap();
    assert!(report.paused.is_some_and(|why| why.contains("is read-only")));
    // The store tries to reopen the database in this time, and must keep what was accepted.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(node.add(accepted, &peer(1)).await, Err(Refused::ReadOnly));
    mend_it();
    eventually("announcements are taken again", async || {
        node.add(accepted, &peer((accepted % 7) as u8)).await.is_ok() && node.store.flush().await.is_ok()
    })
    .await;
    let stat = node.store.stat();
    assert_eq!(stat.notes, Vec::<String>::new());
    assert!(stat.counters["records_database_reopened"] >= 1, "{:?}", stat.counters);
    for key in accepted..accepted + 5000 {
        node.add(key, &peer((key % 7) as u8)).await.unwrap();
    }
    node.store.provided.add((300..310).map(own_cid).collect()).await.unwrap();
    assert_all_served(&node, 0..accepted + 5000);
    node.close().await;
    let node = open(dir, settings(0), &clock);
    node.wait_replayed();
    assert_all_served(&node, 0..accepted + 5000);
    assert!((0..310).all(|n| node.store.provided.contains(&multihash(n))));
    assert_eq!(node.store.routing.load(Dht::Wan).len(), 1);
    assert_eq!(node.store.stat().notes, Vec::<String>::new());
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_filled_to_the_brim_loses_nothing_accepted_and_is_used_again_when_there_is_space() {
    let Some(disk) =
        small_disk("a_disk_filled_to_the_brim_loses_nothing_accepted_and_is_used_again_when_there_is_space", 24)
    else {
        return;
    };
    outlives(&disk.join("data"), || fill(&disk, 0), || free(&disk)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reserve_is_warned_of_refuses_and_takes_again() {
    let Some(disk) = small_disk("the_reserve_is_warned_of_refuses_and_takes_again", 24) else { return };
    const RESERVE: u64 = 2 << 20;
    let dir = disk.join("data");
    let clock = clock();
    let node = open(&dir, settings(RESERVE), &clock);
    for key in 0..30_000 {
        node.add(key, &peer((key % 7) as u8)).await.unwrap();
    }
    assert_eq!(node.store.stat().notes, Vec::<String>::new());
    fill(&disk, 4 << 20);
    eventually("the warning", async || {
        node.store.stat().notes.iter().any(|note| note.contains("announcements are refused: free some space"))
    })
    .await;
    assert_eq!(
        node.add(30_000, &peer((30_000 % 7) as u8)).await,
        Ok(Added::New),
        "after the warning, announcements are still accepted"
    );
    let accepted = announce_until_refused(&node, 30_001).await;
    assert_all_served(&node, 0..accepted);
    assert!(node.store.stat().notes.iter().any(|note| note.contains("announcements are refused, stored records")));
    // Own CIDs are still accepted.
    node.store.provided.add((0..100).map(own_cid).collect()).await.unwrap();
    node.store.flush().await.unwrap();
    free(&disk);
    eventually("announcements are taken again", async || node.add(accepted, &peer((accepted % 7) as u8)).await.is_ok())
        .await;
    assert_eq!(
        node.store.stat().counters["records_database_failures"],
        0,
        "the reserve must keep the database from failing"
    );
    node.close().await;
    let node = open(&dir, settings(RESERVE), &clock);
    node.wait_replayed();
    assert_all_served(&node, 0..accepted + 1);
    assert!((0..100).all(|n| node.store.provided.contains(&multihash(n))));
}

/// Runs `test` in a process that has errors.c preloaded. Returns the directory to use in that process, and `None`
/// outside.
fn with_errors(test: &str) -> Option<PathBuf> {
    if let Some(dir) = inside() {
        return Some(dir);
    }
    let dir = tempfile::tempdir().unwrap();
    let library = dir.path().join("errors.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store_faults/errors.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).status();
    if !built.is_ok_and(|status| status.success()) {
        cannot(test, "no C compiler (cc)");
        return None;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .env("LD_PRELOAD", &library)
        .env("FAULT_DIR", dir.path().join("data"))
        .env("FAULT_FILE", dir.path().join("fault"));
    run_inside(command, test, dir.path());
    None
}

async fn outlives_error(test: &str, errno: &str) {
    let Some(dir) = with_errors(test) else { return };
    let fault = dir.join("fault");
    outlives(&dir.join("data"), || fs::write(&fault, errno).unwrap(), || fs::remove_file(&fault).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_remount_and_back() {
    outlives_error("a_read_only_remount_and_back", "30").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_disk_that_pass() {
    outlives_error("errors_of_the_disk_that_pass", "5").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_closed_while_its_disk_fails_says_so_and_has_all_that_was_flushed() {
    let test = "a_store_closed_while_its_disk_fails_says_so_and_has_all_that_was_flushed";
    let Some(dir) = with_errors(test) else { return };
    let (clock, fault) = (clock(), dir.join("fault"));
    let node = open(&dir.join("data"), settings(0), &clock);
    for key in 0..20_000 {
        node.add(key, &peer((key % 7) as u8)).await.unwrap();
    }
    node.store.flush().await.unwrap();
    fs::write(&fault, "5").unwrap();
    announce_until_refused(&node, 20_000).await;
    assert!(node.store.close().await.is_err());
    drop(node);
    fs::remove_file(&fault).unwrap();
    let node = open(&dir.join("data"), settings(0), &clock);
    node.wait_replayed();
    assert_all_served(&node, 0..20_000);
    assert_eq!(node.store.stat().notes, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_end_of_the_budget_new_records_are_refused_and_refreshes_taken() {
    const BUDGET: u64 = 3 << 20;
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    let node = open(tmp.path(), Settings { max_disk: BUDGET, ttl: Duration::from_secs(3600), ..settings(0) }, &clock);
    let mut warned = false;
    let mut key = 0;
    let refused = loop {
        for _ in 0..5000 {
            key += 1;
            if node.add(key, &peer(1)).await.is_err() {
                break;
            }
        }
        let stat = node.store.stat();
        warned |= stat.notes.iter().any(|note| note.contains("at the limit new records are refused"));
        if stat.counters["refused_disk_full"] > 0 {
            break Refused::DiskFull;
        }
        assert!(key < MANY, "never refused: {stat:?}");
        node.store.flush().await.unwrap();
        node.advance(1);
        tokio::time::sleep(Duration::from_millis(250)).await;
    };
    assert_eq!(node.add(MANY, &peer(1)).await, Err(refused));
    assert_eq!(node.add(MANY, &peer(99)).await, Err(Refused::DiskFull), "no new peer may enter the address book");
    assert!(warned || node.store.stat().notes.iter().any(|note| note.contains("store.max_disk")));
    assert_eq!(node.store.stat().peers, 1);
    // Refreshes are taken. Repeats within a quarter of the ttl are not logged.
    node.store.flush().await.unwrap();
    let chunks = node.store.stat().log_chunks;
    node.advance(500);
    for key in 1..1000 {
        assert_eq!(node.add(key, &peer(1)).await, Ok(Added::Refreshed));
    }
    node.store.flush().await.unwrap();
    assert_eq!(node.store.stat().log_chunks, chunks);
    node.advance(500);
    for key in 1..1000 {
        assert_eq!(node.add(key, &peer(1)).await, Ok(Added::Refreshed));
    }
    node.store.flush().await.unwrap();
    assert!(node.store.stat().log_chunks > chunks);
    node.close().await;
}
