//! Steps of the wall clock while the store runs; the monotonic clock never steps. Nothing is deleted until a step has
//! lasted, live records are served, and every record expires in the end.

use dhtstore::{clock::UnixTime, store::Settings};
use dhtstore_testkit::store::*;
use std::{path::Path, time::Duration};

const TTL: u32 = 12 * 3600;
const GRACE: u64 = 600;
const DAY: i64 = 86_400;
const KEYS: u32 = 3000;

/// Fills a store with records dated now.
async fn filled(dir: &Path) -> Node {
    let node = open(dir, Settings { clock_grace: Duration::from_secs(GRACE), ..Settings::default() }, &clock());
    for key in 0..KEYS {
        node.add(key, &peer((key % 5) as u8)).await.unwrap();
    }
    node.store.flush().await.unwrap();
    node
}

fn step(node: &Node, by: i64) {
    use dhtstore::clock::Clock;
    let wall = i64::from(node.clock.wall().0) + by;
    node.clock.set_wall(UnixTime(u32::try_from(wall).unwrap()));
    // A real node is asked all the time. The store sees the step when it is asked.
    node.found(0);
}

fn served(node: &Node) -> usize {
    (0..KEYS).filter(|key| !node.found(*key).is_empty()).count()
}

#[track_caller]
fn serves_all(node: &Node) {
    assert_eq!(served(node), KEYS as usize);
}

/// Checks that all records are served, and that no step is waiting to be believed.
#[track_caller]
fn serves_all_and_doubts_nothing(node: &Node) {
    assert_eq!((served(node), node.store.stat().gc_paused), (KEYS as usize, None));
}

/// Runs garbage collection and checks that it deletes nothing.
async fn deletes_nothing(node: &Node) {
    node.store.records.collect_garbage().await.unwrap();
    assert_eq!(node.store.stat().records, u64::from(KEYS));
    assert_eq!(node.store.stat().counters["collected"], 0);
}

/// Lets time pass as on a real node, with a look-up and garbage collection every five minutes.
async fn pass(node: &Node, seconds: u64) {
    for _ in 0..seconds / 300 {
        node.advance(300);
        node.found(0);
        node.store.records.collect_garbage().await.unwrap();
    }
    node.advance(seconds % 300);
}

/// Checks that a ttl and a grace period later nothing is left: neither in memory, nor in the log, nor after a restart.
async fn all_end(node: Node, dir: &Path) {
    pass(&node, u64::from(TTL) + GRACE).await;
    assert_eq!(served(&node), 0);
    let report = node.store.records.collect_garbage().await.unwrap();
    assert_eq!(report.paused, None);
    let stat = node.store.stat();
    assert_eq!((stat.records, stat.keys, stat.log_chunks), (0, 0, 0));
    let clock = node.clock.clone();
    node.close().await;
    let node = open(dir, Settings::default(), &clock);
    node.wait_replayed();
    assert_eq!((node.store.stat().records, served(&node)), (0, 0));
}

#[tokio::test]
async fn ten_days_forward_and_back_within_the_grace_leave_no_trace() {
    let tmp = tempfile::tempdir().unwrap();
    let node = filled(tmp.path()).await;
    step(&node, 10 * DAY);
    deletes_nothing(&node).await;
    assert!(node.store.stat().gc_paused.unwrap().contains("stepped by +864000 s"));
    node.advance(GRACE - 10);
    deletes_nothing(&node).await;
    step(&node, -10 * DAY);
    deletes_nothing(&node).await;
    serves_all_and_doubts_nothing(&node);
    all_end(node, tmp.path()).await;
}

#[tokio::test]
async fn ten_days_forward_that_last_and_then_back_keep_what_came_meanwhile() {
    let tmp = tempfile::tempdir().unwrap();
    let node = filled(tmp.path()).await;
    step(&node, 10 * DAY);
    deletes_nothing(&node).await;
    // The publisher announces again while the step is not believed. These records are live by both clocks.
    node.advance(400);
    for key in 0..KEYS {
        node.add(key, &peer((key % 5) as u8)).await.unwrap();
    }
    serves_all(&node);
    node.advance(GRACE);
    deletes_nothing(&node).await;
    assert_eq!(served(&node), KEYS as usize, "both clocks say that the records are a few minutes old");
    // The clock was wrong, and is corrected.
    step(&node, -10 * DAY);
    deletes_nothing(&node).await;
    serves_all(&node);
    node.advance(GRACE);
    deletes_nothing(&node).await;
    serves_all_and_doubts_nothing(&node);
    all_end(node, tmp.path()).await;
}

