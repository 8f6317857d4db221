//! What the kernel says of this process.

use std::{fs, hint::black_box, path::Path, time::Duration, time::Instant};

const LOOKUPS: usize = 200_000;

pub struct Took {
    pub wall: f64,
    /// Of the process.
    pub cpu: f64,
    /// Of this thread.
    pub own_cpu: f64,
}

impl Took {
    /// What is left without `other`, `times` of it.
    pub fn without(self, other: &Took, times: f64) -> Self {
        Self {
            wall: self.wall - other.wall * times,
            cpu: self.cpu - other.cpu * times,
            own_cpu: self.own_cpu - other.own_cpu * times,
        }
    }
}

pub fn measure(what: impl FnOnce()) -> Took {
    let (start, cpu, own_cpu) = (Instant::now(), cpu_seconds(), own_cpu_seconds());
    what();
    Took { wall: start.elapsed().as_secs_f64(), cpu: cpu_seconds() - cpu, own_cpu: own_cpu_seconds() - own_cpu }
}

/// User and system time of this thread.
fn own_cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// User and system time of the process; the kernel counts in hundredths of a second.
pub fn cpu_seconds() -> f64 {
    times("self", 11)
}

/// The same of another process.
pub fn cpu_seconds_of(process: u32) -> f64 {
    times(&process.to_string(), 11)
}

/// The same of all children of the process that have ended.
pub fn children_cpu_seconds() -> f64 {
    times("self", 13)
}

/// The sum of two fields of `stat`, counted behind the name.
fn times(process: &str, first: usize) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    (fields[first].parse::<f64>().unwrap() + fields[first + 1].parse::<f64>().unwrap()) / 100.0
}

/// Resident memory in bytes.
pub fn rss() -> f64 {
    status("self", "VmRSS:")
}

/// The same of another process.
pub fn rss_of(process: u32) -> f64 {
    status(&process.to_string(), "VmRSS:")
}

/// Largest resident memory since the start of the process, in bytes.
pub fn peak_rss() -> f64 {
    status("self", "VmHWM:")
}

/// The same of another process.
pub fn peak_rss_of(process: u32) -> f64 {
    status(&process.to_string(), "VmHWM:")
}

fn status(process: &str, name: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
}

/// Bytes that this process has caused to be written to the disk.
pub fn written() -> f64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find(|line| line.starts_with("write_bytes:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

pub fn bytes_below(dir: &Path) -> f64 {
    let entries = fs::read_dir(dir).unwrap().flatten();
    entries.map(|e| if e.path().is_dir() { bytes_below(&e.path()) } else { e.metadata().unwrap().len() as f64 }).sum()
}

/// p50 and p99 in microseconds of a look-up of each of these keys.
pub fn percentiles(key: impl Fn(usize) -> [u8; 34], find: impl Fn(&[u8]) -> usize) -> (f64, f64) {
    percentiles_of(LOOKUPS, key, find)
}

/// The same of so many look-ups.
pub fn percentiles_of(lookups: usize, key: impl Fn(usize) -> [u8; 34], find: impl Fn(&[u8]) -> usize) -> (f64, f64) {
    let keys: Vec<[u8; 34]> = (0..lookups).map(key).collect();
    let took = keys.iter().map(|key| {
        let start = Instant::now();
        black_box(find(key));
        start.elapsed()
    });
    let mut took: Vec<Duration> = took.collect();
    took.sort();
    let at = |part: usize| took[took.len() * part / 100].as_secs_f64() * 1e6;
    (at(50), at(99))
}
