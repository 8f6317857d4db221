//! The dump: it holds everything once and in order, from a running store and from a stopped one. A stopped one stays
//! unchanged.

use dhtstore::{
    clock::UnixTime,
    kad::{Dht, PeerInfo},
    store::{
        Settings, Store, StoreError,
        data_dir::Lock,
        dump::{self, Filter, Row, Stopped, Table, Told, Want},
        routing::SavedPeer,
    },
};
use dhtstore_testkit::{files::fingerprint, store::*};
use std::{fs, path::Path, time::Duration};

const TTL: Duration = Duration::from_secs(12 * 3600);

/// Fills a store: records of three hours, of which one is removed and some are refreshed, own CIDs, and a routing
/// table.
async fn filled(dir: &Path) -> Node {
    let node = open(dir, Settings::default(), &clock());
    for hour in 0..3 {
        for key in 0..500 {
            node.add(hour * 400 + key, &peer((key % 7) as u8)).await.unwrap();
        }
        node.advance(3600);
    }
    node.store.records.remove(&multihash(3), &peer(3).id).await;
    node.store.provided.add((0..700).map(own_cid).collect()).await.unwrap();
    let saved = (0..3).map(|n| SavedPeer { peer: peer(n), heard: UnixTime(T0) }).collect();
    node.store.routing.save(Dht::Lan, saved).await.unwrap();
    node.store.flush().await.unwrap();
    node
}

fn running(store: &Store, filter: &Filter) -> Vec<Row> {
    let mut rows = Vec::new();
    dump::running(store, filter, Want::NDJSON, &mut |told| collect(told, &mut rows)).unwrap();
    rows
}

fn collect(told: Told<'_>, rows: &mut Vec<Row>) -> bool {
    if let Told::Rows { json, .. } = told {
        rows.extend(dump::read_rows(json));
    }
    true
}

fn from(dir: &Path, in_place: bool, now: u32) -> Stopped<'_> {
    Stopped { dir, in_place, settings: Settings { ttl: TTL, ..Settings::default() }, now: UnixTime(now) }
}

fn stopped(dir: &Path, now: u32, filter: &Filter) -> Result<Vec<Row>, StoreError> {
    let mut rows = Vec::new();
    dump::stopped(from(dir, false, now), filter, Want::NDJSON, &mut |told| collect(told, &mut rows))?;
    Ok(rows)
}

fn only(table: Table) -> Filter {
    Filter { tables: vec![table], ..Filter::default() }
}

#[tokio::test]
async fn running_and_stopped_agree_and_the_directory_stays_byte_for_byte() {
    let tmp = tempfile::tempdir().unwrap();
    let node = filled(tmp.path()).await;
    let expected = running(&node.store, &Filter::default());
    node.close().await;
    let before = fingerprint(tmp.path());
    let now = T0 + 3 * 3600;
    let rows = stopped(tmp.path(), now, &Filter::default()).unwrap();
    assert_eq!(rows.len(), expected.len());
    assert!(rows == expected);
    assert_eq!(fingerprint(tmp.path()), before);
    let count = |which: fn(&Row) -> bool| rows.iter().filter(|row| which(row)).count();
    // Each of the 400 * 2 + 500 keys has one peer, or two where hours overlap. One record is removed.
    assert_eq!(count(|r| matches!(r, Row::Provided { .. })), 700);
    assert_eq!(count(|r| matches!(r, Row::Peers { .. })), 7);
    assert_eq!(count(|r| matches!(r, Row::Routing { .. })), 3);
    assert!(count(|r| matches!(r, Row::Meta { .. })) >= 8);
}

