//! What the kernel says of a process. Figures are NaN once it has ended.

use std::fs;

/// A process of this machine, by its id.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

impl Process {
    /// Returns the process that asks.
    pub fn this() -> Self {
        Self(std::process::id())
    }

    /// User and system time; the kernel counts in hundredths of a second.
    pub fn cpu_seconds(&self) -> f64 {
        self.times(11)
    }

    /// User and system time of its children that have ended and were waited for.
    pub fn children_cpu_seconds(&self) -> f64 {
        self.times(13)
    }

    /// The sum of two fields of `stat`, counted behind the name.
    fn times(&self, first: usize) -> f64 {
        let Ok(stat) = fs::read_to_string(self.file("stat")) else { return f64::NAN };
        let after_name = stat.rsplit(')').next().unwrap();
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        (fields[first].parse::<f64>().unwrap() + fields[first + 1].parse::<f64>().unwrap()) / 100.0
    }

    /// Resident memory in bytes.
    pub fn rss(&self) -> f64 {
        field(&self.file("status"), "VmRSS:") * 1024.0
    }

    /// Largest resident memory since its start, in bytes.
    pub fn peak_rss(&self) -> f64 {
        field(&self.file("status"), "VmHWM:") * 1024.0
    }

    /// Bytes that it has caused to be written to the disk. The page cache counts when it takes them, files on tmpfs never.
    pub fn written(&self) -> f64 {
        field(&self.file("io"), "write_bytes:")
    }

    /// How often its threads went to sleep of themselves: what waking and waiting costs.
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
