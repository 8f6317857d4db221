//! Provider records: the store gives the same answers as a naive model, across time, garbage collection and restarts.

use dhtstore::{
    clock::UnixTime,
    kad::{Dht, PeerInfo},
    store::{
        Settings, StoreError,
        data_dir::Lock,
        records::{Added, Refused},
    },
};
use dhtstore_testkit::store::*;
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, time::Duration};

const TTL: u32 = 3600;
/// A record that is announced again within this time keeps its date, in seconds.
const REPEAT: u32 = 300;

fn settings() -> Settings {
    Settings { ttl: Duration::from_secs(u64::from(TTL)), ..Settings::default() }
}

#[derive(Clone, Debug)]
enum Op {
    Add(u32, u8),
    Remove(u32, u8),
    Advance(u64),
    Gc,
    Reopen,
    Kill,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => (0..12u32, 0..6u8).prop_map(|(k, p)| Op::Add(k, p)),
        5 => (0..12u32, 0..6u8).prop_map(|(k, p)| Op::Remove(k, p)),
        8 => (0..1500u64).prop_map(Op::Advance),
        2 => Just(Op::Gc),
        1 => Just(Op::Reopen),
        1 => Just(Op::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 60, ..ProptestConfig::default() })]
    #[test]
    fn prv_5_the_store_answers_as_a_naive_model(ops in proptest::collection::vec(op(), 1..120)) {
        tokio::runtime::Runtime::new().unwrap().block_on(against_the_model(ops))?;
    }
}

async fn against_the_model(ops: Vec<Op>) -> Result<(), TestCaseError> {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    let mut generation = 0;
    let mut node = open(&tmp.path().join("0"), settings(), &clock);
    let mut model: BTreeMap<(u32, u8), u32> = BTreeMap::new();
    let mut now = T0;
    for op in ops {
        match op {
            Op::Add(key, n) => {
                let known = model.get(&(key, n)).copied();
                let added = node.add(key, &peer(n)).await.unwrap();
                prop_assert!(known.is_some_and(|t| now - t < TTL) <= (added == Added::Refreshed));
                if known.is_none_or(|time| now - time >= REPEAT) {
                    model.insert((key, n), now);
                }
            }
            Op::Remove(key, n) => {
                node.store.records.remove(&multihash(key), &peer(n).id).await;
                model.remove(&(key, n));
            }
            Op::Advance(seconds) => {
                node.advance(seconds);
                now += seconds as u32;
            }
            Op::Gc => {
                node.store.records.collect_garbage().await.unwrap();
            }
            Op::Reopen => {
                let dir = tmp.path().join(generation.to_string());
                node.close().await;
                node = open(&dir, settings(), &clock);
                node.wait_replayed();
            }
            Op::Kill => {
                let dir = tmp.path().join(generation.to_string());
                generation += 1;
                let image = tmp.path().join(generation.to_string());
                node.store.flush().await.unwrap();
                kill(&dir, &image);
                drop(node);
                node = open(&image, settings(), &clock);
                node.wait_replayed();
            }
        }
        for key in 0..12 {
            let live = model.iter().filter(|((k, _), time)| *k == key && now - **time < TTL);
            let mut expected: Vec<_> = live.map(|((_, n), _)| peer(*n).id).collect();
            expected.sort();
            prop_assert_eq!(node.found(key), expected, "key {} at {}", key, now - T0);
        }
    }
    Ok(())
}

#[tokio::test]
async fn garbage_collection_drops_what_expired_and_nothing_else() {
    let tmp = tempfile::tempdir().unwrap();
    let node = open(tmp.path(), settings(), &clock());
    for key in 0..1000 {
        node.add(key, &peer(1)).await.unwrap();
    }
    node.advance(u64::from(TTL) / 2);
    for key in 500..1500 {
        node.add(key, &peer(1)).await.unwrap();
    }
    node.store.flush().await.unwrap();
    node.advance(u64::from(TTL) / 2);
    let report = node.store.records.collect_garbage().await.unwrap();
    assert_eq!((report.expired, report.paused), (500, None));
    assert!(report.chunks > 0);
    assert_eq!(node.store.stat().records, 1000);
    node.advance(u64::from(TTL));
    node.store.records.collect_garbage().await.unwrap();
    let stat = node.store.stat();
    assert_eq!((stat.records, stat.keys, stat.log_chunks), (0, 0, 0));
}

