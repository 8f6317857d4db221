//! Measures our record store.

use super::{
    Figures,
    clock::Shifted,
    data::{Data, Shape, THE_ONE_KEY, arrive, miss},
    measure::{measure, percentiles, percentiles_of},
};
use dhtstore::{
    clock::{Clock, UnixTime},
    kad::{Dht, PeerInfo},
    store::{
        Settings, Store,
        data_dir::Lock,
        dump::{self, Filter, Table, Told, Want},
    },
};
use dhtstore_testkit::{files::bytes_below, process::Process};
use std::{
    hint::black_box,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

const T0: u32 = 1_700_000_000;
/// Announcements per second of log time: a busy server, so that chunks are full.
pub const PER_SECOND: usize = 50_000;
/// Number of look-ups of the key with very many providers.
const OF_ONE_KEY: usize = 5_000;
/// Higher than in any distribution.
const MAX_PROVIDERS_PER_KEY: usize = 1_000_000;
/// Announcements per second while look-ups are measured.
const BUSY: usize = 100_000;
/// Maximum number of records of the load on all cores: more would only take longer.
const MOST_ON_ALL_CORES: usize = 10_000_000;
/// Number of records whose computation is measured, to be subtracted.
const SAMPLE: usize = 1_000_000;

pub fn open(dir: &Path, clock: Arc<dyn Clock>) -> (Lock, Store) {
    let lock = Lock::acquire(dir).unwrap();
    // High above the number of records, since at the limit the farthest records are dropped.
    let settings = Settings {
        clock_grace: Duration::ZERO,
        max_providers_per_key: MAX_PROVIDERS_PER_KEY,
        max_records: usize::MAX,
        ..Settings::default()
    };
    let store = Store::open(&lock, settings, clock).unwrap();
    (lock, store)
}

pub fn run(records: usize, dir: &Path, shape: Shape) -> Figures {
    let data = &Data::new(records, shape);
    let peers = &data.peer_infos();
    let clock = Shifted::at(UnixTime(T0));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let n = records as f64;
    let blank = measure(|| compute(data, peers, SAMPLE));
    let before = Process::this().rss();
    let (lock, store) = open(dir, clock.clone());
    let all = || {
        let took = measure(|| {
            announce(&store, data, peers, 0..records, &clock);
            runtime.block_on(store.flush()).unwrap();
        });
        took.without(&blank, n / SAMPLE as f64)
    };
    let load = all();
    let loaded = Process::this().rss();
    let one_copy = on_disk(dir);
    // The same records again, after the five minutes within which a repeat is not written.
    clock.advance(Duration::from_secs(3600));
    let refresh = all();
    let find = |key: &[u8]| store.records.providers_now(key, 20, 1).len();
    let (hit, missed) = (percentiles(data.hits(), find), percentiles(miss, find));
    let one_key = (shape == Shape::OneKey).then(|| percentiles_of(OF_ONE_KEY, |_| THE_ONE_KEY, find));
    let two_copies = on_disk(dir);
    // The first copy has expired, and is collected while look-ups are measured.
    clock.advance(Duration::from_secs(11 * 3600));
    let stop = AtomicBool::new(false);
    let (busy_hit, busy_miss, collected) = thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut chunks = 0;
            while !stop.load(Ordering::Relaxed) {
                chunks += runtime.block_on(store.records.collect_garbage()).unwrap().chunks;
                thread::sleep(Duration::from_millis(20));
            }
            chunks
        });
        scope.spawn(|| {
            let begun = std::time::Instant::now();
            for i in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let (multihash, peer) = data.record(i % records);
                black_box(arrive(&peers[peer]));
                store.records.add_blocking(&multihash, &peers[peer], Dht::Wan).unwrap();
                if i % (BUSY / 100) == 0 {
                    clock.advance(Duration::from_millis(10 * 2));
                    let due = Duration::from_secs_f64(i as f64 / BUSY as f64);
                    thread::sleep(due.saturating_sub(begun.elapsed()));
                }
            }
        });
        let found = (percentiles(data.hits(), find), percentiles(miss, find));
        stop.store(true, Ordering::Relaxed);
        (found.0, found.1, collector.join().unwrap())
    });
    assert!(collected > 0, "no chunk was collected during the look-ups");
    let index = store.records.index_bytes() as f64;
    let distinct = store.stat().records as f64;
    runtime.block_on(store.close()).unwrap();
    let copies = store.stat().log_chunks;
    drop((store, lock));
    if std::env::var_os("KEEP").is_some() {
        println!(
            "to open it again: NOW={} {} restart {}",
            clock.wall().0,
            std::env::current_exe().unwrap().display(),
            dir.display()
        );
        std::process::exit(0);
    }
    let restarted = restart_elsewhere(dir, clock.wall());
    let mut figures = vec![
        ("upserts", "1/s", n / load.wall),
        ("CPU per upsert", "us", load.cpu * 1e6 / n),
        ("CPU per upsert in the caller's thread", "us", load.own_cpu * 1e6 / n),
        ("refreshes", "1/s", n / refresh.wall),
        ("CPU per refresh", "us", refresh.cpu * 1e6 / n),
        ("CPU per refresh in the caller's thread", "us", refresh.own_cpu * 1e6 / n),
        ("hit p50", "us", hit.0),
        ("hit p99", "us", hit.1),
        ("miss p50", "us", missed.0),
        ("miss p99", "us", missed.1),
        ("hit p50 during 100k/s and GC", "us", busy_hit.0),
        ("hit p99 during 100k/s and GC", "us", busy_hit.1),
        ("miss p50 during 100k/s and GC", "us", busy_miss.0),
        ("miss p99 during 100k/s and GC", "us", busy_miss.1),
        ("GC", "us of CPU per record", restarted.gc),
        ("dump", "s per million", restarted.dump),
        ("dump, CPU per record", "us", restarted.dump_cpu),
        ("disk, one copy", "B per record", one_copy / n),
        ("disk, second copy", "B per record", (two_copies - one_copy) / n),
        ("chunks at the restart", "", copies as f64),
        ("open", "s", restarted.opened),
        ("restart", "s", restarted.wall),
        ("restart", "s of CPU", restarted.cpu),
        ("restart, by log record", "s per million", restarted.wall * 1e6 / restarted.entries),
        ("memory after load", "B per record", (loaded - before) / n),
        ("memory after restart", "B per record", restarted.rss / distinct),
        ("largest memory during replay", "B per record", restarted.peak / distinct),
        ("index", "B per record", index / distinct),
    ];
    if let Some((p50, p99)) = one_key {
        figures.push(("20 of the one key's providers p50", "us", p50));
        figures.push(("20 of the one key's providers p99", "us", p99));
    }
    figures
}

