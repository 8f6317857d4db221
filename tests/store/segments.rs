//! The segments of the log: chunks that have no rows in the database are salvaged, a segment is removed when its
//! chunks have expired, and damage is reported and costs only the damaged chunks.

use dhtstore::clock::{ManualClock, UnixTime};
use dhtstore_testkit::store::*;
use proptest::prelude::*;
use std::{fs, os::unix::fs::FileExt, path::Path, path::PathBuf, sync::Arc};

/// Number of keys. There are ten in a chunk.
const RECORDS: u32 = 400;

/// Adds a range of keys. The last digit of a key selects the peer that announces it. Every ten keys make a chunk.
async fn fill(node: &Node, keys: std::ops::Range<u32>) {
    for key in keys {
        node.add(key, &peer((key % 10) as u8)).await.unwrap();
        if key % 10 == 9 {
            node.advance(1);
        }
    }
    node.store.flush().await.unwrap();
}

fn have(node: &Node, keys: std::ops::Range<u32>) -> usize {
    keys.filter(|key| node.found(*key) == [peer((key % 10) as u8).id]).count()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir.join("log")).unwrap().flatten().map(|e| e.path()).collect();
    found.sort();
    found
}

/// Fills a store and closes it cleanly.
async fn filled(dir: &Path) -> Arc<ManualClock> {
    let clock = clock();
    let node = reopen(dir, &clock);
    fill(&node, 0..RECORDS).await;
    node.close().await;
    clock
}

#[tokio::test]
async fn a_run_begins_a_segment_of_its_own_and_a_clean_stop_leaves_nothing_to_salvage() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    for run in 0..3u32 {
        let node = reopen(tmp.path(), &clock);
        assert_eq!(have(&node, 0..run * 100), run as usize * 100);
        assert_eq!((node.counter("salvaged_chunks"), node.counter("unwritten_chunks")), (0, 0));
        fill(&node, run * 100..(run + 1) * 100).await;
        node.close().await;
        assert_eq!(segments(tmp.path()).len(), run as usize + 1);
    }
}

#[tokio::test]
async fn a_lost_database_costs_no_record_and_no_address_and_what_was_removed_stays_removed() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    let node = reopen(tmp.path(), &clock);
    fill(&node, 0..RECORDS).await;
    assert!(node.store.records.remove(&multihash(7), &peer(7).id).await);
    node.close().await;
    fs::remove_dir_all(tmp.path().join("records")).unwrap();
    // The second start shows that the salvaged chunks were written.
    for start in 0..2 {
        let node = reopen(tmp.path(), &clock);
        assert_eq!(have(&node, 0..RECORDS), RECORDS as usize - 1, "start {start}");
        assert!(node.found(7).is_empty());
        let found = node.store.records.providers_now(&multihash(8), 10, 0);
        assert_eq!(*found[0].addrs, *peer(8).addrs);
        assert_eq!(node.counter("salvaged_chunks") > 0, start == 0);
        node.close().await;
    }
}

#[tokio::test]
async fn segments_that_name_other_peers_by_the_same_numbers_in_the_same_seconds_are_told_apart() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    let node = reopen(tmp.path(), &clock);
    fill(&node, 0..RECORDS).await;
    node.close().await;
    fs::remove_dir_all(tmp.path().join("records")).unwrap();
    // Add a segment with the same numbers for other peers. Such a segment comes from a log that began again with an
    // empty address book.
    let other = tempfile::tempdir().unwrap();
    let elsewhere = dhtstore_testkit::store::clock();
    let node = reopen(other.path(), &elsewhere);
    for key in 0..100 {
        node.add(10_000 + key, &peer(100 + (key % 10) as u8)).await.unwrap();
        node.advance(u64::from(key % 10 == 9));
    }
    node.close().await;
    fs::rename(&segments(other.path())[0], tmp.path().join("log/00000077.segment")).unwrap();
    for start in 0..2 {
        let node = reopen(tmp.path(), &clock);
        assert_eq!(have(&node, 0..RECORDS), RECORDS as usize, "start {start}");
        for key in 0..100 {
            assert_eq!(node.found(10_000 + key), [peer(100 + (key % 10) as u8).id], "start {start}");
        }
        node.close().await;
    }
}