#[tokio::test]
async fn a_repeat_is_not_logged_again_but_keeps_the_addresses_alive_prv_6() {
    let tmp = tempfile::tempdir().unwrap();
    let settings = Settings { ttl: Duration::from_secs(3600), address_ttl: Duration::from_secs(100), ..settings() };
    let node = open(tmp.path(), settings, &clock());
    node.add(1, &peer(1)).await.unwrap();
    node.store.flush().await.unwrap();
    let chunks = node.store.stat().log_chunks;
    node.advance(90);
    assert_eq!(node.add(1, &peer(1)).await, Ok(Added::Refreshed));
    node.store.flush().await.unwrap();
    assert_eq!(node.store.stat().log_chunks, chunks);
    node.advance(90);
    let found = node.store.records.providers(&multihash(1), 20, 0).await;
    assert_eq!((found[0].addrs.to_vec(), found[0].received), (peer(1).addrs, UnixTime(T0)));
    node.advance(20);
    assert!(node.store.records.providers(&multihash(1), 20, 0).await[0].addrs.is_empty());
    assert_eq!(node.store.records.addresses(&peer(1).id), None);
}

#[tokio::test]
async fn a_steady_peer_has_its_addresses_after_a_kill() {
    let tmp = tempfile::tempdir().unwrap();
    let (dir, image) = (tmp.path().join("a"), tmp.path().join("b"));
    let clock = clock();
    let node = open(&dir, Settings::default(), &clock);
    // The same announcement for two days, which is longer than the address ttl.
    for _ in 0..8 {
        node.add(1, &peer(1)).await.unwrap();
        node.advance(6 * 3600);
    }
    node.store.flush().await.unwrap();
    kill(&dir, &image);
    drop(node);
    let node = open(&image, Settings::default(), &clock);
    node.wait_replayed();
    assert_eq!(node.store.records.providers(&multihash(1), 20, 0).await[0].addrs.to_vec(), peer(1).addrs);
}

#[tokio::test]
async fn a_short_ttl_is_refreshed_by_every_repeat() {
    let tmp = tempfile::tempdir().unwrap();
    let node = open(tmp.path(), Settings { ttl: Duration::from_secs(3), ..settings() }, &clock());
    for _ in 0..10 {
        node.add(1, &peer(1)).await.unwrap();
        node.advance(2);
        assert_eq!(node.found(1).len(), 1);
    }
    node.advance(1);
    assert_eq!(node.found(1).len(), 0);
}

#[tokio::test]
async fn addresses_of_both_dhts_survive_a_restart() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    let node = open(tmp.path(), settings(), &clock);
    let lan = PeerInfo { addrs: vec!["/ip4/10.1.1.1/tcp/4001".parse().unwrap()], ..peer(1) };
    node.add(1, &peer(1)).await.unwrap();
    node.store.records.add(&multihash(1), &lan, Dht::Lan).await.unwrap();
    node.close().await;
    let node = open(tmp.path(), settings(), &clock);
    node.wait_replayed();
    let expected: Vec<_> = peer(1).addrs.into_iter().chain(lan.addrs).collect();
    assert_eq!(node.store.records.providers(&multihash(1), 20, 0).await[0].addrs.to_vec(), expected);
    assert_eq!(node.store.records.addresses(&peer(1).id), Some(expected));
}

