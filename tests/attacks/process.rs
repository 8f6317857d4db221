//! A real process under attack, with its open files and its memory.

use crate::Victim;
use dhtstore_testkit::{port, process, program};
use std::{
    path::Path,
    process::{Child, Command},
    sync::Arc,
    time::{Duration, Instant},
};

/// Time for streams and connections of vanished peers to disappear: three times what QUIC needs to notice.
const PATIENCE: Duration = Duration::from_secs(30);

/// `dhtstore run` in a directory of its own; killed when dropped.
pub struct Process {
    child: Child,
    dir: tempfile::TempDir,
    pub tcp: u16,
    pub udp: u16,
    pub websocket: u16,
}

impl Process {
    /// Starts the process with settings, given as environment variables without the prefix `DHTSTORE_`.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let secure = settings.iter().any(|(name, _)| *name == "WEBSOCKET_CERTIFICATE");
        let websockets = if secure { "tls/ws" } else { "ws" };
        // The attackers run in this process, and the usual soft limit is 1,024.
        rlimit::increase_nofile_limit(u64::MAX).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let tcp = port::free();
        let udp = port::free();
        let websocket = port::free();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = command(dir.path())
            .args(["run", "--listen", &format!("/ip4/127.0.0.1/tcp/{tcp}")])
            .args(["--listen", &format!("/ip4/127.0.0.1/udp/{udp}/quic-v1")])
            .args(["--listen", &format!("/ip4/127.0.0.1/tcp/{websocket}/{websockets}")])
            .env("RUST_LOG", "dhtstore_node::serve=debug,warn")
            .envs(settings.iter().map(|(name, value)| (format!("DHTSTORE_{name}"), value)))
            .stderr(log)
            .spawn()
            .unwrap();
        let process = Self { child, dir, tcp, udp, websocket };
        process.eventually("it runs", || process.stat().is_some());
        process
    }

    /// Returns the process as a target.
    pub fn victim(&self, many: usize, patience: Duration) -> Victim {
        let tcp = format!("/ip4/127.0.0.1/tcp/{}", self.tcp).parse().unwrap();
        let quic = format!("/ip4/127.0.0.1/udp/{}/quic-v1", self.udp).parse().unwrap();
        Victim { tcp, quic, many, patience, opened: Arc::default() }
    }

    pub fn eventually(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}\n{}", self.state());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub fn stat(&self) -> Option<serde_json::Value> {
        let output = command(self.dir.path()).args(["stat", "--format", "json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Describes the process for the message of a failed test.
    pub fn state(&self) -> String {
        let (stat, log) = (self.stat().unwrap_or_default(), self.log());
        let last: Vec<&str> = log.lines().rev().take(60).collect();
        format!("{} {}\n{}", stat["load"], stat["network"], last.join("\n"))
    }

    pub fn rss_kb(&self) -> u64 {
        let rss = process::Process(self.child.id()).rss();
        assert!(rss > 0.0, "the process has ended");
        (rss / 1024.0) as u64
    }

    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Returns a counter of `stat`.
    pub fn counter(&self, name: &str) -> u64 {
        self.stat().unwrap()["network"][name].as_u64().unwrap_or(0)
    }

    /// Waits until only the honest client is connected, with one stream.
    pub fn settled(&self) {
        self.eventually("the attackers are gone", || {
            let stat = self.stat().unwrap();
            let load = &stat["load"];
            (load["inbound_streams"].as_u64(), load["read_bytes"].as_u64()) == (Some(1), Some(0))
                && stat["connections"] == 1
        });
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn command(dir: &Path) -> Command {
    let mut command = program::command(env!("CARGO_BIN_EXE_dhtstore"));
    command.arg("--data-dir").arg(dir.join("data"));
    // The tests measure what the process keeps, not how many arenas its threads needed.
    command.env("MALLOC_ARENA_MAX", "1");
    // They do not measure freed memory that the allocator keeps for later, either.
    command.env("MALLOC_TRIM_THRESHOLD_", "65536").env("MALLOC_MMAP_THRESHOLD_", "65536");
    command
}