#[tokio::test]
async fn ten_days_backward_at_run_time_serve_on_and_end_in_time() {
    let tmp = tempfile::tempdir().unwrap();
    let node = filled(tmp.path()).await;
    step(&node, -10 * DAY);
    deletes_nothing(&node).await;
    serves_all(&node);
    node.advance(GRACE);
    deletes_nothing(&node).await;
    serves_all_and_doubts_nothing(&node);
    assert!(node.store.stat().newest.unwrap() < T0, "records must be dated by the clock that is now believed");
    all_end(node, tmp.path()).await;
}

#[tokio::test]
async fn a_suspended_machine_only_grows_older() {
    let tmp = tempfile::tempdir().unwrap();
    let node = filled(tmp.path()).await;
    node.advance(u64::from(TTL) - 60);
    serves_all(&node);
    deletes_nothing(&node).await;
    assert_eq!(node.store.stat().gc_paused, None);
    node.advance(3600);
    assert_eq!(served(&node), 0);
    assert_eq!(node.store.records.collect_garbage().await.unwrap().expired, u64::from(KEYS));
}

#[tokio::test]
async fn many_small_steps_add_up_to_one_that_must_last() {
    let tmp = tempfile::tempdir().unwrap();
    let node = filled(tmp.path()).await;
    // Each change is too small to count as a step.
    for _ in 0..2 * 60 {
        step(&node, 50);
        node.advance(10);
        node.store.records.collect_garbage().await.unwrap();
    }
    assert_eq!(node.store.stat().counters["collected"], 0);
    // Their sum of 100 minutes is believed in the end, and the records expire by the new time.
    pass(&node, GRACE).await;
    serves_all(&node);
    all_end(node, tmp.path()).await;
}

#[tokio::test]
async fn steps_to_and_fro_for_hours_delete_nothing_and_keep_nothing_for_ever() {
    let tmp = tempfile::tempdir().unwrap();
    let node = filled(tmp.path()).await;
    // The clock steps again before each grace period has passed, so the right time is unknown.
    for round in 0..20 {
        step(&node, if round % 2 == 0 { 3 * DAY } else { -3 * DAY });
        node.advance(GRACE / 2);
        deletes_nothing(&node).await;
    }
    serves_all(&node);
    all_end(node, tmp.path()).await;
}

#[tokio::test]
async fn a_step_in_the_middle_of_a_collection_stops_it() {
    let tmp = tempfile::tempdir().unwrap();
    let node = open(tmp.path(), Settings { clock_grace: Duration::from_secs(GRACE), ..Settings::default() }, &clock());
    // Many chunks, because a collection checks the clock once per slice of them.
    for key in 0..200_000 {
        node.add(key, &peer((key % 5) as u8)).await.unwrap();
    }
    node.store.flush().await.unwrap();
    node.advance(u64::from(TTL));
    let collection = tokio::spawn({
        let records = node.store.records.clone();
        async move { records.collect_garbage().await.unwrap() }
    });
    // Whenever the step comes, only records that had expired may be collected.
    step(&node, -10 * DAY);
    let report = collection.await.unwrap();
    assert!(report.expired == 200_000 || report.paused.is_some(), "{report:?}");
    assert_eq!(node.store.stat().counters["redated"], 0);
    step(&node, 10 * DAY);
    assert_eq!(node.found(0), []);
    let rest = node.store.records.collect_garbage().await.unwrap();
    assert_eq!((report.expired + rest.expired, node.store.stat().records), (200_000, 0));
}

/// Boots with a wrong clock: seconds since the last run, and seconds by which the clock is ahead.
const BOOTS: [(u64, i64); 4] = [(100, 30 * DAY), (3600, DAY), (30, 3 * 365 * DAY), (7200, 13 * 3600)];

async fn reopened(dir: &Path, node: Node, seconds: u64, wrong_by: i64) -> Node {
    let clock = node.clock.clone();
    node.close().await;
    clock.advance(Duration::from_secs(seconds));
    set(&clock, wrong_by);
    let node = open(dir, Settings { clock_grace: Duration::from_secs(GRACE), ..Settings::default() }, &clock);
    node.wait_replayed();
    node
}

fn set(clock: &dhtstore::clock::ManualClock, by: i64) {
    use dhtstore::clock::Clock;
    let wall = i64::from(clock.wall().0) + by;
    clock.set_wall(UnixTime(u32::try_from(wall.max(0)).unwrap()));
}

