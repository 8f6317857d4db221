//! Measures `dump` and `load`: in this process, and end to end with the program itself over the loopback interface.

use super::{
    data::{Data, Shape},
    measure::{Took, measure, percentiles},
    ours::{PER_SECOND, announce, open},
};
use dhtstore::{
    clock::{Clock, SystemClock, UnixTime},
    store::{
        Store,
        dump::{self, Filter, Table, Told, Want},
    },
};
use dhtstore_testkit::{files::bytes_below, process::Process, program::command};
use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

pub fn run(records: usize) {
    let data = &Data::new(records, Shape::Usual);
    println!("{records} records, {} keys, {} peers", data.keys(), super::data::peers_of(records));
    let tmp = tempfile::tempdir_in("target").unwrap();
    let dir = tmp.path().join("data");
    // With these dates the program finds the records alive and not in the future.
    let seconds = (records / PER_SECOND) as u32 + 600;
    let clock = super::clock::Shifted::at(UnixTime(SystemClock::new().wall().0 - seconds));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (lock, store) = open(&dir, clock.clone());
    announce(&store, data, &data.peer_infos(), 0..records, &clock);
    runtime.block_on(store.flush()).unwrap();
    in_process(&store, data, records);
    runtime.block_on(store.close()).unwrap();
    drop((store, lock));
    println!("{:.1} MB on disk", bytes_below(&dir) / 1e6);
    from_end_to_end(&dir, tmp.path(), records);
}

fn in_process(store: &Store, data: &Data, records: usize) {
    let filter = Filter { tables: vec![Table::Providers], ..Filter::default() };
    let dump = |want: Want| {
        let mut bytes = 0;
        let took = measure(|| {
            let summary = dump::running(store, &filter, want, &mut |told| {
                if let Told::Rows { json, .. } = told {
                    bytes += json.len();
                }
                true
            });
            assert_eq!(summary.unwrap().rows as usize, records);
        });
        (took, bytes)
    };
    let (took, bytes) = dump(Want::NDJSON);
    println!("{} bytes a row", bytes / records);
    print("in process: rows", records, &took);
    print("in process: count", records, &dump(Want::Count).0);
    print("in process: hash", records, &dump(Want::Hash).0);
    let find = |key: &[u8]| store.records.providers_now(key, 20, 1).len();
    let idle = percentiles(data.hits(), find);
    let (stop, before) = (AtomicBool::new(false), Process::this().rss());
    let (busy, after) = thread::scope(|scope| {
        scope.spawn(|| {
            let each = &mut |_: Told<'_>| !stop.load(Ordering::Relaxed);
            while !stop.load(Ordering::Relaxed) {
                dump::running(store, &filter, Want::NDJSON, each).unwrap();
            }
        });
        let busy = percentiles(data.hits(), find);
        let after = Process::this().rss();
        stop.store(true, Ordering::Relaxed);
        (busy, after)
    });
    println!("look-ups: p50 {:.2} us, p99 {:.2} us", idle.0, idle.1);
    println!("look-ups during dumps: p50 {:.2} us, p99 {:.2} us", busy.0, busy.1);
    println!("memory of the process: {:.1} MB more during dumps", (after - before) / 1e6);
}

fn from_end_to_end(dir: &Path, tmp: &Path, records: usize) {
    timed("stopped: rows", dir, records, &["dump", "providers"], None);
    timed("stopped: hash", dir, records, &["dump", "providers", "--hash"], None);
    let server = Server::start(dir);
    let before = Process(server.id()).rss();
    for _ in 0..3 {
        timed("running: rows", dir, records, &["dump", "providers"], Some(server.id()));
    }
    timed("running: hash", dir, records, &["dump", "providers", "--hash"], Some(server.id()));
    let (now, peak) = (Process(server.id()).rss(), Process(server.id()).peak_rss());
    println!(
        "memory of the server: {:.1} MB before dumps, {:.1} MB after, {:.1} MB at most",
        before / 1e6,
        now / 1e6,
        peak / 1e6
    );
    let file = tmp.join("all.ndjson");
    let dumped = program(dir).args(["dump", "providers"]).stdout(File::create(&file).unwrap()).status().unwrap();
    assert!(dumped.success());
    drop(server);
    let load = ["load", file.to_str().unwrap()];
    let into = tmp.join("stopped");
    timed("load, stopped", &into, records, &load, None);
    let into = tmp.join("running");
    let server = Server::start(&into);
    timed("load, running", &into, records, &load, Some(server.id()));
}

fn program(dir: &Path) -> Command {
    let mut command = command(env!("CARGO_BIN_EXE_dhtstore"));
    command.arg("-q").arg("--data-dir").arg(dir);
    command
}

/// Runs a command without output. Measures its own CPU and that of the server.
fn timed(what: &str, dir: &Path, records: usize, args: &[&str], server: Option<u32>) {
    let cpu = || Process::this().children_cpu_seconds() + server.map_or(0.0, |id| Process(id).cpu_seconds());
    let (begun, before) = (Instant::now(), cpu());
    let status = program(dir).args(args).stdout(Stdio::null()).status().unwrap();
    let took = Took { wall: begun.elapsed().as_secs_f64(), cpu: cpu() - before, own_cpu: 0.0 };
    assert!(status.success(), "{args:?}: {status}");
    print(what, records, &took);
}

fn print(what: &str, records: usize, took: &Took) {
    let n = records as f64;
    println!(
        "{what:24} {:>10.0} a second, {:.2} us of CPU each ({:.2} s)",
        n / took.wall,
        took.cpu * 1e6 / n,
        took.wall
    );
}

/// A node that serves until this is dropped.
struct Server(Child);

impl Server {
    fn start(dir: &Path) -> Self {
        let mut child = program(dir)
            .args(["run", "--profile", "private", "--listen", "/ip4/127.0.0.1/tcp/0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.map_while(Result::ok).any(|line| line == "ready");
        let server = Self(child);
        assert!(ready, "the server has not started");
        let replayed = || {
            let stat = program(dir).args(["stat", "--format", "json"]).output().unwrap();
            let stat: serde_json::Value = serde_json::from_slice(&stat.stdout).unwrap();
            stat["store"]["replayed"].as_f64() == Some(1.0)
        };
        while !replayed() {
            thread::sleep(Duration::from_millis(200));
        }
        server
    }

    fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
