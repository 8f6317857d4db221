use super::{
    batch::{Named, Replayed},
    *,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const LIMITS: Limits = Limits { records: 1_000_000, per_key: 10_000, origin: [0; 12] };

fn index() -> Index {
    Index::new(LIMITS, (1, 2))
}

fn key_prefix(n: u8) -> KeyPrefix {
    let mut prefix = KeyPrefix::default();
    prefix[11] = n;
    prefix
}

fn named(key: u8, peer: u32, time: u32, removed: bool) -> Named {
    Named { prefix: key_prefix(key), peer, time, removed }
}

#[derive(Clone, Debug)]
enum Op {
    Add(u8, u32, u32),
    Remove(u8, u32),
    Collect(u8, u32, u32),
    Sweep(u32),
}

fn op() -> impl Strategy<Value = Op> {
    // Few keys and many peers, so that keys grow above `CHAIN` providers and shrink below it again.
    prop_oneof![
        8 => (0..3u8, 0..150u32, 0..50u32).prop_map(|(k, p, t)| Op::Add(k, p, t)),
        2 => (0..3u8, 0..150u32).prop_map(|(k, p)| Op::Remove(k, p)),
        2 => (0..3u8, 0..150u32, 0..50u32).prop_map(|(k, p, t)| Op::Collect(k, p, t)),
        1 => (0..20u32).prop_map(Op::Sweep),
    ]
}

proptest! {
    #[test]
    fn the_index_is_a_map_from_key_and_peer_to_time(ops in proptest::collection::vec(op(), 0..1200)) {
        let index = index();
        let mut model = BTreeMap::new();
        for op in ops {
            match op {
                Op::Add(k, p, t) => {
                    let was = model.insert((k, p), t);
                    let expected = if was.is_some() { Upsert::Refreshed } else { Upsert::New };
                    prop_assert_eq!(index.add(&key_prefix(k), p, true, |_| false, || t), Ok(expected));
                }
                Op::Remove(k, p) => {
                    prop_assert_eq!(index.remove(&key_prefix(k), p, false, || 0), model.remove(&(k, p)).is_some());
                }
                Op::Collect(k, p, t) => {
                    let goes = model.get(&(k, p)).is_some_and(|known| *known <= t);
                    let mut went = false;
                    index.collect(&[named(k, p, t, false)], |_| went = true);
                    prop_assert_eq!(went, goes);
                    if goes {
                        model.remove(&(k, p));
                    }
                }
                Op::Sweep(t) => {
                    let mut gone = 0;
                    index.sweep(|_, time| time < t, |_| gone += 1);
                    let before = model.len();
                    model.retain(|_, time| *time >= t);
                    prop_assert_eq!(gone, before - model.len());
                }
            }
            prop_assert_eq!(index.len(), model.len());
            prop_assert_eq!(index.keys(), model.keys().map(|(k, _)| k).collect::<BTreeSet<_>>().len());
        }
        for k in 0..3 {
            let mut found = BTreeMap::new();
            for (peer, time) in index.providers(&key_prefix(k), 1000, 0, |_| true) {
                prop_assert!(found.insert((k, peer), time).is_none());
            }
            let some = index.providers(&key_prefix(k), 20, u64::from(k), |time| time >= 25);
            let all = found.values().filter(|time| **time >= 25).count();
            prop_assert_eq!(some.len(), all.min(20));
            prop_assert!(some.iter().all(|(peer, time)| *time >= 25 && found.get(&(k, *peer)) == Some(time)));
            for p in 0..150 {
                prop_assert_eq!(index.time(&key_prefix(k), p), model.get(&(k, p)).copied());
            }
            prop_assert_eq!(found, model.range((k, 0)..=(k, u32::MAX)).map(|(k, v)| (*k, *v)).collect());
        }
    }

    /// Replays seconds in any order. Within one second the newest comes first.
    #[test]
    fn replay_ends_with_the_newest_state(
        log in proptest::collection::vec((any::<bool>(), 0..4u8, 0..3u32, 0..12u32), 0..120),
        order in Just((0..12u32).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut log = log;
        log.sort_by_key(|e| e.3);
        let mut model = BTreeMap::new();
        for (remove, key, peer, time) in &log {
            match remove {
                true => model.remove(&(*key, *peer)),
                false => model.insert((*key, *peer), *time),
            };
        }
        let index = index();
        let mut len = 0i64;
        for second in order {
            let of_second = log.iter().rev().filter(|e| e.3 == second);
            let entry = |(remove, key, peer, time): &(bool, u8, u32, u32)| named(*key, *peer, *time, *remove);
            let batch: Vec<Named> = of_second.map(entry).collect();
            let mut became = 0;
            index.replay(&batch, |_, outcome| {
                became += 1;
                match outcome {
                    Replayed::Added => len += 1,
                    Replayed::Removed => len -= 1,
                    Replayed::Known => {}
                    Replayed::Refused(full) => panic!("{full:?}"),
                }
            });
            prop_assert_eq!(became, batch.len());
        }
        prop_assert_eq!(index.len() as i64, len);
        index.forget_tombstones(|_| false);
        prop_assert_eq!(index.len(), model.len());
        for ((key, peer), time) in model {
            prop_assert_eq!(index.time(&key_prefix(key), peer), Some(time));
        }
    }
}

#[test]
fn bounds_refuse_new_records_and_take_refreshes() {
    let index = Index::new(Limits { records: 3, per_key: 2, origin: [0; 12] }, (1, 2));
    for peer in 0..2 {
        index.add(&key_prefix(0), peer, true, |_| false, || 1).unwrap();
    }
    assert_eq!(index.add(&key_prefix(0), 2, true, |_| false, || 1), Err(Full::Key));
    assert_eq!(index.add(&key_prefix(1), 0, false, |_| false, || 1), Err(Full::Barred));
    index.add(&key_prefix(1), 0, true, |_| false, || 1).unwrap();
    assert_eq!(index.add(&key_prefix(2), 0, true, |_| false, || 1), Err(Full::Records));
    assert_eq!(index.add(&key_prefix(0), 1, false, |_| false, || 2), Ok(Upsert::Refreshed));
    assert_eq!(index.add(&key_prefix(0), 1, true, |time| time == 2, || 3), Ok(Upsert::Kept));
    assert_eq!(index.time(&key_prefix(0), 1), Some(2));
}

#[test]
fn a_removal_during_replay_outlives_older_additions() {
    let index = index();
    assert!(!index.remove(&key_prefix(0), 1, true, || 50));
    index.replay(&[named(0, 1, 40, false)], |_, outcome| assert_eq!(outcome, Replayed::Known));
    assert_eq!(index.time(&key_prefix(0), 1), None);
    index.add(&key_prefix(0), 1, true, |_| false, || 50).unwrap();
    index.replay(&[named(0, 1, 45, false)], |_, outcome| assert_eq!(outcome, Replayed::Known));
    assert_eq!(index.time(&key_prefix(0), 1), Some(50));
}

#[test]
fn a_record_costs_at_most_32_bytes_however_many_there_are() {
    let index = Index::new(LIMITS, (3, 4));
    for n in 0..400_000u64 {
        let mut prefix = KeyPrefix::default();
        prefix[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        index.add(&prefix, 1, true, |_| false, || 1).unwrap();
        // The empty shards themselves take 256 kB.
        if n >= 100_000 && n % 10_000 == 0 {
            let each = (index.bytes() - Index::new(LIMITS, (3, 4)).bytes()) as f64 / n as f64;
            assert!(each <= 32.0, "{each} bytes at {n} records");
        }
    }
}

#[test]
fn keys_that_are_ground_to_lie_together_spread_over_the_tables_as_others_do() {
    let index = index();
    for n in 0..100_000u32 {
        let mut prefix = KeyPrefix::default();
        prefix[8..].copy_from_slice(&n.to_be_bytes());
        index.add(&prefix, 1, true, |_| false, || 1).unwrap();
    }
    // Tables hold 24 records on average, and 17 to 35 by their shares. Allow six standard deviations above that.
    let largest = index.shards.iter().map(|line| line.0.read().table.len()).max().unwrap();
    assert!(largest <= 35 + 36, "{largest}");
}

#[test]
fn near_the_limit_the_farthest_go_and_newcomers_as_far_are_refused() {
    let limits = Limits { records: 10_000, per_key: 10, origin: [0xa5; 12] };
    let index = Index::new(limits, (5, 6));
    let mut random = crate::kad::seeded::Seeded::new(1);
    let mut prefix = || {
        let mut prefix = KeyPrefix::default();
        prefix.iter_mut().for_each(|byte| *byte = random.next() as u8);
        prefix
    };
    let distance = |prefix: &KeyPrefix| -> KeyPrefix { std::array::from_fn(|i| prefix[i] ^ 0xa5) };
    while index.add(&prefix(), 1, true, |_| false, || 1) == Ok(Upsert::New) {}
    assert!(index.is_full());
    let mut dropped = 0;
    let went = index.make_room(|_| dropped += 1);
    assert_eq!((went, went), (dropped, limits.records - index.len()));
    let left = index.len();
    assert!((7_500..=9_375).contains(&left), "{left}");
    // Each record that is taken is nearer than each one that is refused.
    let (mut taken, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let prefix = prefix();
        match index.add(&prefix, 2, true, |_| false, || 2) {
            Ok(_) => taken.push(distance(&prefix)),
            Err(full) => {
                assert_eq!(full, Full::Far);
                refused.push(distance(&prefix));
            }
        }
    }
    assert!(!taken.is_empty() && taken.iter().max() < refused.iter().min());
    // Below 7/8, new records are taken from any distance. Refreshes are always taken.
    assert_eq!(index.make_room(|_| ()), 0);
    index.sweep(|_, time| time == 1, |_| ());
    assert_eq!(index.make_room(|_| ()), 0);
    let far: KeyPrefix = std::array::from_fn(|_| !0xa5);
    assert_eq!(index.add(&far, 3, true, |_| false, || 3), Ok(Upsert::New));
    assert_eq!(index.add(&far, 3, true, |_| false, || 4), Ok(Upsert::Refreshed));
}

#[test]
fn tables_that_were_reserved_do_not_grow_on_the_way() {
    let grown = Index::new(LIMITS, (3, 4));
    let reserved = Index::new(LIMITS, (3, 4));
    reserved.reserve(1_000_000);
    let before = reserved.bytes();
    for n in 0..1_000_000u64 {
        let mut prefix = KeyPrefix::default();
        prefix[..8].copy_from_slice(&n.to_be_bytes());
        for index in [&grown, &reserved] {
            index.add(&prefix, 1, true, |_| false, || 1).unwrap();
        }
    }
    assert!(
        reserved.bytes() <= before + before / 100,
        "{before} bytes were reserved, and {} are taken",
        reserved.bytes()
    );
    assert!(reserved.bytes() <= grown.bytes() + grown.bytes() / 10);
}
