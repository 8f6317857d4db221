//! Damages regions of each file, one at a time. If the damage loses something that was acknowledged, `check` must have
//! reported it before. That also holds for a loss that occurs only if another part of the directory is lost, too.
//!
//! Plain `cargo test` damages a few regions of each file. `CHECK_REGIONS=100 cargo test --test store_damage checked --
//! --nocapture` damages 100 regions of each file, in each way, and prints a table.

use super::{OWN, RECORDS, kept, place, print_own_panics_only, start, template};
use dhtstore::{
    clock::{Clock, ManualClock},
    store::check::{self, Level},
};
use dhtstore_testkit::{files, store::*};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// Number of regions of each file in an ordinary run.
const QUICK: u64 = 4;
const WORKERS: usize = 8;
const TTL: Duration = Duration::from_secs(12 * 3600);
/// Parts of the directory that may be lost in addition to the damage.
const PARTS: [&str; 5] = ["", "records", "node", "log", "exports"];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Way {
    /// One bit flipped.
    Flipped,
    /// 64 bytes of zeros.
    Zeroed,
    /// 64 other bytes.
    Garbage,
    /// The file cut off at that place.
    Cut,
    /// The file removed.
    Gone,
}

const WAYS: [Way; 5] = [Way::Flipped, Way::Zeroed, Way::Garbage, Way::Cut, Way::Gone];

#[derive(Clone, Debug)]
struct Case {
    file: PathBuf,
    way: Way,
    region: u64,
    regions: u64,
}

impl Case {
    fn apply(&self, dir: &Path) {
        let path = dir.join(&self.file);
        if self.way == Way::Gone {
            return fs::remove_file(path).unwrap();
        }
        let mut random = StdRng::seed_from_u64(self.region << 8 | self.way as u64);
        let mut bytes = fs::read(&path).unwrap();
        let size = (bytes.len() as u64 / self.regions).max(1);
        // The first region begins with the first byte, where the header is.
        let within = if self.region == 0 { random.random_range(0..size.min(40)) } else { random.random_range(0..size) };
        let at = ((self.region * size + within) as usize).min(bytes.len().saturating_sub(1));
        match self.way {
            Way::Flipped => bytes[at] ^= 1 << random.random_range(0..8),
            Way::Zeroed => bytes[at..].iter_mut().take(64).for_each(|byte| *byte = 0),
            Way::Garbage => bytes[at..].iter_mut().take(64).for_each(|byte| *byte = random.random()),
            Way::Cut => bytes.truncate(at),
            Way::Gone => {}
        }
        // The copy may share its file with the template, so the file is replaced.
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }
}

/// Number of own CIDs that are in a journal but in no export.
const JOURNALED: u32 = 60;

/// Makes the directory with which all cases begin, in `to`, as a kill leaves it: some own CIDs are only in the journal.
async fn journaled(dir: &Path, to: &Path, clock: &Arc<ManualClock>) {
    let node = start(dir, clock).unwrap();
    for n in (OWN..OWN + 1 + JOURNALED).step_by(3) {
        let cids = (n..(n + 3).min(OWN + 1 + JOURNALED)).map(own_cid).collect();
        node.store.provided.add(cids).await.unwrap();
    }
    node.store.flush().await.unwrap();
    kill(dir, to);
}

/// What a start of a directory gives: number of own CIDs, number of records, and whether a removed record stays
/// removed. `None` if it does not start.
type Given = Option<(usize, usize, bool)>;

fn given(dir: &Path, lost: &str, clock: &Arc<ManualClock>) -> Given {
    if !lost.is_empty() {
        let _ = fs::remove_dir_all(dir.join(lost));
    }
    let node = start(dir, clock).ok()?;
    let own = (0..=OWN + JOURNALED).filter(|n| node.store.provided.contains(&multihash(*n))).count();
    Some((own, kept(&node), node.found(3).is_empty()))
}

fn is_less(given: Given, whole: Given) -> bool {
    match (given, whole) {
        (None, whole) => whole.is_some(),
        (Some((own, records, removed)), Some((all_own, all, stays))) => {
            own < all_own || records < all || stays && !removed
        }
        (Some(_), None) => false,
    }
}

/// Returns the damage that `check` reports.
fn damage(dir: &Path, clock: &Arc<ManualClock>) -> Vec<String> {
    let found = check::stopped(dir, TTL, clock.wall()).unwrap();
    let damaged = found.into_iter().filter(|finding| finding.level == Level::Damaged);
    damaged.map(|finding| format!("{}: {}", finding.place, finding.found)).collect()
}

