//! Damages each file of a data directory in each way, at rest and while the store is open. The node must then start, or
//! say what to do, in bounded time. All own CIDs must be there, and all records except those in damaged bytes of
//! `log/`.
//!
//! Plain `cargo test` runs 100 cases. `DAMAGE_CASES=2400 cargo test --test store_damage -- --nocapture` runs 2400 cases
//! and prints their outcomes. `DAMAGE_CASE=17` runs case 17 alone. (The names do not begin with `DHTSTORE_`, because
//! such variables are settings.)
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

/// Number of cases in an ordinary run.
const QUICK: u64 = 100;
/// Number of cases that run at the same time. A case mostly waits for sled's threads to end.
const WORKERS: usize = 12;
/// A case that takes this long counts as hanging. It normally takes some 0.3 s.
const PATIENCE: Duration = Duration::from_secs(90);
/// Number of keys. The template is started several times, and each run adds a part of the keys.
const RECORDS: u32 = 2500;
/// Minimum size of a log entry in bytes.
const ENTRY_BYTES: usize = 33;
/// Number of entries in a chunk of this test.
const CHUNK_ENTRIES: usize = 20;
const OWN: u32 = 200;
/// Advice that an error may give. Every error must contain one of these.
const ADVICE: [&str; 6] =
    ["restore it from a backup", "copy the file again", "did you mean", "TOML parse error at line", "write", "unknown"];

/// Outcome for a damaged directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Outcome {
    /// Every record is there, and none had to be salvaged.
    Whole,
    /// Every record is there, and some were salvaged from `log/`.
    Restored,
    /// Some records are gone. All of them were in damaged bytes, and the notes report the loss.
    Less,
    /// The node does not start, and the error says what to do.
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

/// Fills the directory that every case starts from, and closes it cleanly.
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
                // Only a journal may hold these own CIDs, so the exports that the close writes are undone.
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

/// Starts the store as `run` does. The error is the text that the operator reads.
fn start(dir: &Path, clock: &Arc<ManualClock>) -> Result<Node, String> {
    start_noticing(dir, clock).map(|(node, _)| node)
}

/// Starts the store as [`start`] does. Also returns whether the store noticed that own CIDs were announced under
/// another peer id. `run` logs a warning then.
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

/// Checks what must hold after damage to any one file. `cost` is the maximum number of records in the damaged bytes.
/// Returns the number of records that were kept.
fn check(node: &Node, what: &str, cost: usize) -> usize {
    let notes = node.store.stat().notes;
    let own = (0..OWN).filter(|n| node.store.provided.contains(&multihash(*n))).count();
    assert_eq!(own, OWN as usize, "{what}: own CIDs are gone: {notes:?}");
    // A removal is an entry of the log too. If damage destroys it, the removed record may return.
    assert!(node.found(3).is_empty() || cost > 0, "{what}: a removed record is back");
    let kept = kept(node);
    assert!(
        kept + cost >= RECORDS as usize - 1,
        "{what}: {kept} records kept, but only {cost} were damaged: {notes:?}"
    );
    assert!(
        kept == RECORDS as usize - 1 || !notes.is_empty(),
        "{what}: {kept} records kept, and the loss is not reported"
    );
    kept
}

/// Adds, collects, flushes and closes. Each may fail, but none may hang or panic. Returns true if adding a record,
/// flushing and closing succeed.
async fn use_and_close(node: Node) -> bool {
    let added = node.add(RECORDS + 1, &peer(1)).await.is_ok();
    node.advance(120);
    let _ = node.store.records.collect_garbage().await;
    let _ = node.store.provided.add(vec![own_cid(OWN + 1)]).await;
    let flushed = node.store.flush().await.is_ok();
    node.store.close().await.is_ok() && added && flushed
}

/// Damages a file. Returns the maximum number of records in the changed bytes. It is 0 for files outside `log/`,
/// because the log also has the records of `records/`.
fn damaged_records(mutation: &Mutation, dir: &Path) -> usize {
    let read = || fs::read(dir.join(&mutation.file)).unwrap_or_default();
    let before = read();
    mutation.apply(dir);
    if mutation.class() != "log" {
        return 0;
    }
    let after = read();
    let differing: Vec<usize> = (0..before.len()).filter(|at| after.get(*at) != before.get(*at)).collect();
    // A run of changed bytes can destroy the entries in it and all entries of the two chunks at its ends.
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
            assert!(ADVICE.iter().any(|advice| error.contains(advice)), "{what}: the error gives no advice: {error}");
            let file = mutation.file.file_name().unwrap().to_string_lossy();
            assert!(error.contains(&*file), "{what}: the error does not name {file}: {error}");
            return Report { outcome: Outcome::Refused, kept: 0 };
        }
    };
    let kept = check(&node, &what, cost);
    if mutation.class() == "identity.key" {
        assert!(noticed, "{what}: the new peer id was not noticed");
    }
    let restored = node.store.stat().counters["salvaged_chunks"];
    let closed = use_and_close(node).await;
    let node = start(dir, clock).unwrap_or_else(|error| panic!("{what}: the second start failed: {error}"));
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
    assert!(kept >= before, "{what}: {before} records at the first start, {kept} at the second: {notes:?}");
    assert!(!closed || node.found(RECORDS + 1) == [peer(1).id], "{what}: what was flushed is gone: {notes:?}");
    kept
}

/// Makes a temporary directory, in memory where possible. These tests are not about power cuts, and fsync would take
/// most of their time.
fn place() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Runs a case on a thread of its own. Returns its report, or an error if it panics or hangs.
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

/// Silences the panics of all threads that have not called this. Panics of sled's threads and of cases are expected and
/// caught. The test reports the panics of cases itself.
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