#[tokio::test]
async fn more_providers_than_wanted_give_a_subset_by_seed() {
    let tmp = tempfile::tempdir().unwrap();
    let node = open(tmp.path(), settings(), &clock());
    for n in 0..100 {
        node.add(1, &peer(n)).await.unwrap();
    }
    let ids = |seed| {
        let found = node.store.records.providers_now(&multihash(1), 20, seed);
        found.into_iter().map(|p| p.peer).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(ids(1).len(), 20);
    assert_ne!(ids(1), ids(2));
    assert_eq!(node.found(1).len(), 100);
}

#[tokio::test]
async fn each_bound_refuses_what_is_new_and_takes_refreshes() {
    let tmp = tempfile::tempdir().unwrap();
    let settings = Settings { max_records: 3, max_providers_per_key: 2, max_peers: 3, ..settings() };
    let node = open(tmp.path(), settings, &clock());
    node.add(1, &peer(1)).await.unwrap();
    node.add(1, &peer(2)).await.unwrap();
    assert_eq!(node.add(1, &peer(3)).await, Err(Refused::KeyFull));
    assert_eq!(node.add(2, &peer(4)).await, Err(Refused::PeersFull));
    node.add(2, &peer(1)).await.unwrap();
    assert_eq!(node.add(3, &peer(1)).await, Err(Refused::RecordsFull));
    assert_eq!(node.add(3, &peer(5)).await, Err(Refused::RecordsFull));
    assert_eq!(node.add(1, &peer(2)).await, Ok(Added::Refreshed));
    let too_long = node.store.records.add(&[0; 200], &peer(1), Dht::Wan).await;
    assert_eq!(too_long, Err(Refused::KeyTooLong));
    assert_eq!(node.store.stat().counters["refused_records_full"], 2);
}

#[tokio::test]
async fn one_provider_has_no_more_than_its_share() {
    let tmp = tempfile::tempdir().unwrap();
    let settings = Settings { max_records_per_provider: 2, ..settings() };
    let node = open(tmp.path(), settings, &clock());
    node.add(1, &peer(1)).await.unwrap();
    node.add(2, &peer(1)).await.unwrap();
    assert_eq!(node.add(3, &peer(1)).await, Err(Refused::ProviderFull));
    assert_eq!(node.add(3, &peer(2)).await, Ok(Added::New));
    assert_eq!(node.add(2, &peer(1)).await, Ok(Added::Refreshed));
    assert!(node.store.records.remove(&multihash(1), &peer(1).id).await);
    assert_eq!(node.add(3, &peer(1)).await, Ok(Added::New));
    assert_eq!(node.store.stat().counters["refused_provider_full"], 1);
}

#[tokio::test]
async fn near_the_bound_of_records_the_farthest_from_the_node_go_first() {
    let tmp = tempfile::tempdir().unwrap();
    let position = [0x5a; 32];
    let node = open(tmp.path(), Settings { max_records: 1000, position, ..settings() }, &clock());
    for key in 0..1000 {
        node.add(key, &peer(1)).await.unwrap();
    }
    assert_eq!(node.add(1000, &peer(1)).await, Err(Refused::RecordsFull));
    node.store.records.collect_garbage().await.unwrap();
    let distance = |key: u32| -> Vec<u8> { Sha256::digest(multihash(key)).iter().map(|byte| byte ^ 0x5a).collect() };
    let (held, gone): (Vec<u32>, Vec<u32>) = (0..1000).partition(|key| !node.found(*key).is_empty());
    assert!((750..=937).contains(&held.len()), "{}", held.len());
    assert!(held.iter().map(|key| distance(*key)).max() < gone.iter().map(|key| distance(*key)).min());
    assert_eq!(node.store.stat().counters["evicted"], gone.len() as u64);
    assert_eq!(node.add(gone[0], &peer(1)).await, Err(Refused::RecordsFar));
    assert_eq!(node.add(held[0], &peer(1)).await, Ok(Added::Refreshed));
}

#[tokio::test]
async fn with_little_space_left_announcements_are_refused_and_what_is_stored_is_served() {
    let tmp = tempfile::tempdir().unwrap();
    let node = open(tmp.path(), settings(), &clock());
    node.add(1, &peer(1)).await.unwrap();
    node.store.close().await.unwrap();
    drop(node);
    let node = open(tmp.path(), Settings { reserve: u64::MAX, ..settings() }, &clock());
    node.wait_replayed();
    assert_eq!(node.add(2, &peer(1)).await, Err(Refused::ReadOnly));
    assert_eq!(node.found(1), [peer(1).id]);
    let notes = node.store.stat().notes;
    assert!(notes.iter().any(|note| note.contains("free some space")), "{notes:?}");
}

#[tokio::test]
async fn nothing_is_accepted_once_closed() {
    let tmp = tempfile::tempdir().unwrap();
    let node = open(tmp.path(), settings(), &clock());
    node.add(1, &peer(1)).await.unwrap();
    node.store.close().await.unwrap();
    assert_eq!(node.add(2, &peer(1)).await, Err(Refused::ReadOnly));
    node.store.close().await.unwrap();
}

#[tokio::test]
async fn peers_that_nothing_names_are_forgotten_and_their_numbers_not_used_again() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    let settings = Settings { max_peers: 8, ..settings() };
    let node = open(tmp.path(), settings.clone(), &clock);
    for n in 0..8 {
        node.add(u32::from(n), &peer(n)).await.unwrap();
    }
    assert_eq!(node.add(9, &peer(9)).await, Err(Refused::PeersFull));
    node.store.flush().await.unwrap();
    node.advance(u64::from(TTL) + 2);
    node.store.records.collect_garbage().await.unwrap();
    assert_eq!(node.store.stat().peers, 0);
    node.add(9, &peer(9)).await.unwrap();
    node.close().await;
    let node = open(tmp.path(), settings, &clock);
    node.wait_replayed();
    assert_eq!(node.found(9), [peer(9).id]);
    assert_eq!(node.found(0), []);
}

