//! The record store against one sled row per record, in the same run: a million records, 70 % of them of keys with one
//! provider and 30 % of keys with ten, by 20,000 peers.
//!
//! `cargo bench --bench store [-- RECORDS]`. CPU is that of the whole process, from `/proc/self/stat`; on a busy machine
//! it tells more than the clock does.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a benchmark ends with the first error")]
#![allow(clippy::disallowed_methods, reason = "measures time")]

use dhtstore::{
    clock::{ManualClock, UnixTime},
    kad::{Dht, PeerInfo},
    store::{Settings, Store, data_dir::Lock},
};
use libp2p::{PeerId, multihash::Multihash};
use rand::{Rng, SeedableRng, rngs::StdRng};
use sha2::{Digest, Sha256};
use std::{
    fs,
    hint::black_box,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

const PEERS: usize = 20_000;
const LOOKUPS: usize = 200_000;
const T0: u32 = 1_700_000_000;
/// Announcements per second of log time: a busy server, so that chunks are full.
const PER_SECOND: usize = 50_000;

fn main() {
    let records = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(1_000_000usize);
    let data = Data::new(records);
    println!("{records} records, {} keys, {PEERS} peers", data.keys);
    let ours = ours(&data);
    let rows = rows(&data);
    println!("\n{:34} {:>12} {:>12} {:>8}", "", "dhtstore", "sled rows", "ratio");
    for (ours, rows) in ours.iter().zip(&rows) {
        let (name, unit, a) = ours;
        let (_, _, b) = rows;
        println!("{:34} {a:>12.2} {b:>12.2} {:>8.2}", format!("{name}, {unit}"), a / b);
    }
    for (name, unit, value) in &ours[rows.len()..] {
        println!("{:34} {value:>12.2}", format!("{name}, {unit}"));
    }
    let wanted = [("upserts", 1e6, true), ("hit p50", 1.0, false), ("GC", 1.0, false)];
    for (what, bound, at_least) in wanted {
        let value = ours.iter().find(|(name, ..)| *name == what).unwrap().2;
        let met = if at_least { value >= bound } else { value <= bound };
        println!(
            "wanted {what} {} {bound}: {}",
            if at_least { ">=" } else { "<=" },
            if met { "met" } else { "NOT met" }
        );
    }
}

type Figures = Vec<(&'static str, &'static str, f64)>;

struct Data {
    /// Multihash and number of its provider, in the order of announcement.
    records: Vec<([u8; 34], u32)>,
    peers: Vec<PeerInfo>,
    keys: usize,
}

impl Data {
    fn new(records: usize) -> Self {
        let mut random = StdRng::seed_from_u64(1);
        let single = records * 7 / 10;
        let keys = single + (records - single) / 10;
        let mut all: Vec<([u8; 34], u32)> = (0..records)
            .map(|n| {
                let key = if n < single { n } else { single + (n - single) % (keys - single) };
                (multihash(key), random.random_range(0..PEERS as u32))
            })
            .collect();
        for i in (1..all.len()).rev() {
            all.swap(i, random.random_range(0..=i));
        }
        let peers = (0..PEERS)
            .map(|n| {
                let digest = Sha256::digest(n.to_le_bytes());
                let id = PeerId::from_multihash(Multihash::wrap(0x12, &digest).unwrap()).unwrap();
                let addr = |port: usize| format!("/ip4/10.{}.{}.1/tcp/{port}", n / 250, n % 250).parse().unwrap();
                PeerInfo { id, addrs: vec![addr(4001), addr(4002)] }
            })
            .collect();
        Self { records: all, peers, keys }
    }
}

fn multihash(key: usize) -> [u8; 34] {
    let mut bytes = [0; 34];
    bytes[..2].copy_from_slice(&[0x12, 0x20]);
    bytes[2..].copy_from_slice(&Sha256::digest(key.to_le_bytes()));
    bytes
}

fn ours(data: &Data) -> Figures {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(UnixTime(T0));
    let records = data.records.len();
    let open = || {
        let lock = Lock::acquire(dir.path()).unwrap();
        let store = Store::open(&lock, Settings::default(), clock.clone()).unwrap();
        (lock, store)
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let before = rss();
    let (lock, store) = open();
    let load = measure(|| {
        announce(&store, data, &data.records, &clock);
        runtime.block_on(store.flush()).unwrap();
    });
    let loaded = rss();
    let index = store.records.index_bytes();
    // The same again, past the five minutes within which a repeat is not written.
    clock.advance(Duration::from_secs(3600));
    let refresh = measure(|| {
        announce(&store, data, &data.records, &clock);
        runtime.block_on(store.flush()).unwrap();
    });
    // A peer writes its own records: through the async door, one task.
    clock.advance(Duration::from_secs(3600));
    let through_async = measure(|| {
        runtime.block_on(async {
            for (i, (multihash, peer)) in data.records.iter().enumerate() {
                tick(&clock, i);
                store.records.add(multihash, &data.peers[*peer as usize], Dht::Wan).await.unwrap();
            }
            store.flush().await.unwrap();
        });
    });
    clock.advance(Duration::from_secs(3600));
    let on_all_cores = measure(|| {
        std::thread::scope(|scope| {
            let threads = std::thread::available_parallelism().unwrap().get();
            for part in data.records.chunks(records.div_ceil(threads)) {
                scope.spawn(|| announce(&store, data, part, &clock));
            }
        });
        runtime.block_on(store.flush()).unwrap();
    });
    let (hit, miss) = look_up(data, |key| store.records.providers_now(key, 20, 1).len());
    let (seen, _) = look_up(data, |key| usize::from(store.records.providers_now(key, 1, 1).is_empty()));
    runtime.block_on(store.close()).unwrap();
    let disk = bytes_below(&dir.path().join("records"));
    let distinct = store.stat().records;
    drop((store, lock));
    let restart = measure(|| {
        let (lock, store) = open();
        assert!(store.records.wait_replayed());
        assert_eq!(store.stat().records, distinct);
        drop((store, lock));
    });
    let (_lock, store) = open();
    store.records.wait_replayed();
    // The three older copies first: 12 h after the last of them, and the grace after a restart.
    clock.advance(Duration::from_secs(11 * 3600 + 1800));
    let copies = measure(|| {
        let report = runtime.block_on(store.records.collect_garbage()).unwrap();
        assert_eq!((report.expired, report.paused), (0, None));
    });
    clock.advance(Duration::from_secs(3600));
    let gc = measure(|| {
        let report = runtime.block_on(store.records.collect_garbage()).unwrap();
        assert_eq!((report.expired, report.paused), (distinct, None));
    });
    vec![
        ("upserts", "1/s", records as f64 / load.wall),
        ("CPU per upsert", "us", load.cpu * 1e6 / records as f64),
        ("refreshes", "1/s", records as f64 / refresh.wall),
        ("hit p50", "us", hit.0),
        ("hit p99", "us", hit.1),
        ("miss p50", "us", miss.0),
        ("miss p99", "us", miss.1),
        ("GC", "us per record", gc.cpu * 1e6 / distinct as f64),
        ("restart", "s", restart.wall),
        ("disk", "B per record", disk as f64 / distinct as f64),
        ("memory (RSS)", "B per record", loaded.saturating_sub(before) as f64 / distinct as f64),
        ("index", "B per record", index as f64 / distinct as f64),
        ("upserts through async add", "1/s", records as f64 / through_async.wall),
        ("CPU per async upsert", "us", through_async.cpu * 1e6 / records as f64),
        ("refreshes on all cores", "1/s", records as f64 / on_all_cores.wall),
        ("CPU per refresh on all cores", "us", on_all_cores.cpu * 1e6 / records as f64),
        ("hit p50, one provider", "us", seen.0),
        ("GC by the clock", "us per record", gc.wall * 1e6 / distinct as f64),
        ("GC of an older copy", "us per record", copies.cpu * 1e6 / (3 * records) as f64),
        ("copies of each record on disk", "", 4.0),
    ]
}

fn announce(store: &Store, data: &Data, records: &[([u8; 34], u32)], clock: &Arc<ManualClock>) {
    for (i, (multihash, peer)) in records.iter().enumerate() {
        tick(clock, i);
        store.records.add_blocking(multihash, &data.peers[*peer as usize], Dht::Wan).unwrap();
    }
}

fn tick(clock: &ManualClock, i: usize) {
    if i % PER_SECOND == PER_SECOND - 1 {
        clock.advance(Duration::from_secs(1));
    }
}

/// What the design did not choose: key = SHA-256(multihash) and number of the peer, value = time; to find what expired,
/// all rows are read.
fn rows(data: &Data) -> Figures {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let config = sled::Config::new().path(dir.path()).cache_capacity(64 << 20).flush_every_ms(Some(500));
        let db = config.open().unwrap();
        (db.open_tree("records").unwrap(), db)
    };
    let key = |multihash: &[u8], peer: u32| {
        let mut key = [0; 36];
        key[..32].copy_from_slice(&Sha256::digest(multihash));
        key[32..].copy_from_slice(&peer.to_be_bytes());
        key
    };
    let records = data.records.len();
    let before = rss();
    let (tree, db) = open();
    let write = |time: u32| {
        measure(|| {
            for (multihash, peer) in &data.records {
                tree.insert(key(multihash, *peer), &time.to_be_bytes()).unwrap();
            }
            db.flush().unwrap();
        })
    };
    let load = write(T0);
    let loaded = rss();
    let refresh = write(T0 + 3600);
    let (hit, miss) = look_up(data, |multihash| tree.scan_prefix(Sha256::digest(multihash)).take(20).count());
    let distinct = tree.len();
    drop((tree, db));
    let disk = bytes_below(dir.path());
    let restart = measure(|| drop(black_box(open().0.first().unwrap())));
    let (tree, db) = open();
    let gc = measure(|| {
        let expired: Vec<sled::IVec> = tree.iter().keys().map(Result::unwrap).collect();
        for key in expired {
            tree.remove(key).unwrap();
        }
        db.flush().unwrap();
    });
    vec![
        ("upserts", "1/s", records as f64 / load.wall),
        ("CPU per upsert", "us", load.cpu * 1e6 / records as f64),
        ("refreshes", "1/s", records as f64 / refresh.wall),
        ("hit p50", "us", hit.0),
        ("hit p99", "us", hit.1),
        ("miss p50", "us", miss.0),
        ("miss p99", "us", miss.1),
        ("GC", "us per record", gc.cpu * 1e6 / distinct as f64),
        ("restart", "s", restart.wall),
        ("disk", "B per record", disk as f64 / distinct as f64),
        ("memory (RSS)", "B per record", loaded.saturating_sub(before) as f64 / distinct as f64),
    ]
}

/// p50 and p99 in microseconds, of keys that are there and of keys that are not.
fn look_up(data: &Data, find: impl Fn(&[u8]) -> usize) -> ((f64, f64), (f64, f64)) {
    let mut random = StdRng::seed_from_u64(2);
    let hits: Vec<[u8; 34]> =
        (0..LOOKUPS).map(|_| data.records[random.random_range(0..data.records.len())].0).collect();
    let misses: Vec<[u8; 34]> = (0..LOOKUPS).map(|n| multihash(usize::MAX - n)).collect();
    (percentiles(&hits, &find), percentiles(&misses, &find))
}

fn percentiles(keys: &[[u8; 34]], find: impl Fn(&[u8]) -> usize) -> (f64, f64) {
    let mut took: Vec<Duration> = keys
        .iter()
        .map(|key| {
            let start = Instant::now();
            black_box(find(key));
            start.elapsed()
        })
        .collect();
    took.sort();
    let at = |part: usize| took[took.len() * part / 100].as_secs_f64() * 1e6;
    (at(50), at(99))
}

struct Took {
    wall: f64,
    cpu: f64,
}

fn measure(what: impl FnOnce()) -> Took {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    what();
    Took { wall: start.elapsed().as_secs_f64(), cpu: cpu_seconds() - cpu }
}

/// User and system time of the process; the kernel counts in hundredths of a second.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// Resident memory in bytes.
fn rss() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn bytes_below(dir: &Path) -> u64 {
    fs::read_dir(dir)
        .unwrap()
        .flatten()
        .map(|e| if e.path().is_dir() { bytes_below(&e.path()) } else { e.metadata().unwrap().len() })
        .sum()
}
