//! Figures of a process from `/proc`. They are NaN once the process has ended.

use std::fs;

/// A process of this machine, by its id.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

impl Process {
    /// Returns the current process.
    pub fn this() -> Self {
        Self(std::process::id())
    }

    /// Returns its user and system time, in steps of 0.01 s.
    pub fn cpu_seconds(&self) -> f64 {
        self.times(11)
    }

    /// Returns the user and system time of its children that have ended and were waited for.
    pub fn children_cpu_seconds(&self) -> f64 {
        self.times(13)
    }

    /// Returns the sum of two fields of `stat` in seconds: the field number `first` after the name, and the next one.
    fn times(&self, first: usize) -> f64 {
        let Ok(stat) = fs::read_to_string(self.file("stat")) else { return f64::NAN };
        let after_name = stat.rsplit(')').next().unwrap();
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        (fields[first].parse::<f64>().unwrap() + fields[first + 1].parse::<f64>().unwrap()) / 100.0
    }

    /// Returns its resident memory in bytes.
    pub fn rss(&self) -> f64 {
        field(&self.file("status"), "VmRSS:") * 1024.0
    }

    /// Returns its largest resident memory since its start, in bytes.
    pub fn peak_rss(&self) -> f64 {
        field(&self.file("status"), "VmHWM:") * 1024.0
    }

    /// Returns the bytes that it has written to the disk. They count when they enter the page cache. Files on tmpfs do
    /// not count.
    pub fn written(&self) -> f64 {
        field(&self.file("io"), "write_bytes:")
    }

    /// Returns the count of voluntary context switches of its threads: what waiting and waking costs.
    pub fn switches(&self) -> f64 {
        let Ok(tasks) = fs::read_dir(self.file("task")) else { return f64::NAN };
        let status = tasks.flatten().map(|task| task.path().join("status"));
        status.map(|path| field(&path.to_string_lossy(), "voluntary_ctxt_switches:")).sum()
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.0)
    }
}

fn field(path: &str, name: &str) -> f64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(f64::NAN)
}
