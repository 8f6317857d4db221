//! Every file of a data directory damaged in every way, at rest and beneath an open store: the node starts or says what to
//! do, in bounded time; own CIDs are there, and of records all but those that the damaged bytes of
//! `log/` held.
//!
//! Plain `cargo test` runs 100 cases. `DAMAGE_CASES=2400 cargo test --test store_damage -- --nocapture` runs
//! that many and prints what became of them; `DAMAGE_CASE=17` runs case 17 alone. (Not `DHTSTORE_…`: those are settings.)
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod checked;
mod mutation;

use dhtstore::{
    clock::ManualClock,
    config::file::Sources,
    store::{Settings, Store, data_dir::Lock},
    transport::{identity, swarm_key::SwarmKey},
};
use dhtstore_testkit::store::*;
use mutation::{Kind, Mutation};
use std::{
    collections::BTreeMap,
    env, fs, panic,
    path::Path,
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, ThreadId},
    time::Duration,
};

/// Cases of an ordinary run.
const QUICK: u64 = 100;
/// Cases at a time: mostly they wait for sled's threads to end.
const WORKERS: usize = 12;
/// A case takes some 0.3 s; one that takes this long hangs.
const PATIENCE: Duration = Duration::from_secs(90);
/// Keys: each life of the template adds a part of them.
const RECORDS: u32 = 2500;
/// An entry of the log takes at least so many bytes, and a chunk of this test has so many of them.
const ENTRY_BYTES: usize = 33;
const CHUNK_ENTRIES: usize = 20;
const OWN: u32 = 200;
/// Advice that an error may give; one of these must be in it.
const ADVICE: [&str; 6] =
    ["restore it from a backup", "copy the file again", "did you mean", "TOML parse error at line", "write", "unknown"];

/// What became of a damaged directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Outcome {
    /// Every record is there, and nothing had to be brought back.
    Whole,
    /// Every record is there, some of them found in `log/` alone.
    Restored,
    /// Some of those that stood in damaged bytes are gone, and the notes say so.
    Less,
    /// It does not start, and the error says what to do.
    Refused,
}

struct Report {
    outcome: Outcome,
    kept: usize,
}

async fn add(node: &Node, keys: std::ops::Range<u32>) {
    for key in keys {
        node.add(key, &peer((key % 10) as u8)).await.unwrap();
        if key % 20 == 19 {
            node.advance(1);
        }
    }
    node.store.flush().await.unwrap();
}

/// The directory that all cases begin with, closed cleanly.
async fn template(dir: &Path) -> Arc<ManualClock> {
    let clock = clock();
    for life in 0..3 {
        let node = start(dir, &clock).unwrap();
        match life {
            0 => {
                SwarmKey::generate().unwrap().create(&dir.join("swarm.key")).unwrap();
                fs::write(dir.join("dhtstore.toml"), "profile = \"private\"\n\n[records]\nttl = \"12h\"\n").unwrap();
                node.store.provided.add((0..OWN / 2).map(own_cid).collect()).await.unwrap();
                add(&node, 0..1000).await;
                assert!(node.store.records.remove(&multihash(3), &peer(3).id).await);
            }
            1 => add(&node, 1000..2000).await,
            _ => {
                add(&node, 2000..RECORDS).await;
                node.store.provided.add((OWN / 2..OWN).map(own_cid).collect()).await.unwrap();
                // What stands in a journal only.
                let image = dir.join("image");
                kill(&dir.join("exports"), &image);
                node.close().await;
                fs::remove_dir_all(dir.join("exports")).unwrap();
                fs::rename(image, dir.join("exports")).unwrap();
                return clock;
            }
        }
        node.advance(300);
        node.close().await;
    }
    clock
}

/// Starts as `run` does. The error is what the operator reads.
fn start(dir: &Path, clock: &Arc<ManualClock>) -> Result<Node, String> {
    start_noticing(dir, clock).map(|(node, _)| node)
}

/// The same, and whether it was noticed, as `run` logs it, that own CIDs were announced under another peer id.
fn start_noticing(dir: &Path, clock: &Arc<ManualClock>) -> Result<(Node, bool), String> {
    let sources = Sources { file: Some(dir.join("dhtstore.toml")), data_dir: Some(dir.into()), set: Vec::new() };
    if dir.join("dhtstore.toml").exists() {
        sources.load().map_err(|e| e.to_string())?;
    }
    if dir.join("swarm.key").exists() {
        SwarmKey::load(&dir.join("swarm.key")).map_err(|e| e.to_string())?;
    }
    let lock = Lock::acquire(dir).map_err(|e| e.to_string())?;
    let keys = identity::load_or_create(dir).map_err(|e| e.to_string())?;
    let position = *dhtstore::kad::keyspace::Key::for_peer(&keys.public().to_peer_id()).as_bytes();
    let store = Store::open(&lock, Settings { position, ..Settings::default() }, clock.clone());
    let node = Node::of(store.map_err(|e| e.to_string())?, clock, lock);
    let noticed = matches!(node.store.announce_as(&keys.public().to_peer_id()), Ok(Some(_)));
    node.wait_replayed();
    Ok((node, noticed))
}

