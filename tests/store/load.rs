//! Loading a dump of one store into another: rows keep their times, yield to newer ones, and survive a restart.

use dhtstore::{
    clock::{ManualClock, UnixTime},
    kad::{Dht, PeerInfo},
    store::{
        Settings, Store,
        dump::{self, Filter, Mark, Summary, Told, Want},
        load::{Loader, Report},
        routing::SavedPeer,
    },
};
use dhtstore_testkit::store::*;
use std::{path::Path, sync::Arc};

/// Time at which the fixture was written.
const FIXTURE_TIME: u32 = T0 + 7200;

/// Fills a store: records of three hours, of which one is removed and some are refreshed, own CIDs, a value, and
/// routing tables.
async fn filled(dir: &Path) -> Node {
    let node = open(dir, Settings::default(), &clock());
    for hour in 0..3 {
        for key in 0..500 {
            node.add(hour * 400 + key, &peer((key % 7) as u8)).await.unwrap();
        }
        let lan = PeerInfo { addrs: vec!["/ip4/10.0.0.7/tcp/4001".parse().unwrap()], ..peer(2) };
        node.store.records.add(&multihash(2), &lan, Dht::Lan).await.unwrap();
        node.advance(3600);
    }
    node.store.records.remove(&multihash(3), &peer(3).id).await;
    node.store.provided.add((0..700).map(own_cid).collect()).await.unwrap();
    let place = dhtstore::kad::keyspace::Key::for_content(&multihash(5));
    node.store.provided.mark_announced(&[(place, 17)], UnixTime(T0 + 3600));
    for dht in Dht::ALL {
        let saved = (0..3).map(|n| SavedPeer { peer: peer(n), heard: UnixTime(T0 + u32::from(n)) }).collect();
        node.store.routing.save(dht, saved).await.unwrap();
    }
    let keys = libp2p::identity::Keypair::from_protobuf_encoding(&throwaway_rsa()).unwrap();
    let key = [b"/pk/", &keys.public().to_peer_id().to_bytes()[..]].concat();
    node.store.values.put(key, keys.public().encode_protobuf()).await.unwrap();
    node.store.flush().await.unwrap();
    node
}

fn throwaway_rsa() -> Vec<u8> {
    let text = include_str!("../fixtures/throwaway-rsa.base64");
    multibase::Base::Base64Pad.decode(text.split_whitespace().collect::<String>()).unwrap()
}

fn lines(store: &Store) -> Vec<u8> {
    let mut lines = Vec::new();
    dump::running(store, &Filter::default(), Want::NDJSON, &mut |told| {
        if let Told::Rows { json, .. } = told {
            lines.extend_from_slice(json);
        }
        true
    })
    .unwrap();
    lines
}

fn hash(store: &Store) -> Summary {
    dump::running(store, &Filter::default(), Want::Hash, &mut |_| true).unwrap()
}

/// Loads lines as a server does, on a thread that may block.
async fn load(node: &Node, lines: Vec<u8>, provided: bool) -> Report {
    let store = node.store.clone();
    tokio::task::spawn_blocking(move || Loader::new(store).load(&lines, 1, provided).unwrap()).await.unwrap()
}

/// Opens a store whose clock stands at `time`.
fn empty_at(dir: &Path, time: u32) -> Node {
    let clock: Arc<ManualClock> = ManualClock::at(UnixTime(time));
    open(dir, Settings::default(), &clock)
}

#[tokio::test]
async fn a_loaded_copy_has_the_hash_of_its_source_also_after_a_restart() {
    let tmp = tempfile::tempdir().unwrap();
    let source = filled(&tmp.path().join("a")).await;
    let expected = hash(&source.store);
    assert_eq!(expected.tables.values().map(|table| table.rows).sum::<u64>(), expected.rows);
    assert!(["providers", "values", "provided", "peers", "routing"].iter().all(|t| expected.tables[*t].rows > 0));
    let dir = tmp.path().join("b");
    let copy = empty_at(&dir, T0 + 3 * 3600);
    let report = load(&copy, lines(&source.store), true).await;
    assert_eq!((report.bad, report.bad_lines), (0, Vec::new()));
    assert_eq!(
        report.tables["providers"].iter().collect::<Vec<_>>(),
        [(&"loaded".to_owned(), &expected.tables["providers"].rows)]
    );
    assert_eq!(hash(&copy.store), expected);
    copy.store.flush().await.unwrap();
    // A second load of the same rows changes nothing.
    let chunks = copy.store.stat().log_chunks;
    let again = load(&copy, lines(&source.store), true).await;
    assert_eq!((again.rows("known"), again.rows("loaded")), (expected.rows, 0), "{again:?}");
    copy.store.flush().await.unwrap();
    assert_eq!(copy.store.stat().log_chunks, chunks);
    copy.close().await;
    let copy = empty_at(&dir, T0 + 3 * 3600);
    copy.wait_replayed();
    assert_eq!(hash(&copy.store), expected);
    // Loaded records expire when they would have expired in the source.
    for node in [&source, &copy] {
        node.advance(9 * 3600 + 1800);
    }
    assert_eq!(hash(&copy.store).tables["providers"], hash(&source.store).tables["providers"]);
    assert!(hash(&copy.store).tables["providers"].rows < expected.tables["providers"].rows);
}

