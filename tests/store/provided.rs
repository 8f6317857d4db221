//! Own CIDs: they are ordered by keyspace, on disk once they are acknowledged, and never lost.

use cid::multihash::Multihash;
use dhtstore::{
    clock::UnixTime,
    kad::{Cid, keyspace::Key},
    store::{Settings, StoreError, jobs::JobRun},
};
use dhtstore_testkit::store::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn cid(n: u32, codec: u64) -> Cid {
    Cid::new_v1(codec, Multihash::from_bytes(&multihash(n)).unwrap())
}

#[derive(Clone, Debug)]
enum Op {
    Add(Vec<u32>),
    Remove(Vec<u32>),
    Mark(u16),
    Flush,
    Reopen,
    Kill,
}

fn op() -> impl Strategy<Value = Op> {
    let some = || proptest::collection::vec(0..900u32, 0..300);
    prop_oneof![
        4 => some().prop_map(Op::Add),
        2 => some().prop_map(Op::Remove),
        1 => any::<u16>().prop_map(Op::Mark),
        1 => Just(Op::Flush),
        1 => Just(Op::Reopen),
        2 => Just(Op::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, max_shrink_iters: 30, ..ProptestConfig::default() })]
    #[test]
    fn what_was_acknowledged_is_there_after_a_kill(ops in proptest::collection::vec(op(), 1..18)) {
        tokio::runtime::Runtime::new().unwrap().block_on(against_the_model(ops))?;
    }
}

async fn against_the_model(ops: Vec<Op>) -> Result<(), TestCaseError> {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    let mut dir = tmp.path().join("0");
    let mut node = open(&dir, Settings::default(), &clock);
    let mut model: BTreeMap<u32, Option<u16>> = BTreeMap::new();
    for (i, op) in ops.into_iter().enumerate() {
        let mut marks_may_be_lost = false;
        match op {
            Op::Add(some) => {
                let before = model.len();
                for n in &some {
                    model.entry(*n).or_insert(None);
                }
                let new = node.store.provided.add(some.iter().map(|n| cid(*n, 0x55)).collect()).await.unwrap();
                prop_assert_eq!(new, model.len() - before);
            }
            Op::Remove(some) => {
                let before = model.len();
                for n in &some {
                    model.remove(n);
                }
                let gone = node.store.provided.remove(some.iter().map(|n| multihash(*n)).collect()).await.unwrap();
                prop_assert_eq!(gone, before - model.len());
            }
            Op::Mark(confirmed) => {
                let some = node.store.provided.range(&Key::from_bytes([0; 32]), 100);
                let done: Vec<(Key, u16)> = some.iter().map(|(key, _)| (*key, confirmed)).collect();
                node.store.provided.mark_announced(&done, UnixTime(T0 + 5));
                for n in model.iter_mut() {
                    if some.iter().any(|(_, own)| own.cid == cid(*n.0, 0x55)) {
                        *n.1 = Some(confirmed);
                    }
                }
            }
            Op::Flush => node.store.flush().await.unwrap(),
            Op::Reopen => {
                node.close().await;
                node = open(&dir, Settings::default(), &clock);
            }
            Op::Kill => {
                let image = tmp.path().join(format!("{}", i + 1));
                kill(&dir, &image);
                drop(node);
                dir = image;
                node = open(&dir, Settings::default(), &clock);
                marks_may_be_lost = true;
            }
        }
        prop_assert_eq!(node.store.provided.len(), model.len());
        let mut last = None;
        for (key, own) in node.store.provided.range(&Key::from_bytes([0; 32]), usize::MAX) {
            prop_assert!(last < Some(key));
            last = Some(key);
            let n = (0..900).find(|n| cid(*n, 0x55) == own.cid).unwrap();
            let expected = model.get_mut(&n).unwrap();
            let found = own.announced.map(|_| own.confirmed);
            match marks_may_be_lost {
                true => *expected = found,
                false => prop_assert_eq!(found, *expected),
            }
        }
        prop_assert_eq!(node.store.stat().notes, Vec::<String>::new());
    }
    Ok(())
}