fn kept(node: &Node) -> usize {
    (0..RECORDS).filter(|key| node.found(*key) == [peer((key % 10) as u8).id]).count()
}

/// What must hold whatever single file was damaged. `cost`: records that its damaged bytes held at most.
fn check(node: &Node, what: &str, cost: usize) -> usize {
    let notes = node.store.stat().notes;
    let own = (0..OWN).filter(|n| node.store.provided.contains(&multihash(*n))).count();
    assert_eq!(own, OWN as usize, "{what}: own CIDs are gone: {notes:?}");
    // A removal is an entry of the log like others.
    assert!(node.found(3).is_empty() || cost > 0, "{what}: a removed record is back");
    let kept = kept(node);
    assert!(kept + cost >= RECORDS as usize - 1, "{what}: {kept} records, and {cost} were damaged: {notes:?}");
    assert!(kept == RECORDS as usize - 1 || !notes.is_empty(), "{what}: {kept} records and not a word");
    kept
}

/// Adds, collects, flushes, closes; any of it may fail, none may hang or panic.
async fn use_and_close(node: Node) -> bool {
    let added = node.add(RECORDS + 1, &peer(1)).await.is_ok();
    node.advance(120);
    let _ = node.store.records.collect_garbage().await;
    let _ = node.store.provided.add(vec![own_cid(OWN + 1)]).await;
    let flushed = node.store.flush().await.is_ok();
    node.store.close().await.is_ok() && added && flushed
}

/// Damages a file. Returns how many records stood in bytes of the log that it changed, at most: those of `records/` stand in the
/// log as well.
fn damaged_records(mutation: &Mutation, dir: &Path) -> usize {
    let read = || fs::read(dir.join(&mutation.file)).unwrap_or_default();
    let before = read();
    mutation.apply(dir);
    if mutation.class() != "log" {
        return 0;
    }
    let after = read();
    let differing: Vec<usize> = (0..before.len()).filter(|at| after.get(*at) != before.get(*at)).collect();
    // Runs of damage, and the chunks into which the ends of each cut.
    let runs = differing.chunk_by(|a, b| b - a < CHUNK_ENTRIES * ENTRY_BYTES);
    runs.map(|run| (run[run.len() - 1] - run[0]) / ENTRY_BYTES + 2 * CHUNK_ENTRIES).sum()
}

async fn run(mutation: &Mutation, dir: &Path, clock: &Arc<ManualClock>) -> Report {
    let what = mutation.to_string();
    let cost = if mutation.running {
        let node = start(dir, clock).unwrap();
        let cost = damaged_records(mutation, dir);
        check(&node, &what, 0);
        use_and_close(node).await;
        cost
    } else {
        damaged_records(mutation, dir)
    };
    let (node, noticed) = match start_noticing(dir, clock) {
        Ok(started) => started,
        Err(error) => {
            assert!(ADVICE.iter().any(|advice| error.contains(advice)), "{what}: no advice: {error}");
            let file = mutation.file.file_name().unwrap().to_string_lossy();
            assert!(error.contains(&*file), "{what}: {file} is not named: {error}");
            return Report { outcome: Outcome::Refused, kept: 0 };
        }
    };
    let kept = check(&node, &what, cost);
    if mutation.class() == "identity.key" {
        assert!(noticed, "{what}: another peer id, and not a word");
    }
    let restored = node.store.stat().counters["salvaged_chunks"];
    let closed = use_and_close(node).await;
    let node = start(dir, clock).unwrap_or_else(|error| panic!("{what}: not the second time: {error}"));
    let again = check_again(&node, kept, closed, &what);
    assert!(node.store.records.is_replayed());
    use_and_close(node).await;
    let outcome = match (again == RECORDS as usize - 1, restored) {
        (true, 0) => Outcome::Whole,
        (true, _) => Outcome::Restored,
        (false, _) => Outcome::Less,
    };
    Report { outcome, kept: again }
}