pub fn announce(store: &Store, data: &Data, peers: &[PeerInfo], which: std::ops::Range<usize>, clock: &Shifted) {
    for i in which {
        if i % PER_SECOND == PER_SECOND - 1 {
            clock.advance(Duration::from_secs(1));
        }
        let (multihash, peer) = data.record(i);
        black_box(arrive(&peers[peer]));
        store.records.add_blocking(&multihash, &peers[peer], Dht::Wan).unwrap();
    }
}

/// Does the work that is done for each record outside the store.
fn compute(data: &Data, peers: &[PeerInfo], records: usize) {
    for i in 0..records {
        let (multihash, peer) = data.record(i);
        black_box((multihash, arrive(&peers[peer])));
    }
}

/// Returns the records stored per second with one thread for each core. Runs in a child process, since memory that is
/// freed here would distort later measurements.
pub fn on_all_cores_elsewhere(records: usize, dir: &Path) -> f64 {
    let dir = tempfile::tempdir_in(dir).unwrap();
    child("all-cores", dir.path(), "RECORDS", &records.min(MOST_ON_ALL_CORES).to_string())[0]
}

/// Runs in that child process.
pub fn on_all_cores(dir: &Path) {
    let records: usize = std::env::var("RECORDS").unwrap().parse().unwrap();
    let (data, clock) = (&Data::new(records, Shape::Usual), &Shifted::at(UnixTime(T0)));
    let peers = &data.peer_infos();
    let (_lock, store) = &open(dir, clock.clone());
    let threads = thread::available_parallelism().unwrap().get();
    let on_all = |what: &(dyn Fn(usize) + Sync)| {
        measure(|| thread::scope(|scope| (0..threads).for_each(|n| drop(scope.spawn(move || what(n))))))
    };
    let blank = on_all(&|_| compute(data, peers, SAMPLE));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let part = |n: usize| records * n / threads;
    let mut took = on_all(&|n| announce(store, data, peers, part(n)..part(n + 1), clock));
    took.wall += measure(|| runtime.block_on(store.flush()).unwrap()).wall;
    let took = took.without(&blank, records as f64 / (threads * SAMPLE) as f64);
    println!("{}", records as f64 / took.wall);
}