#[tokio::test]
async fn a_hash_depends_on_neither_order_nor_batches() {
    let tmp = tempfile::tempdir().unwrap();
    let source = filled(&tmp.path().join("a")).await;
    let all = lines(&source.store);
    let mut shuffled: Vec<&[u8]> = all.split_inclusive(|byte| *byte == b'\n').collect();
    shuffled.sort_by_key(|line| crc(line));
    let copy = empty_at(&tmp.path().join("b"), T0 + 3 * 3600);
    for batch in shuffled.chunks(97) {
        assert_eq!(load(&copy, batch.concat(), true).await.bad, 0);
    }
    assert_eq!(hash(&copy.store), hash(&source.store));
    source.add(9_999, &peer(1)).await.unwrap();
    assert_ne!(hash(&copy.store).hash, hash(&source.store).hash);
}

fn crc(line: &[u8]) -> u32 {
    crc32fast::hash(line)
}

#[tokio::test]
async fn what_was_removed_here_later_stays_removed_also_after_a_restart() {
    let tmp = tempfile::tempdir().unwrap();
    let node = open(tmp.path(), Settings::default(), &clock());
    for key in 0..3 {
        node.add(key, &peer(1)).await.unwrap();
    }
    node.advance(1000);
    let old = lines(&node.store);
    assert!(node.store.records.remove(&multihash(1), &peer(1).id).await);
    let report = load(&node, old.clone(), false).await;
    assert_eq!((report.tables["providers"]["removed"], report.tables["providers"]["known"]), (1, 2));
    assert_eq!(node.found(1), []);
    node.close().await;
    let node = empty_at(tmp.path(), T0 + 2000);
    node.wait_replayed();
    // After the restart the removal is known from the log.
    assert_eq!(load(&node, old, false).await.tables["providers"]["removed"], 1);
    assert_eq!(node.found(1), []);
    // A newer announcement wins over the removal.
    node.add(1, &peer(1)).await.unwrap();
    let newer = lines(&node.store);
    assert!(node.store.records.remove(&multihash(1), &peer(1).id).await);
    node.advance(50_000);
    node.store.records.collect_garbage().await.unwrap();
    assert_eq!(load(&node, newer, false).await.tables["providers"]["expired"], 3);
}

#[tokio::test]
async fn expired_rows_and_rows_of_the_future_are_left_out() {
    let tmp = tempfile::tempdir().unwrap();
    let source = filled(&tmp.path().join("a")).await;
    let rows = hash(&source.store).tables["providers"].rows;
    let late = empty_at(&tmp.path().join("late"), T0 + 13 * 3600 + 1800);
    let report = load(&late, lines(&source.store), false).await;
    assert!(report.tables["providers"]["expired"] > 0 && report.tables["providers"]["loaded"] > 0);
    assert_eq!(report.tables["providers"].values().sum::<u64>(), rows);
    assert_eq!(report.tables["provided"]["left_out"], 700);
    let early = empty_at(&tmp.path().join("early"), T0 - 86_400);
    assert_eq!(load(&early, lines(&source.store), false).await.tables["providers"]["future"], rows);
    assert_eq!(early.store.stat().records, 0);
    // A clock that is 30 s behind is close enough.
    let slow = empty_at(&tmp.path().join("slow"), T0 + 2 * 3600 - 30);
    let report = load(&slow, lines(&source.store), false).await;
    assert_eq!(report.tables["providers"]["loaded"], rows);
    let now = format!("{}", UnixTime(T0 + 2 * 3600 - 30));
    assert!(String::from_utf8(lines(&slow.store)).unwrap().contains(&now));
}