#[tokio::test]
async fn a_segment_goes_when_its_last_chunk_has_expired() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = filled(tmp.path()).await;
    let node = reopen(tmp.path(), &clock);
    let before = segments(tmp.path());
    node.advance(13 * 3600);
    node.add(RECORDS, &peer(1)).await.unwrap();
    let report = node.store.records.collect_garbage().await.unwrap();
    assert_eq!((report.expired, report.chunks), (u64::from(RECORDS), u64::from(RECORDS / 10)));
    assert_eq!(segments(tmp.path())[0], before[0], "a segment must stay until the removal of its rows is on disk");
    node.store.flush().await.unwrap();
    let after = segments(tmp.path());
    assert!(after.len() == 1 && after[0] != before[0], "{after:?}");
    node.close().await;
    let node = reopen(tmp.path(), &clock);
    assert_eq!((node.found(RECORDS), node.store.stat().notes), (vec![peer(1).id], vec![]));
}

#[tokio::test]
async fn a_chunk_that_cannot_be_read_is_told_once_and_goes_when_it_has_expired() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = filled(tmp.path()).await;
    let segment = segments(tmp.path()).remove(0);
    let file = fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(&[0; 600], file.metadata().unwrap().len() / 2).unwrap();
    let node = reopen(tmp.path(), &clock);
    let kept = have(&node, 0..RECORDS);
    assert!((340..=390).contains(&kept), "{kept}");
    let notes = node.store.stat().notes;
    assert!(notes.iter().any(|note| note.contains("00000000.segment")), "{notes:?}");
    node.advance(13 * 3600);
    node.store.records.collect_garbage().await.unwrap();
    let told = node.counter("damaged");
    node.store.flush().await.unwrap();
    assert_eq!(segments(tmp.path()), Vec::<PathBuf>::new());
    node.store.records.collect_garbage().await.unwrap();
    assert_eq!((node.counter("damaged"), node.store.stat().log_chunks), (told, 0));
}

#[tokio::test]
async fn what_was_dated_anew_does_not_come_back_with_its_old_date() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    clock.set_wall(UnixTime(T0 + 7 * 24 * 3600));
    let node = reopen(tmp.path(), &clock);
    fill(&node, 0..100).await;
    // The clock goes a week back. After ten minutes that is believed, and all records are re-dated.
    clock.set_wall(UnixTime(T0));
    node.store.records.collect_garbage().await.unwrap();
    node.advance(700);
    node.store.records.collect_garbage().await.unwrap();
    node.store.flush().await.unwrap();
    node.close().await;
    fs::remove_dir_all(tmp.path().join("records")).unwrap();
    let node = reopen(tmp.path(), &clock);
    assert_eq!(have(&node, 0..100), 100);
    node.advance(12 * 3600);
    assert_eq!(have(&node, 0..100), 0, "all records must have expired");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Builds what a power cut may leave: the database of an earlier moment, and the log torn anywhere after that
    /// moment.
    #[test]
    fn of_a_torn_log_all_is_there_up_to_where_it_is_torn(
        early in 0u32..4,
        cut in 0.0f64..=1.0,
        garbage in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let (tmp, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let clock = clock();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (from, length) = runtime.block_on(async {
            let node = reopen(tmp.path(), &clock);
            fill(&node, 0..early * 100).await;
            kill(&tmp.path().join("records"), &image.path().join("records"));
            kill(&tmp.path().join("node"), &image.path().join("node"));
            let length = |dir: &Path| fs::metadata(dir.join("log/00000000.segment")).map_or(0, |found| found.len());
            let from = length(tmp.path());
            fill(&node, early * 100..RECORDS).await;
            (from, length(tmp.path()))
        });
        kill(&tmp.path().join("log"), &image.path().join("log"));
        let torn = from + ((length - from) as f64 * cut) as u64;
        let file = fs::OpenOptions::new().write(true).open(image.path().join("log/00000000.segment")).unwrap();
        file.set_len(torn).unwrap();
        file.write_all_at(&garbage, torn).unwrap();
        let node = reopen(image.path(), &clock);
        // The kept chunks are whole, in order, and without a gap.
        let kept = (0..RECORDS).take_while(|key| node.found(*key) == [peer((key % 10) as u8).id]).count() as u32;
        prop_assert_eq!(have(&node, 0..RECORDS), kept as usize);
        prop_assert!(kept >= early * 100 && kept.is_multiple_of(10), "{} of {}", kept, early * 100);
        let share = (length - from) / u64::from((RECORDS - early * 100) / 10);
        let expected = u64::from(early * 100) + (torn - from).saturating_sub(2_000) / share * 10;
        prop_assert!(u64::from(kept) + 10 >= expected, "{} records were kept, {} expected", kept, expected);
        prop_assert_eq!(node.store.stat().notes, Vec::<String>::new());
    }
}