#[tokio::test]
async fn each_record_is_told_once_with_its_newest_state_in_log_order() {
    let tmp = tempfile::tempdir().unwrap();
    let node = filled(tmp.path()).await;
    let mut seen = std::collections::BTreeSet::new();
    let mut last = String::new();
    for row in running(&node.store, &only(Table::Providers)) {
        let Row::Providers { cid, multihash, provider, received, addresses, expires_in_s, .. } = row else { panic!() };
        assert!(received >= last);
        last = received;
        assert_eq!(addresses.len(), 1);
        assert!(expires_in_s > 0 && expires_in_s <= 12 * 3600);
        let parsed: cid::Cid = cid.parse().unwrap();
        assert_eq!((parsed.codec(), parsed.version()), (0x55, cid::Version::V1));
        assert_eq!(multibase::Base::Base58Btc.encode(parsed.hash().to_bytes()), multihash);
        assert!(seen.insert((cid, provider)));
    }
    assert_eq!(seen.len() as u64, node.store.stat().records);
}

#[tokio::test]
async fn a_killed_node_is_dumped_and_stays_as_it_is() {
    let tmp = tempfile::tempdir().unwrap();
    let image = tmp.path().join("image");
    let node = filled(&tmp.path().join("a")).await;
    let expected = running(&node.store, &only(Table::Providers));
    kill(&tmp.path().join("a"), &image);
    drop(node);
    fs::write(image.join("records/snap.00000000FFFFFFFF.generating"), b"").unwrap();
    let before = fingerprint(&image);
    assert!(stopped(&image, T0 + 3 * 3600, &only(Table::Providers)).unwrap() == expected);
    assert_eq!(fingerprint(&image), before);
}

#[tokio::test]
async fn damage_is_told_and_the_directory_stays_as_it_is() {
    let tmp = tempfile::tempdir().unwrap();
    filled(tmp.path()).await.close().await;
    fs::write(tmp.path().join("records/db"), vec![0xa5; 1 << 20]).unwrap();
    let before = fingerprint(tmp.path());
    let (mut rows, mut places) = (Vec::new(), Vec::new());
    let summary =
        dump::stopped(from(tmp.path(), false, T0 + 3 * 3600), &Filter::default(), Want::NDJSON, &mut |told| {
            if let Told::Damaged { place, .. } = &told {
                places.push(place.clone());
            }
            collect(told, &mut rows)
        })
        .unwrap();
    assert!(places.iter().any(|place| place == "copy of the database"), "the damage is not reported: {places:?}");
    assert_eq!(summary.damaged, places.len() as u64);
    assert_eq!(rows.iter().filter(|r| matches!(r, Row::Provided { .. })).count(), 700);
    assert_eq!(fingerprint(tmp.path()), before);
}

#[tokio::test]
async fn filters_and_the_limit_hold() {
    let tmp = tempfile::tempdir().unwrap();
    let node = filled(tmp.path()).await;
    let all = running(&node.store, &only(Table::Providers));
    let with = |change: fn(&mut Filter)| {
        let mut filter = only(Table::Providers);
        change(&mut filter);
        running(&node.store, &filter)
    };
    assert!(with(|f| f.limit = Some(5)) == all[..5]);
    assert_eq!(with(|f| f.limit = Some(0)).len(), 0);
    let of_key = with(|f| f.cid = Some(own_cid(450).to_string()));
    assert!(!of_key.is_empty() && of_key.len() <= 2);
    let Row::Providers { multihash, .. } = &of_key[0] else { panic!() };
    let by_multihash = running(&node.store, &Filter { cid: Some(multihash.clone()), ..only(Table::Providers) });
    assert!(by_multihash == of_key);
    let peer_2 = running(&node.store, &Filter { peer: Some(peer(2).id.to_string()), ..only(Table::Providers) });
    assert!(peer_2.iter().all(|r| matches!(r, Row::Providers { provider, .. } if *provider == peer(2).id.to_string())));
    let hour = |from: u32| Filter { since: Some(T0 + from), until: Some(T0 + from + 3600), ..only(Table::Providers) };
    let hours: usize = (0..3).map(|h| running(&node.store, &hour(h * 3600)).len()).sum();
    assert_eq!(hours, all.len());
    let tables = running(&node.store, &Filter { peer: Some(peer(2).id.to_string()), ..Filter::default() });
    assert!(
        tables.iter().any(|r| matches!(r, Row::Routing { .. }))
            && tables.iter().any(|r| matches!(r, Row::Peers { .. }))
    );
    assert!(!tables.iter().any(|r| matches!(r, Row::Provided { .. } | Row::Meta { .. })));
    for filter in [
        Filter { cid: Some("nonsense!".into()), ..Filter::default() },
        Filter { peer: Some("x".into()), ..Filter::default() },
    ] {
        let outcome = dump::running(&node.store, &filter, Want::Count, &mut |_| true);
        assert!(matches!(outcome, Err(StoreError::BadFilter { .. })));
    }
    let mut rows = 0;
    let stop = |told: Told<'_>| {
        rows += u64::from(matches!(told, Told::Rows { .. }));
        rows < 3
    };
    dump::running(&node.store, &Filter::default(), Want::NDJSON, &mut { stop }).unwrap();
    assert_eq!(rows, 3, "the dump must stop when its reader is gone");
}