#[tokio::test]
async fn announcements_are_on_disk_with_the_next_flush() {
    let tmp = tempfile::tempdir().unwrap();
    let (dir, image) = (tmp.path().join("a"), tmp.path().join("b"));
    let clock = clock();
    let node = open(&dir, Settings::default(), &clock);
    node.store.provided.add((0..1000).map(|n| cid(n, 0x55)).collect()).await.unwrap();
    let all = node.store.provided.range(&Key::from_bytes([0; 32]), 2000);
    let done: Vec<(Key, u16)> = all.iter().map(|(key, _)| (*key, 20)).collect();
    node.store.provided.mark_announced(&done, UnixTime(T0 + 9));
    node.store.flush().await.unwrap();
    kill(&dir, &image);
    drop(node);
    let node = open(&image, Settings::default(), &clock);
    let own = node.store.provided.get(&multihash(77)).unwrap();
    assert_eq!((own.announced, own.confirmed, own.added), (Some(UnixTime(T0 + 9)), 20, UnixTime(T0)));
}

#[tokio::test]
async fn one_per_multihash_with_the_codec_last_given() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    let node = open(tmp.path(), Settings::default(), &clock);
    assert_eq!(node.store.provided.add(vec![cid(1, 0x55), cid(1, 0x70)]).await.unwrap(), 1);
    assert_eq!(node.store.provided.add(vec![cid(1, 0x71)]).await.unwrap(), 0);
    node.close().await;
    let node = open(tmp.path(), Settings::default(), &clock);
    assert_eq!(node.store.provided.get(&multihash(1)).unwrap().cid, cid(1, 0x71));
    assert_eq!(node.store.provided.len(), 1);
}

#[tokio::test]
async fn the_limit_takes_all_or_none() {
    let tmp = tempfile::tempdir().unwrap();
    let node = open(tmp.path(), Settings { max_provided: 10, ..Settings::default() }, &clock());
    node.store.provided.add((0..8).map(|n| cid(n, 0x55)).collect()).await.unwrap();
    let refused = node.store.provided.add((8..11).map(|n| cid(n, 0x55)).collect()).await;
    assert!(matches!(refused, Err(StoreError::Full { limit: 10, .. })));
    assert_eq!(node.store.provided.len(), 8);
    assert_eq!(node.store.provided.add((5..10).map(|n| cid(n, 0x55)).collect()).await.unwrap(), 2);
}

#[tokio::test]
async fn ranges_go_through_the_keyspace_in_order() {
    let tmp = tempfile::tempdir().unwrap();
    let node = open(tmp.path(), Settings::default(), &clock());
    node.store.provided.add((0..100).map(|n| cid(n, 0x55)).collect()).await.unwrap();
    let all = node.store.provided.range(&Key::from_bytes([0; 32]), 1000);
    let half = node.store.provided.range(&all[50].0, 10);
    assert_eq!(half, all[50..60]);
}

#[tokio::test]
async fn exports_are_bounded() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    for n in 0..8 {
        let node = open(tmp.path(), Settings::default(), &clock);
        node.store.provided.add(vec![cid(n, 0x55)]).await.unwrap();
        node.close().await;
    }
    let names: Vec<_> =
        std::fs::read_dir(tmp.path().join("exports")).unwrap().flatten().map(|e| e.file_name()).collect();
    let exports = names.iter().filter(|n| n.to_string_lossy().ends_with(".export")).count();
    assert_eq!(exports, 3, "{names:?}");
    assert!(names.len() <= 8, "{names:?}");
}

#[tokio::test]
async fn jobs_are_remembered() {
    let tmp = tempfile::tempdir().unwrap();
    let clock = clock();
    let node = open(tmp.path(), Settings::default(), &clock);
    let run = JobRun { started: UnixTime(T0), took_ms: 12, outcome: "3 records".into(), ok: true };
    assert_eq!(node.store.jobs.last("gc"), None);
    node.store.jobs.record("gc", &run).unwrap();
    node.store.jobs.record("gc", &JobRun { outcome: "ä".repeat(5000), ..run.clone() }).unwrap();
    node.store.jobs.record("reprovide", &run).unwrap();
    node.close().await;
    let node = open(tmp.path(), Settings::default(), &clock);
    assert_eq!(node.store.jobs.last("reprovide"), Some(run));
    assert_eq!(node.store.jobs.last("gc").unwrap().outcome.len(), 4096);
}