#[tokio::test]
async fn a_step_forward_deletes_nothing_until_it_has_lasted() {
    let tmp = tempfile::tempdir().unwrap();
    let node = open(tmp.path(), settings(), &clock());
    node.add(1, &peer(1)).await.unwrap();
    node.store.flush().await.unwrap();
    node.advance(10);
    node.clock.set_wall(UnixTime(T0 + 90_000));
    assert!(node.store.records.collect_garbage().await.unwrap().paused.unwrap().contains("+8"));
    assert_eq!(node.found(1), [], "it may have expired, so it is not served");
    node.add(2, &peer(2)).await.unwrap();
    assert_eq!(node.found(2), [peer(2).id], "it was received since the step, so it is served");
    // The step was a glitch.
    node.clock.set_wall(UnixTime(T0 + 10));
    assert_eq!(node.found(1), [peer(1).id]);
    // The next step lasts.
    node.advance(2);
    assert_eq!(node.found(2), [peer(2).id]);
    node.clock.set_wall(UnixTime(T0 + 90_000));
    assert_eq!(node.found(1), []);
    node.advance(300);
    node.add(3, &peer(3)).await.unwrap();
    node.advance(300);
    let report = node.store.records.collect_garbage().await.unwrap();
    assert_eq!((report.paused, report.expired), (None, 2), "key 2 was received before the second step");
    assert_eq!(node.found(3), [peer(3).id], "a record received before the step was believed is kept");
    node.close().await;
}