/// Copies a directory. The copy shares no file that the store writes to.
fn copy(template: &Path) -> tempfile::TempDir {
    let tmp = place();
    kill(template, tmp.path());
    tmp
}

/// By file and way: number of cases, of those that lose something, and of those that `check` reports.
type Table = BTreeMap<(String, Way), (u64, u64, u64)>;

#[test]
fn check_reports_all_damage_that_could_lose_something() {
    let large = env::var("CHECK_REGIONS").ok().map(|n| n.parse::<u64>().unwrap());
    let regions = large.unwrap_or(QUICK);
    let (first, tmp) = (place(), place());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let clock = runtime.block_on(async {
        let clock = template(first.path()).await;
        journaled(first.path(), tmp.path(), &clock).await;
        clock
    });
    assert_eq!(damage(tmp.path(), &clock), Vec::<String>::new());
    let at = clock.wall();
    let whole = PARTS.map(|part| given(copy(tmp.path()).path(), part, &ManualClock::at(at)));
    println!("given by the whole directory, and without each of {:?}: {whole:?}", &PARTS[1..]);
    assert!(whole[0] == Some(((OWN + 1 + JOURNALED) as usize, RECORDS as usize - 1, true)), "{whole:?}");
    let data = |file: &PathBuf| ["records", "node", "log", "exports"].iter().any(|part| file.starts_with(part));
    let mut cases = Vec::new();
    for file in files::below(tmp.path()).into_iter().filter(data) {
        for region in 0..regions {
            for (n, way) in WAYS.into_iter().enumerate() {
                let once = way == Way::Gone && region > 0;
                // A quick run damages the first region in all ways, and each other region in one way.
                let quick = large.is_some() || region == 0 || region % 4 == n as u64;
                if quick && !once && fs::metadata(tmp.path().join(&file)).unwrap().len() > 0 {
                    cases.push(Case { file: file.clone(), way, region, regions });
                }
            }
        }
    }
    print_own_panics_only();
    let (next, table, failures) = (AtomicUsize::new(0), Mutex::new(Table::new()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(n) else { return };
                    let outcome = std::panic::catch_unwind(|| look(case, n, large.is_some(), (tmp.path(), at), &whole));
                    match outcome {
                        Ok((lost, told)) => {
                            let kind = case.file.components().take(2).collect::<PathBuf>();
                            let kind = kind.to_string_lossy().trim_end_matches(|c: char| c != '/').to_owned()
                                + kind.extension().map_or("", |e| e.to_str().unwrap());
                            let mut table = table.lock().unwrap();
                            let row = table.entry((kind, case.way)).or_default();
                            row.0 += 1;
                            row.1 += u64::from(!lost.is_empty());
                            row.2 += u64::from(!told.is_empty());
                            if !lost.is_empty() && told.is_empty() {
                                failures
                                    .lock()
                                    .unwrap()
                                    .push(format!("{case:?}: lost {lost:?}, and check reported nothing"));
                            }
                        }
                        Err(_) => failures.lock().unwrap().push(format!("{case:?}: panicked")),
                    }
                }
            });
        }
    });
    println!("| file | damage | cases | something could be lost | check reports damage (65) |\n|---|---|---|---|---|");
    for ((file, way), (cases, lost, told)) in table.into_inner().unwrap() {
        println!("| {file} | {way:?} | {cases} | {lost} | {told} |");
    }
    let failures = failures.into_inner().unwrap();
    let shown: Vec<_> = failures.iter().take(20).cloned().collect();
    assert!(failures.is_empty(), "{} of {} cases failed:\n{}", failures.len(), cases.len(), shown.join("\n"));
}

/// Runs a case. Returns each loss, with the part that was removed in addition to the damage, and what `check` reported
/// before.
fn look(
    case: &Case,
    n: usize,
    all: bool,
    (template, at): (&Path, dhtstore::clock::UnixTime),
    whole: &[Given; 5],
) -> (Vec<(&'static str, Given)>, Vec<String>) {
    let damaged = copy(template);
    case.apply(damaged.path());
    let told = damage(damaged.path(), &ManualClock::at(at));
    let mut lost = Vec::new();
    for (part, whole) in PARTS.into_iter().zip(whole) {
        // The part with the damage is not lost in addition. A quick run loses only one of the other parts.
        let same = !part.is_empty() && case.file.starts_with(part);
        if same || !all && !part.is_empty() && part != PARTS[1 + n % 4] {
            continue;
        }
        let given = given(copy(damaged.path()).path(), part, &ManualClock::at(at));
        if is_less(given, *whole) {
            lost.push((part, given));
        }
    }
    (lost, told)
}