fn check_again(node: &Node, before: usize, closed: bool, what: &str) -> usize {
    let own = (0..OWN).filter(|n| node.store.provided.contains(&multihash(*n))).count();
    assert_eq!(own, OWN as usize, "{what}: own CIDs are gone at the second start");
    let kept = kept(node);
    let notes = node.store.stat().notes;
    assert!(kept >= before, "{what}: {before} records, then {kept}: {notes:?}");
    assert!(!closed || node.found(RECORDS + 1) == [peer(1).id], "{what}: what was flushed is gone: {notes:?}");
    kept
}

/// In memory where that can be: nothing here is about power, and fsync is most of the time otherwise.
fn place() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A case on a thread of its own: what it says, or panics with, within its time.
fn case(n: u64, template: &Path, clock: &Arc<ManualClock>) -> Result<(Mutation, Report), String> {
    let mutation = Mutation::of_case(n, template);
    let (template, clock) = (template.to_owned(), ManualClock::at(dhtstore::clock::Clock::wall(&**clock)));
    let (tell, told) = mpsc::sync_channel(1);
    let name = format!("case {n}: {mutation}");
    let body = mutation.clone();
    let thread = thread::Builder::new().name("case".into()).spawn(move || {
        let tmp = place();
        kill(&template, tmp.path());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let report = runtime.block_on(run(&body, tmp.path(), &clock));
        tell.send(report).unwrap();
    });
    match told.recv_timeout(PATIENCE) {
        Ok(report) => Ok((mutation, report)),
        Err(mpsc::RecvTimeoutError::Timeout) => Err(format!("{name}: hangs")),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let panic = thread.unwrap().join().unwrap_err();
            let text = panic.downcast_ref::<String>().cloned();
            Err(format!("{name}: {}", text.unwrap_or_else(|| "panicked".into())))
        }
    }
}

/// From here on panics are printed only of threads that have called this: those of sled and of cases are expected, and
/// caught; the tests tell of the latter.
fn print_own_panics_only() {
    static OWN: Mutex<Vec<ThreadId>> = Mutex::new(Vec::new());
    static ONCE: Once = Once::new();
    OWN.lock().unwrap().push(thread::current().id());
    ONCE.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if OWN.lock().is_ok_and(|own| own.contains(&thread::current().id())) {
                hook(panic);
            }
        }));
    });
}

type Table = BTreeMap<(&'static str, Kind, bool), (BTreeMap<Outcome, u64>, usize, usize)>;

fn print(table: &Table) {
    println!(
        "| file | mutation | store | whole | restored | less | refused | records kept, least, of {} |",
        RECORDS - 1
    );
    println!("|---|---|---|---|---|---|---|---|");
    for ((class, kind, running), (outcomes, least, _)) in table {
        let of = |outcome| outcomes.get(&outcome).copied().unwrap_or(0);
        let [whole, restored, less, refused] =
            [Outcome::Whole, Outcome::Restored, Outcome::Less, Outcome::Refused].map(of);
        let store = if *running { "running" } else { "at rest" };
        let least = if *least == usize::MAX { "-".to_owned() } else { least.to_string() };
        println!("| {class} | {kind:?} | {store} | {whole} | {restored} | {less} | {refused} | {least} |");
    }
}

#[test]
fn damage_to_any_file_costs_no_own_cid_and_no_record_but_those_in_damaged_bytes_of_the_log() {
    let number = |name: &str| env::var(name).ok().map(|n| n.parse::<u64>().unwrap());
    let cases = number("DAMAGE_CASES").unwrap_or(QUICK);
    let only = number("DAMAGE_CASE");
    let tmp = place();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let clock = runtime.block_on(template(tmp.path()));
    if only.is_none() {
        print_own_panics_only();
    }
    let (next, table, failures) = (AtomicU64::new(0), Mutex::new(Table::new()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= cases {
                        return;
                    }
                    if only.is_some_and(|only| only != n) {
                        continue;
                    }
                    match case(n, tmp.path(), &clock) {
                        Ok((mutation, report)) => {
                            let mut table = table.lock().unwrap();
                            let row = table.entry((mutation.class(), mutation.kind, mutation.running));
                            let row = row.or_insert((BTreeMap::new(), usize::MAX, 0));
                            *row.0.entry(report.outcome).or_default() += 1;
                            if report.outcome != Outcome::Refused {
                                row.1 = row.1.min(report.kept);
                            }
                        }
                        Err(failure) => failures.lock().unwrap().push(failure),
                    }
                }
            });
        }
    });
    print(&table.into_inner().unwrap());
    let failures = failures.into_inner().unwrap();
    let shown: Vec<_> = failures.iter().take(20).cloned().collect();
    assert!(failures.is_empty(), "{} of {cases} cases failed:\n{}", failures.len(), shown.join("\n"));
}