#[tokio::test]
async fn limits_hold_and_refusals_are_told() {
    let tmp = tempfile::tempdir().unwrap();
    let source = filled(&tmp.path().join("a")).await;
    let rows = hash(&source.store).tables["providers"].rows;
    let limited = |name: &str, settings: Settings| {
        open(&tmp.path().join(name), settings, &ManualClock::at(UnixTime(T0 + 3 * 3600)))
    };
    for (name, settings, records) in [
        ("max", Settings { max_records: 100, ..Settings::default() }, 100),
        ("provider", Settings { max_records_per_provider: 10, ..Settings::default() }, 70),
        ("peers", Settings { max_peers: 2, ..Settings::default() }, 0),
    ] {
        let node = limited(name, settings);
        let report = load(&node, lines(&source.store), false).await;
        let loaded = report.tables["providers"]["loaded"];
        let refused: u64 =
            report.tables["providers"].iter().filter(|(o, _)| o.starts_with("refused")).map(|(_, n)| n).sum();
        assert_eq!(loaded + refused, rows, "{report:?}");
        assert!(refused > 0 && (records == 0 || loaded == records), "{name}: {report:?}");
        assert_eq!(node.store.stat().records, loaded);
    }
}

#[tokio::test]
async fn bad_lines_are_told_by_number_and_keep_nothing_out() {
    let tmp = tempfile::tempdir().unwrap();
    let source = filled(&tmp.path().join("a")).await;
    let all = lines(&source.store);
    let mut with_bad = b"{\"table\":\"providers\"}\nnonsense\n\xff\n".to_vec();
    with_bad.extend_from_slice(&all);
    with_bad.extend_from_slice(&vec![b'x'; dump::MAX_LINE + 1]);
    let copy = empty_at(&tmp.path().join("b"), T0 + 3 * 3600);
    let report = load(&copy, with_bad, true).await;
    let last = 4 + all.iter().filter(|byte| **byte == b'\n').count() as u64;
    assert_eq!(report.bad_lines.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 2, 3, last]);
    assert_eq!(hash(&copy.store), hash(&source.store));
}

#[tokio::test]
async fn a_dump_of_version_1_is_loaded_for_ever() {
    let tmp = tempfile::tempdir().unwrap();
    let text = include_str!("../fixtures/dump-1.ndjson");
    let mut rows = Vec::new();
    let (mut header, mut end) = (None, None);
    for line in text.lines() {
        match Mark::read(line.as_bytes()).unwrap() {
            Some(Mark::Header(found)) => header = Some(found),
            Some(Mark::End(found)) => end = Some(found),
            None => rows.push(line),
        }
    }
    assert_eq!((header.unwrap().version, end.unwrap().rows), (1, rows.len() as u64));
    let node = empty_at(tmp.path(), FIXTURE_TIME);
    let report = load(&node, rows.join("\n").into_bytes(), true).await;
    // A row of a peer may count as known: the store then has the same facts from the records of that peer.
    let taken: u64 = ["loaded", "known", "left_out"].iter().map(|outcome| report.rows(outcome)).sum();
    assert_eq!((report.bad, taken), (0, rows.len() as u64), "{report:?}");
    // A new dump has the same rows.
    let mut before: Vec<&str> = rows.iter().filter(|row| !row.contains("\"table\":\"meta\"")).copied().collect();
    let after = String::from_utf8(lines(&node.store)).unwrap();
    let mut after: Vec<&str> = after.lines().filter(|row| !row.contains("\"table\":\"meta\"")).collect();
    before.sort_unstable();
    after.sort_unstable();
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_hundred_thousand_records_come_over_quickly() {
    let tmp = tempfile::tempdir().unwrap();
    let source = open(&tmp.path().join("a"), Settings::default(), &clock());
    for key in 0..110_000 {
        source.add(key, &peer((key % 200) as u8)).await.unwrap();
        if key % 1_000 == 0 {
            source.advance(1);
        }
    }
    let all = lines(&source.store);
    let copy = empty_at(&tmp.path().join("b"), T0 + 110);
    let report = load(&copy, all, false).await;
    assert_eq!(report.tables["providers"]["loaded"], 110_000);
    assert_eq!(hash(&copy.store), hash(&source.store));
}
