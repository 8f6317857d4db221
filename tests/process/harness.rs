//! Real `dhtstore` processes on loopback, each with its own data directory.

pub use dhtstore_testkit::files::fingerprint;
use dhtstore_testkit::{port, program};
use libp2p::{Multiaddr, PeerId};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::BTreeMap,
    io::Write,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Returns a command that runs the binary under test.
pub fn dhtstore() -> Command {
    program::command(env!("CARGO_BIN_EXE_dhtstore"))
}

/// Returns the CIDv1 (raw, sha2-256) of `content` in base16 multibase: `f01551220…`.
pub fn cid(content: &str) -> String {
    multihash(content).iter().fold("f0155".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// Returns the multihash of [`cid`].
pub fn multihash(content: &str) -> Vec<u8> {
    dhtstore_testkit::multihash(content)
}

/// A node: its directory, its port, and its process while it runs.
pub struct TestNode {
    dir: TempDir,
    pub port: u16,
    settings: BTreeMap<String, String>,
    bootstrap: Vec<String>,
    /// IPv4 address that it listens on.
    ip: String,
    /// Process whose network namespace the node runs in.
    namespace: Option<u32>,
    process: Option<Child>,
}

impl TestNode {
    /// Creates a node without starting it.
    pub fn new() -> Self {
        // The tests of one process open hundreds of sockets; the usual soft limit is 1,024.
        rlimit::increase_nofile_limit(u64::MAX).unwrap();
        let dir = tempfile::Builder::new().prefix("dhtstore-test-").tempdir().unwrap();
        let ip = "127.0.0.1".to_owned();
        let (settings, bootstrap) = (BTreeMap::new(), Vec::new());
        Self { dir, port: port::free(), settings, bootstrap, ip, namespace: None, process: None }
    }

    /// Runs the node in the network namespace of a process, on an address there.
    pub fn at(mut self, process: u32, ip: &str) -> Self {
        (self.namespace, self.ip) = (Some(process), ip.to_owned());
        self
    }

    /// Starts a node with default settings.
    pub fn started() -> Self {
        let mut node = Self::new();
        node.start();
        node
    }

    /// Adds a setting by its environment variable without the `DHTSTORE_` prefix: `("RECORDS_TTL", "3s")`.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(format!("DHTSTORE_{name}"), value.to_owned());
        self
    }

    /// Sets an environment variable of the node and its commands.
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.insert(format!("DHTSTORE_{name}"), value.to_owned());
    }

    /// Makes the node bootstrap from `other` at its next start.
    pub fn joining(mut self, other: &TestNode) -> Self {
        self.bootstrap = vec![other.address()];
        self
    }

    pub fn forget_bootstrap(&mut self) {
        self.bootstrap.clear();
    }

    pub fn dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Returns a `dhtstore` command for this node.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = dhtstore();
        command.arg("--data-dir").arg(self.dir()).args(args).envs(&self.settings);
        command
    }

    /// Runs a command to its end.
    pub fn cli(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that must succeed. Returns its stdout.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.cli(args);
        assert!(output.status.success(), "dhtstore {args:?} failed: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command with `input` on stdin.
    pub fn cli_with_input(&self, args: &[&str], input: &str) -> Output {
        let mut child =
            self.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        match child.stdin.take().unwrap().write_all(input.as_bytes()) {
            // The command may end before it has read all input.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            outcome => outcome.unwrap(),
        }
        child.wait_with_output().unwrap()
    }

    /// Returns the command that [`TestNode::start`] runs.
    pub fn run_command(&self) -> Command {
        let mut command = self.command(&["run", "--listen", &self.multiaddr().to_string()]);
        for peer in &self.bootstrap {
            command.args(["--bootstrap", peer]);
        }
        let Some(process) = self.namespace else { return command };
        let mut within = Command::new("nsenter");
        within
            .arg(format!("--net=/proc/{process}/ns/net"))
            .arg("--")
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => within.env(name, value),
                None => within.env_remove(name),
            };
        }
        within.stdin(Stdio::null());
        within
    }

    /// Starts the process and waits until it serves.
    pub fn start(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        self.start_logging_to(log.try_clone().unwrap().into(), log.into());
    }

    /// Starts the process with the given stdout and stderr, and waits until it serves.
    pub fn start_logging_to(&mut self, stdout: Stdio, stderr: Stdio) {
        let mut command = self.run_command();
        command.stdout(stdout).stderr(stderr);
        self.started_by(command);
    }

    /// Starts the process with another command than [`TestNode::run_command`].
    pub fn start_by(&mut self, mut command: Command) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.started_by(command);
    }

    fn started_by(&mut self, mut command: Command) {
        assert!(self.process.is_none(), "already started");
        self.process = Some(command.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.cli(&["id"]).status.success() || !self.socket_answers() {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the node ended with {ended:?}:\n{}", self.log());
            assert!(Instant::now() < deadline, "the node did not start in 30 s:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns the stderr of the process, which must be [`Stdio::piped`].
    pub fn take_stderr(&mut self) -> std::process::ChildStderr {
        self.process.as_mut().and_then(|child| child.stderr.take()).expect("piped")
    }

    /// Waits until the process ends by itself. Returns its exit code.
    pub fn ended(&mut self, limit: Duration) -> Option<i32> {
        let mut child = self.process.take().expect("started");
        let mut status = None;
        eventually("the process ends", limit, || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    fn socket_answers(&self) -> bool {
        std::os::unix::net::UnixStream::connect(self.dir().join("control.sock")).is_ok()
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        let mut child = self.process.take().expect("started");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Sends SIGTERM and returns the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut child = self.process.take().expect("started");
        signal(&child, Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the node did not stop in 30 s:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Returns its address: `/ip4/IP/tcp/PORT/p2p/ID`.
    pub fn address(&self) -> String {
        format!("{}/p2p/{}", self.multiaddr(), self.peer_id())
    }

    pub fn multiaddr(&self) -> Multiaddr {
        format!("/ip4/{}/tcp/{}", self.ip, self.port).parse().unwrap()
    }

    pub fn peer_id(&self) -> PeerId {
        let line = self.ok(&["id", "--bootstrap"]);
        let line = line.lines().next().expect("an address");
        line.rsplit('/').next().unwrap().parse().unwrap()
    }

    /// Returns the rows of an NDJSON command, without the header and the end of a dump.
    pub fn rows(&self, args: &[&str]) -> Vec<serde_json::Value> {
        let rows = self.ok(args);
        let rows = rows.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect(line));
        rows.filter(|row| row.get("dhtstore").is_none()).collect()
    }

    /// Returns the peers of its routing tables.
    pub fn table(&self) -> Vec<String> {
        let rows = self.rows(&["closest", "--local", "--format", "ndjson", &self.peer_id().to_string()]);
        let mut peers: Vec<_> = rows.iter().map(|row| row["peer"].as_str().unwrap().to_owned()).collect();
        peers.sort();
        peers.dedup();
        peers
    }

    /// Returns the providers of a CID that this node itself stores, with their addresses.
    pub fn held(&self, cid: &str) -> Vec<(String, Vec<String>)> {
        self.rows(&["findprovs", "--local", "-n", "1000", "--format", "ndjson", cid])
            .into_iter()
            .map(|row| {
                let addresses = row["addresses"].as_array().unwrap().iter().map(|a| a.as_str().unwrap().to_owned());
                (row["peer"].as_str().unwrap().to_owned(), addresses.collect())
            })
            .collect()
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("log of the node on port {}:\n{}", self.port, self.log());
        }
    }
}

/// Sends a signal to a child process.
pub fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Factor by which time limits are extended, for busy machines.
const BUSY: u32 = 3;

/// Polls until `condition` holds; panics with `what` after [`BUSY`] times the `limit`.
pub fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let limit = limit * BUSY;
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Formats the exit code and the output of a command.
pub fn text(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("exit {:?}\nstdout: {out}\nstderr: {err}", output.status.code())
}

/// Asserts an exit code and that stderr contains every one of `words`.
pub fn fails(output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.status.code(), Some(code), "{}", text(output));
    let stderr = String::from_utf8_lossy(&output.stderr);
    for word in words {
        assert!(stderr.contains(word), "stderr does not say {word:?}: {}", text(output));
    }
}