/// Returns the figures that a child process prints.
fn child(what: &str, dir: &Path, name: &str, value: &str) -> Vec<f64> {
    let itself = std::env::current_exe().unwrap();
    let output = Command::new(itself).arg(what).arg(dir).env(name, value).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().map(|figure| figure.parse().unwrap()).collect()
}

/// Figures of the child process that opens the directory again.
struct Restarted {
    opened: f64,
    wall: f64,
    cpu: f64,
    entries: f64,
    rss: f64,
    peak: f64,
    gc: f64,
    dump: f64,
    dump_cpu: f64,
}

fn restart_elsewhere(dir: &Path, now: UnixTime) -> Restarted {
    let figures = child("restart", dir, "NOW", &now.0.to_string());
    let [opened, wall, cpu, entries, rss, peak, gc, dump, dump_cpu] = figures[..] else { panic!("{figures:?}") };
    Restarted { opened, wall, cpu, entries, rss, peak, gc, dump, dump_cpu }
}

/// Runs in that child process: opens the directory, waits for the replay, dumps the records, then collects all of them.
pub fn restart(dir: &Path) {
    let clock = Shifted::at(UnixTime(std::env::var("NOW").unwrap().parse().unwrap()));
    let mut opened = 0.0;
    let mut store = None;
    let took = measure(|| {
        let open_took = measure(|| store = Some(open(dir, clock.clone())));
        opened = open_took.wall;
        store.as_ref().unwrap().1.records.wait_replayed();
    });
    let (_lock, store) = store.unwrap();
    let (rss, peak) = (Process::this().rss(), Process::this().peak_rss());
    let records = store.stat().records as f64;
    let entries = store.stat().counters.get("replayed_entries").copied().unwrap_or(0) as f64;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let filter = Filter { tables: vec![Table::Providers], ..Filter::default() };
    let mut told = 0.0;
    let dump = measure(|| {
        let each = &mut |told: Told<'_>| {
            black_box(told);
            true
        };
        told = dump::running(&store, &filter, Want::NDJSON, each).unwrap().rows as f64;
    });
    clock.advance(Duration::from_secs(13 * 3600));
    if std::env::var_os("KEEP").is_some() {
        println!("{opened} {} {} {entries} {} {}", took.wall, took.cpu, rss / records, peak / records);
        return;
    }
    let gc = measure(|| {
        let report = runtime.block_on(store.records.collect_garbage()).unwrap();
        assert_eq!((report.expired as f64, report.paused), (records, None));
    });
    let [gc, dump, dump_cpu] = [gc.cpu / records, dump.wall / told, dump.cpu / told].map(|seconds| seconds * 1e6);
    println!("{opened} {} {} {entries} {rss} {peak} {gc} {dump} {dump_cpu}", took.wall, took.cpu);
}

/// Returns the bytes of the log, and of the database that has its rows.
fn on_disk(dir: &Path) -> f64 {
    ["records", "log"].iter().map(|part| bytes_below(&dir.join(part))).sum()
}