#[tokio::test]
async fn a_boot_with_the_clock_ahead_serves_at_once_before_and_after_it_is_corrected() {
    for (between, ahead) in BOOTS {
        let tmp = tempfile::tempdir().unwrap();
        let node = filled(tmp.path()).await;
        let node = reopened(tmp.path(), node, between, ahead).await;
        assert_eq!(served(&node), KEYS as usize, "{between} s, {ahead} s ahead");
        deletes_nothing(&node).await;
        node.add(KEYS, &peer(1)).await.unwrap();
        node.advance(60);
        step(&node, -ahead);
        assert_eq!(served(&node), KEYS as usize, "{between} s, {ahead} s ahead, then corrected");
        node.store.records.collect_garbage().await.unwrap();
        assert_eq!(served(&node), KEYS as usize, "{between} s, {ahead} s ahead, corrected and collected");
        assert!(!node.found(KEYS).is_empty());
        assert!(
            node.store.stat().newest.unwrap() < T0 + 2 * 7200,
            "records of this run must be dated by the corrected clock"
        );
        // The same holds after a kill.
        let image = tempfile::tempdir().unwrap();
        node.store.flush().await.unwrap();
        kill(tmp.path(), image.path());
        let clock = node.clock.clone();
        let again = open(image.path(), Settings::default(), &clock);
        again.wait_replayed();
        assert_eq!(served(&again), KEYS as usize);
        again.close().await;
        pass(&node, GRACE + 300).await;
        serves_all_and_doubts_nothing(&node);
        all_end(node, tmp.path()).await;
    }
}

#[tokio::test]
async fn a_boot_after_one_with_the_clock_ahead_serves_at_once() {
    let tmp = tempfile::tempdir().unwrap();
    let node = filled(tmp.path()).await;
    let node = reopened(tmp.path(), node, 100, 30 * DAY).await;
    node.add(KEYS, &peer(1)).await.unwrap();
    node.store.flush().await.unwrap();
    let node = reopened(tmp.path(), node, 100, -30 * DAY).await;
    serves_all(&node);
    assert!(!node.found(KEYS).is_empty());
    deletes_nothing_of(&node, KEYS + 1).await;
    node.advance(GRACE);
    serves_all(&node);
    all_end(node, tmp.path()).await;
}

async fn deletes_nothing_of(node: &Node, records: u32) {
    node.store.records.collect_garbage().await.unwrap();
    assert_eq!((node.store.stat().records, node.store.stat().counters["collected"]), (u64::from(records), 0));
}

#[tokio::test]
async fn a_boot_in_1970_serves_what_is_alive_and_loses_nothing_when_the_clock_is_set() {
    let tmp = tempfile::tempdir().unwrap();
    let node = filled(tmp.path()).await;
    let node = reopened(tmp.path(), node, 100, -i64::from(T0)).await;
    serves_all(&node);
    node.advance(30);
    step(&node, i64::from(T0));
    serves_all(&node);
    pass(&node, 2 * GRACE).await;
    serves_all_and_doubts_nothing(&node);
    all_end(node, tmp.path()).await;
}

#[tokio::test]
async fn prv_5_after_days_without_power_a_record_is_served_for_the_grace_at_most() {
    let tmp = tempfile::tempdir().unwrap();
    let node = filled(tmp.path()).await;
    let node = reopened(tmp.path(), node, 3 * 86_400, 0).await;
    node.advance(GRACE - 1);
    deletes_nothing(&node).await;
    node.advance(1);
    assert_eq!(served(&node), 0);
    assert_eq!(node.store.records.collect_garbage().await.unwrap().expired, u64::from(KEYS));
}

#[tokio::test]
async fn prv_5_what_had_expired_when_the_last_run_ended_is_not_served_by_the_next() {
    let tmp = tempfile::tempdir().unwrap();
    let node = filled(tmp.path()).await;
    node.advance(u64::from(TTL) - 30);
    node.add(KEYS, &peer(1)).await.unwrap();
    node.store.flush().await.unwrap();
    let node = reopened(tmp.path(), node, 3600, 0).await;
    node.advance(31);
    assert_eq!(served(&node), 0);
    assert!(!node.found(KEYS).is_empty());
}

/// While the clock is in doubt, salvage must keep segments whose chunks look expired.
#[tokio::test]
async fn what_a_kill_left_unindexed_is_found_by_a_boot_with_the_clock_ahead() {
    let tmp = tempfile::tempdir().unwrap();
    let node = filled(tmp.path()).await;
    let image = tempfile::tempdir().unwrap();
    kill(tmp.path(), image.path());
    let clock = node.clock.clone();
    node.close().await;
    std::fs::remove_dir_all(image.path().join("records")).unwrap();
    std::fs::remove_dir_all(image.path().join("exports")).ok();
    clock.advance(Duration::from_secs(100));
    set(&clock, 30 * DAY);
    let node = open(image.path(), Settings { clock_grace: Duration::from_secs(GRACE), ..Settings::default() }, &clock);
    node.wait_replayed();
    serves_all(&node);
    node.advance(60);
    step(&node, -30 * DAY);
    serves_all(&node);
}
