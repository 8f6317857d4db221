//! The record store beside one sled row per record and a leveldb-like LSM, in the same run.
//!
//! ```text
//! cargo bench --bench store                            a million records, all three
//! cargo bench --bench store -- 10000000                ten million; the baselines stay at a million
//! cargo bench --bench store -- 100000000 --ours DIR    ours alone, in DIR (a file system with room)
//! cargo bench --bench store -- --steady 600            1,500 announcements a second for ten minutes: bytes written
//! cargo bench --bench store -- --dump 3000000          `dump` and `load` of so many, from end to end as well
//! ```
//!
//! 70 % of the records are of keys with one provider, 30 % of keys with ten. Nothing is kept of the data: record number
//! n is computed when it is needed, and what that costs is measured and taken off. CPU is that of the whole process; on
//! a busy machine it tells more than the clock does.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a benchmark ends with the first error")]
#![allow(clippy::disallowed_methods, reason = "measures time")]

mod data;
mod dump;
mod lsm;
mod measure;
mod ours;
mod rows;
mod steady;

use std::path::PathBuf;

/// Records of a baseline: more would take it hours.
const MOST_FOR_BASELINES: usize = 1_000_000;

/// Name, unit, value.
type Figures = Vec<(&'static str, &'static str, f64)>;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        // The second process of `ours`.
        ["restart", dir] => ours::restart(dir.as_ref()),
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
    println!("{records} records, {} keys, {} peers", data::Data::new(records).keys(), data::peers_of(records));
    let temporary = tempfile::tempdir().unwrap();
    let alone = dir.is_some();
    let ours = ours::run(records, &dir.unwrap_or(temporary.path().to_owned()));
    let few = records.min(MOST_FOR_BASELINES);
    let (rows, lsm) = if alone { (Vec::new(), Vec::new()) } else { (rows::run(few), lsm::run(few)) };
    if !alone {
        println!("\nbaselines with {few} records");
    }
    println!("\n{:44} {:>12} {:>12} {:>12} {:>8} {:>8}", "", "dhtstore", "sled rows", "leveldb", "ratio", "ratio");
    for (name, unit, value) in &ours {
        let of = |figures: &Figures| figures.iter().find(|(other, ..)| other == name).map(|(.., value)| *value);
        print!("{:44} {value:>12.2}", format!("{name}, {unit}"));
        if let (Some(rows), Some(lsm)) = (of(&rows), of(&lsm)) {
            print!(" {rows:>12.2} {lsm:>12.2} {:>8.2} {:>8.2}", value / rows, value / lsm);
        }
        println!();
    }
}
