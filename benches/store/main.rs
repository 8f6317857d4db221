//! Compares the record store with one sled row per record and with an LSM store like leveldb, in the same run.
//!
//! ```text
//! cargo bench --bench store                            a million records, all three
//! cargo bench --bench store -- 10000000                ten million; the baselines stay at a million
//! cargo bench --bench store -- 100000000 --ours DIR    ours alone, in DIR (a file system with room)
//! cargo bench --bench store -- --shapes 10000000 DIR   ours alone, in DIR, with records as an attacker chooses them
//! cargo bench --bench store -- --steady 600            1,500 announcements a second for ten minutes: bytes written
//! cargo bench --bench store -- --dump 3000000          `dump` and `load` of 3,000,000 records, also end to end
//! ```
//!
//! Keys with one provider have 70 % of the records, and keys with ten have 30 %. The data is not stored: record number
//! n is computed when it is needed, and the cost of that is measured and subtracted. CPU is that of the whole process;
//! on a busy machine it is more reliable than the elapsed time.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a benchmark ends with the first error")]
#![allow(clippy::disallowed_methods, reason = "measures time")]

mod clock;
mod data;
mod dump;
mod lsm;
mod measure;
mod ours;
mod rows;
mod steady;

use data::Shape;
use measure::Took;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Maximum number of records of a baseline: more would take hours.
const MOST_FOR_BASELINES: usize = 1_000_000;

/// Name, unit, value.
type Figures = Vec<(&'static str, &'static str, f64)>;

/// Measurements of a baseline.
struct Baseline {
    load: Took,
    refresh: Took,
    hit: (f64, f64),
    missed: (f64, f64),
    gc: Took,
    restart: Took,
    /// Bytes of its files, and bytes of memory.
    disk: f64,
    memory: f64,
}

impl Baseline {
    fn figures(&self, records: usize) -> Figures {
        let n = records as f64;
        vec![
            ("upserts", "1/s", n / self.load.wall),
            ("CPU per upsert", "us", self.load.cpu * 1e6 / n),
            ("refreshes", "1/s", n / self.refresh.wall),
            ("CPU per refresh", "us", self.refresh.cpu * 1e6 / n),
            ("hit p50", "us", self.hit.0),
            ("hit p99", "us", self.hit.1),
            ("miss p50", "us", self.missed.0),
            ("miss p99", "us", self.missed.1),
            ("GC", "us of CPU per record", self.gc.cpu * 1e6 / n),
            ("disk, one copy", "B per record", self.disk / n),
            ("restart", "s", self.restart.wall),
            ("memory after load", "B per record", self.memory / n),
        ]
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        // Arguments of the child processes.
        ["restart", dir] => ours::restart(dir.as_ref()),
        ["all-cores", dir] => ours::on_all_cores(dir.as_ref()),
        ["shape", name, records, dir] => shape(name, records.parse().unwrap(), dir.as_ref()),
        ["--shapes", records, dir] => shapes(records.parse().unwrap(), dir.as_ref()),
        ["--dump", records] => dump::run(records.parse().unwrap()),
        ["--steady", seconds] => steady::run(seconds.parse().unwrap()),
        _ => {
            let records = args.first().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
            let dir = args.iter().position(|arg| *arg == "--ours").map(|at| PathBuf::from(args[at + 1]));
            compare(records, dir);
        }
    }
}

fn compare(records: usize, dir: Option<PathBuf>) {
    let keys = data::Data::new(records, Shape::Usual).keys();
    println!("{records} records, {keys} keys, {} peers", data::peers_of(records));
    let temporary = tempfile::tempdir().unwrap();
    let alone = dir.is_some();
    let dir = dir.unwrap_or(temporary.path().to_owned());
    let on_all_cores = ours::on_all_cores_elsewhere(records, &dir);
    let mut ours = ours::run(records, &dir, Shape::Usual);
    ours.insert(1, ("upserts on all cores", "1/s", on_all_cores));
    let few = records.min(MOST_FOR_BASELINES);
    let (rows, lsm) = if alone { (Vec::new(), Vec::new()) } else { (rows::run(few), lsm::run(few)) };
    if !alone {
        println!("\nbaselines with {few} records");
    }
    println!("\n{:44} {:>12} {:>12} {:>12} {:>8} {:>8}", "", "dhtstore", "sled rows", "leveldb", "ratio", "ratio");
    for (name, unit, value) in &ours {
        let is_it = |(other, in_unit, _): &&(&str, &str, f64)| (other, in_unit) == (name, unit);
        let of = |figures: &Figures| figures.iter().find(is_it).map(|(.., value)| *value);
        print!("{:44} {value:>12.2}", format!("{name}, {unit}"));
        if let (Some(rows), Some(lsm)) = (of(&rows), of(&lsm)) {
            print!(" {rows:>12.2} {lsm:>12.2} {:>8.2} {:>8.2}", value / rows, value / lsm);
        }
        println!();
    }
}

/// Distributions of the same number of records: the usual one, and those that an attacker would choose.
const SHAPES: [(&str, Shape); 4] = [
    ("usual", Shape::Usual),
    ("one key", Shape::OneKey),
    ("one provider", Shape::OneProvider),
    ("ground", Shape::Ground),
];

/// Measures each distribution in a process of its own: memory that one has freed would distort the next.
fn shapes(records: usize, dir: &Path) {
    let run = |(name, _)| {
        let itself = std::env::current_exe().unwrap();
        let output = Command::new(itself).args(["shape", name, &records.to_string()]).arg(dir).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let row = |line: &str| {
            let (label, value) = line.rsplit_once('\t').unwrap();
            (label.to_owned(), value.parse().unwrap())
        };
        (name, text.lines().map(row).collect())
    };
    let columns: Vec<(&str, Vec<(String, f64)>)> = SHAPES.into_iter().map(run).collect();
    print!("{records} records\n\n{:44}", "");
    columns.iter().for_each(|(name, _)| print!(" {name:>12}"));
    println!();
    // The column of the one key has the most rows.
    let rows = columns.iter().map(|(_, figures)| figures).max_by_key(|figures| figures.len()).unwrap();
    for (label, _) in rows {
        print!("{label:44}");
        for (_, figures) in &columns {
            match figures.iter().find(|(other, _)| other == label) {
                Some((_, value)) => print!(" {value:>12.2}"),
                None => print!(" {:>12}", ""),
            }
        }
        println!();
    }
}

/// Runs in the process of one distribution.
fn shape(name: &str, records: usize, dir: &Path) {
    let (_, shape) = SHAPES.into_iter().find(|(known, _)| *known == name).unwrap();
    let dir = tempfile::tempdir_in(dir).unwrap();
    for (name, unit, value) in ours::run(records, dir.path(), shape) {
        println!("{name}, {unit}\t{value}");
    }
}
