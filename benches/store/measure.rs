//! Measures elapsed time and CPU.

use dhtstore_testkit::process::Process;
use std::{fs, hint::black_box, time::Duration, time::Instant};

const LOOKUPS: usize = 200_000;

pub struct Took {
    pub wall: f64,
    /// CPU of the process, in seconds.
    pub cpu: f64,
    /// CPU of this thread, in seconds.
    pub own_cpu: f64,
}

impl Took {
    /// Subtracts `times` times `other`.
    pub fn without(self, other: &Took, times: f64) -> Self {
        Self {
            wall: self.wall - other.wall * times,
            cpu: self.cpu - other.cpu * times,
            own_cpu: self.own_cpu - other.own_cpu * times,
        }
    }
}

pub fn measure(what: impl FnOnce()) -> Took {
    let (start, cpu, own_cpu) = (Instant::now(), Process::this().cpu_seconds(), own_cpu_seconds());
    what();
    Took {
        wall: start.elapsed().as_secs_f64(),
        cpu: Process::this().cpu_seconds() - cpu,
        own_cpu: own_cpu_seconds() - own_cpu,
    }
}

/// Returns user and system time of this thread.
fn own_cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// Returns p50 and p99, in microseconds, of a look-up of each of these keys.
pub fn percentiles(key: impl Fn(usize) -> [u8; 34], find: impl Fn(&[u8]) -> usize) -> (f64, f64) {
    percentiles_of(LOOKUPS, key, find)
}

/// Returns p50 and p99 of this many look-ups.
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
