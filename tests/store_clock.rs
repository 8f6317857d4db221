//! The wall clock steps while the store runs, the monotonic one does not: nothing is deleted until the step has lasted,
//! what is alive is served, and nothing lives for ever.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]
#![allow(dead_code, reason = "the support module serves several tests")]

#[path = "store_support/support.rs"]
mod support;

use dhtstore::{clock::UnixTime, store::Settings};
use std::{path::Path, time::Duration};
use support::*;

const TTL: u32 = 12 * 3600;
const GRACE: u64 = 600;
const DAY: i64 = 86_400;
const KEYS: u32 = 3000;

/// A store with records of now.
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
    // Somebody always asks: this is when the step is seen.
    node.found(0);
}

fn served(node: &Node) -> usize {
    (0..KEYS).filter(|key| !node.found(*key).is_empty()).count()
}

/// Garbage collection, which must have deleted nothing.
async fn deletes_nothing(node: &Node) {
    node.store.records.collect_garbage().await.unwrap();
    assert_eq!(node.store.stat().records, u64::from(KEYS));
    assert_eq!(node.store.stat().counters["collected"], 0);
}

/// Time passes, as it does: a look at the store every five minutes, garbage collection with it.
async fn pass(node: &Node, seconds: u64) {
    for _ in 0..seconds / 300 {
        node.advance(300);
        node.found(0);
        node.store.records.collect_garbage().await.unwrap();
    }
    node.advance(seconds % 300);
}

/// One ttl and a grace later nothing is left, in memory or in the log, nor after a restart.
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
    assert_eq!((served(&node), node.store.stat().gc_paused), (KEYS as usize, None));
    all_end(node, tmp.path()).await;
}

#[tokio::test]
async fn ten_days_forward_that_last_and_then_back_keep_what_came_meanwhile() {
    let tmp = tempfile::tempdir().unwrap();
    let node = filled(tmp.path()).await;
    step(&node, 10 * DAY);
    deletes_nothing(&node).await;
    // By both clocks of this moment these are alive; the publisher comes again while the step is not believed.
    node.advance(400);
    for key in 0..KEYS {
        node.add(key, &peer((key % 5) as u8)).await.unwrap();
    }
    assert_eq!(served(&node), KEYS as usize);
    node.advance(GRACE);
    deletes_nothing(&node).await;
    assert_eq!(served(&node), KEYS as usize, "received a few minutes ago by any clock");
    // The clock was wrong after all, and is set right.
    step(&node, -10 * DAY);
    deletes_nothing(&node).await;
    assert_eq!(served(&node), KEYS as usize);
    node.advance(GRACE);
    deletes_nothing(&node).await;
    assert_eq!((served(&node), node.store.stat().gc_paused), (KEYS as usize, None));
    all_end(node, tmp.path()).await;
}

#[tokio::test]
async fn ten_days_backward_at_run_time_serve_on_and_end_in_time() {
    let tmp = tempfile::tempdir().unwrap();
    let node = filled(tmp.path()).await;
    step(&node, -10 * DAY);
    deletes_nothing(&node).await;
    assert_eq!(served(&node), KEYS as usize);
    node.advance(GRACE);
    deletes_nothing(&node).await;
    assert_eq!((served(&node), node.store.stat().gc_paused), (KEYS as usize, None));
    assert!(node.store.stat().newest.unwrap() < T0, "dated by the clock that is believed now");
    all_end(node, tmp.path()).await;
}

#[tokio::test]
async fn a_suspended_machine_only_grows_older() {
    let tmp = tempfile::tempdir().unwrap();
    let node = filled(tmp.path()).await;
    node.advance(u64::from(TTL) - 60);
    assert_eq!(served(&node), KEYS as usize);
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
    // Each is below what counts as a step.
    for _ in 0..2 * 60 {
        step(&node, 50);
        node.advance(10);
        node.store.records.collect_garbage().await.unwrap();
    }
    assert_eq!(node.store.stat().counters["collected"], 0);
    // The two hours that they came to are believed in the end, and the records end by them.
    pass(&node, GRACE).await;
    assert_eq!(served(&node), KEYS as usize);
    all_end(node, tmp.path()).await;
}

#[tokio::test]
async fn steps_to_and_fro_for_hours_delete_nothing_and_keep_nothing_for_ever() {
    let tmp = tempfile::tempdir().unwrap();
    let node = filled(tmp.path()).await;
    // Never the same for a grace period: nobody knows what time it is.
    for round in 0..20 {
        step(&node, if round % 2 == 0 { 3 * DAY } else { -3 * DAY });
        node.advance(GRACE / 2);
        deletes_nothing(&node).await;
    }
    assert_eq!(served(&node), KEYS as usize);
    all_end(node, tmp.path()).await;
}

#[tokio::test]
async fn a_step_in_the_middle_of_a_collection_stops_it() {
    let tmp = tempfile::tempdir().unwrap();
    let node = open(tmp.path(), Settings { clock_grace: Duration::from_secs(GRACE), ..Settings::default() }, &clock());
    // Many chunks: a collection looks at the clock every 64.
    for key in 0..200_000 {
        node.add(key, &peer((key % 5) as u8)).await.unwrap();
    }
    node.store.flush().await.unwrap();
    node.advance(u64::from(TTL));
    let collection = tokio::spawn({
        let records = node.store.records.clone();
        async move { records.collect_garbage().await.unwrap() }
    });
    // Whenever it comes: what had expired may go, and nothing else is touched.
    step(&node, -10 * DAY);
    let report = collection.await.unwrap();
    assert!(report.expired == 200_000 || report.paused.is_some(), "{report:?}");
    assert_eq!(node.store.stat().counters["redated"], 0);
    step(&node, 10 * DAY);
    assert_eq!(node.found(0), []);
    let rest = node.store.records.collect_garbage().await.unwrap();
    assert_eq!((report.expired + rest.expired, node.store.stat().records), (200_000, 0));
}