#[tokio::test]
async fn after_a_step_back_nothing_lives_for_ever() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    clock.set_wall(UnixTime(T0 + 1_000_000));
    let node = open(tmp.path(), settings(), &clock);
    for key in 0..2000 {
        node.add(key, &peer(1)).await.unwrap();
    }
    node.store.records.remove(&multihash(7), &peer(1).id).await;
    clock.set_wall(UnixTime(T0));
    assert_eq!(node.found(1), [peer(1).id]);
    assert!(node.store.records.collect_garbage().await.unwrap().paused.is_some());
    node.advance(600);
    let report = node.store.records.collect_garbage().await.unwrap();
    assert_eq!((report.paused, report.expired), (None, 0));
    let stat = node.store.stat();
    assert_eq!((stat.newest, stat.records), (Some(T0 + 600), 1999));
    assert_eq!(stat.counters["redated"], 1999);
    node.close().await;
    let node = open(tmp.path(), settings(), &clock);
    node.wait_replayed();
    assert_eq!((node.found(1), node.found(7)), (vec![peer(1).id], vec![]));
    assert_eq!(node.store.stat().notes, Vec::<String>::new());
    node.advance(u64::from(TTL));
    assert_eq!(node.found(1), []);
    assert_eq!(node.store.records.collect_garbage().await.unwrap().expired, 1999);
}

#[tokio::test]
async fn a_clock_set_back_between_runs_serves_on_and_then_dates_anew() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    let node = open(tmp.path(), settings(), &clock);
    node.add(1, &peer(1)).await.unwrap();
    node.close().await;
    clock.set_wall(UnixTime(T0 - 500_000));
    let node = open(tmp.path(), settings(), &clock);
    node.wait_replayed();
    assert_eq!(node.found(1), [peer(1).id]);
    assert!(node.store.stat().gc_paused.unwrap().contains("stepped by -500000 s"));
    node.advance(600);
    node.store.records.collect_garbage().await.unwrap();
    assert_eq!(node.store.stat().newest, Some(T0 - 500_000 + 600));
    assert_eq!(node.found(1), [peer(1).id]);
    node.advance(u64::from(TTL));
    assert_eq!(node.found(1), []);
}

#[tokio::test]
async fn a_clock_set_forward_between_runs_loses_nothing_if_it_is_set_right_in_time() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    let node = open(tmp.path(), settings(), &clock);
    node.add(1, &peer(1)).await.unwrap();
    node.close().await;
    clock.set_wall(UnixTime(T0 + 500_000));
    let node = open(tmp.path(), settings(), &clock);
    node.wait_replayed();
    assert_eq!(node.found(1), [peer(1).id], "it ages by the newest stamp of the last run");
    node.advance(60);
    assert!(node.store.records.collect_garbage().await.unwrap().paused.is_some());
    clock.set_wall(UnixTime(T0 + 60));
    assert_eq!(node.found(1), [peer(1).id]);
    node.advance(600);
    node.store.records.collect_garbage().await.unwrap();
    assert_eq!(node.found(1), [peer(1).id]);
}

#[tokio::test]
async fn a_record_removed_while_the_log_is_replayed_stays_removed() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    let node = open(tmp.path(), settings(), &clock);
    for key in 0..20_000 {
        node.add(key, &peer((key % 5) as u8)).await.unwrap();
    }
    node.close().await;
    let node = open(tmp.path(), settings(), &clock);
    for key in 0..100 {
        node.store.records.remove(&multihash(key), &peer((key % 5) as u8).id).await;
    }
    node.wait_replayed();
    let left = (0..20_000).filter(|key| !node.found(*key).is_empty()).count();
    assert_eq!(left, 19_900);
    assert_eq!(node.store.stat().records, 19_900);
}

#[test]
fn a_directory_has_one_store() {
    let tmp = tempfile::tempdir().unwrap();
    let _node = open(tmp.path(), settings(), &clock());
    assert!(matches!(Lock::acquire(tmp.path()), Err(StoreError::Locked(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_lose_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    let node = open(tmp.path(), settings(), &clock);
    let writers: Vec<_> = (0..4u32)
        .map(|w| {
            let records = node.store.records.clone();
            tokio::spawn(async move {
                for key in 0..10_000 {
                    records.add(&multihash(key * 4 + w), &peer(w as u8), Dht::Wan).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    node.close().await;
    let node = open(tmp.path(), settings(), &clock);
    node.wait_replayed();
    assert_eq!((0..40_000).filter(|key| node.found(*key) == [peer((key % 4) as u8).id]).count(), 40_000);
}