#[tokio::test]
async fn expired_records_are_told_when_asked_for() {
    let tmp = tempfile::tempdir().unwrap();
    let node = filled(tmp.path()).await;
    let all = running(&node.store, &only(Table::Providers)).len();
    node.close().await;
    // The records of the first hour have expired.
    let now = T0 + 12 * 3600 + 1800;
    let live = stopped(tmp.path(), now, &only(Table::Providers)).unwrap().len();
    let rows = stopped(tmp.path(), now, &Filter { expired: true, ..only(Table::Providers) }).unwrap();
    assert_eq!(rows.len(), all);
    let expired =
        rows.iter().filter(|r| matches!(r, Row::Providers { expires_in_s, .. } if *expires_in_s <= 0)).count();
    assert!(expired > 0);
    assert_eq!(live + expired, all);
}

#[tokio::test]
async fn multihashes_of_any_length_have_a_cid() {
    let tmp = tempfile::tempdir().unwrap();
    let node = open(tmp.path(), Settings::default(), &clock());
    let mut long = vec![0x00, 78];
    long.extend_from_slice(&[7; 78]);
    node.store.records.add(&long, &PeerInfo { addrs: vec![], ..peer(1) }, Dht::Wan).await.unwrap();
    let rows = running(&node.store, &only(Table::Providers));
    assert!(matches!(&rows[0], Row::Providers { cid, .. } if cid.starts_with('b')));
}

#[test]
fn nothing_is_created_where_there_is_no_database() {
    let tmp = tempfile::tempdir().unwrap();
    for dir in [tmp.path().to_owned(), tmp.path().join("nowhere")] {
        assert!(matches!(stopped(&dir, T0, &Filter::default()), Err(StoreError::NoDatabase(_))));
    }
    assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_directory_in_use_is_locked() {
    let tmp = tempfile::tempdir().unwrap();
    let _node = filled(tmp.path()).await;
    assert!(matches!(stopped(tmp.path(), T0, &Filter::default()), Err(StoreError::Locked(_))));
    let in_place = dump::stopped(from(tmp.path(), true, T0), &Filter::default(), Want::Count, &mut |_| true);
    assert!(matches!(in_place, Err(StoreError::Locked(_))));
}

#[tokio::test]
async fn in_place_tells_the_same_and_the_node_starts_afterwards() {
    let tmp = tempfile::tempdir().unwrap();
    filled(tmp.path()).await.close().await;
    let now = T0 + 3 * 3600;
    let expected = stopped(tmp.path(), now, &Filter::default()).unwrap();
    let mut rows = Vec::new();
    dump::stopped(from(tmp.path(), true, now), &Filter::default(), Want::NDJSON, &mut |told| collect(told, &mut rows))
        .unwrap();
    assert!(rows == expected);
    let lock = Lock::acquire(tmp.path()).unwrap();
    let store = Store::open(&lock, Settings::default(), clock()).unwrap();
    assert!(store.records.wait_replayed());
    assert!(store.stat().records > 1000);
}
