//! Sends 1,500 announcements a second in real time, half of them repeats of the hour before. Prints the bytes that the
//! kernel wrote to disk for each: log, rows, peers, and what garbage collection removes.

use super::data::{Data, Shape};
use dhtstore::{
    clock::SystemClock,
    kad::Dht,
    store::{Settings, Store, data_dir::Lock},
};
use dhtstore_testkit::{files::bytes_below, process::Process};
use std::time::{Duration, Instant};

const RATE: usize = 1500;

/// Records live for a tenth of the run, so that for nine tenths of it as many records are collected as arrive.
pub fn run(seconds: usize) {
    let records = RATE * seconds;
    let data = Data::new(records, Shape::Usual);
    let peers = data.peer_infos();
    let dir = tempfile::tempdir_in("target").unwrap();
    let lock = Lock::acquire(dir.path()).unwrap();
    let ttl = Duration::from_secs((seconds as u64 / 10).max(1));
    let settings = Settings { ttl, clock_grace: Duration::ZERO, ..Settings::default() };
    let store = Store::open(&lock, settings, SystemClock::new()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (begun, before, cpu) = (Instant::now(), Process::this().written(), Process::this().cpu_seconds());
    let mut collected = begun;
    for i in 0..records {
        let (multihash, peer) = data.record(i);
        store.records.add_blocking(&multihash, &peers[peer], Dht::Wan).unwrap();
        if i % (RATE / 50) == 0 {
            std::thread::sleep(Duration::from_secs_f64(i as f64 / RATE as f64).saturating_sub(begun.elapsed()));
        }
        if collected.elapsed() >= Duration::from_secs(60) {
            collected = Instant::now();
            runtime.block_on(store.records.collect_garbage()).unwrap();
            println!(
                "{:5} s: {:6.1} B written per announcement, {} records, {:.1} MB on disk",
                begun.elapsed().as_secs(),
                (Process::this().written() - before) / i as f64,
                store.stat().records,
                bytes_below(dir.path()) / 1e6
            );
        }
    }
    let cpu = (Process::this().cpu_seconds() - cpu) * 1e6 / records as f64;
    runtime.block_on(store.close()).unwrap();
    println!(
        "{:.1} B written and {cpu:.2} us of CPU per announcement",
        (Process::this().written() - before) / records as f64
    );
}
