//! All attacks together, round after round, on a real process: its memory and its files stay what they were.

use crate::{ATTACKS, Over, Victim, honest::Honest, raw::Raw};
use futures::future::join_all;
use std::{
    net::{TcpListener, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Rounds before the first look, and in all: what is allocated once is allocated by then.
const WARM_ROUNDS: usize = 5;
const ROUNDS: usize = 20;
/// Growth allowed between the two looks: what is remembered of strangers, of whom there are some 60 a round, and the
/// allocator's. Measured over 80 rounds: 5 MB up to the 20th, then 120 KB a round, 2 KB a stranger; up to 15 MB where the
/// machine was overloaded and more of it was in hand at once. A kilobyte kept of each stream would be 30 MB.
const SLACK_KB: u64 = 24 * 1024;
/// Of each attack's many.
const MANY: usize = 25;

/// `dhtstore run` in a directory of its own; killed when dropped.
struct Process {
    child: Child,
    dir: tempfile::TempDir,
    tcp: u16,
    udp: u16,
}

impl Process {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = command(dir.path())
            .args(["run", "--listen", &format!("/ip4/127.0.0.1/tcp/{tcp}")])
            .args(["--listen", &format!("/ip4/127.0.0.1/udp/{udp}/quic-v1")])
            .env("RUST_LOG", "dhtstore::node::server=debug,warn")
            .stderr(log)
            .spawn()
            .unwrap();
        let process = Self { child, dir, tcp, udp };
        process.eventually("it runs", || process.stat().is_some());
        process
    }

    fn eventually(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !condition() {
            assert!(Instant::now() < deadline, "not within 30 s: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn stat(&self) -> Option<serde_json::Value> {
        let output = command(self.dir.path()).args(["stat", "--format", "json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }

    /// What there is to know when something went wrong.
    fn state(&self) -> String {
        let (stat, log) = (self.stat().unwrap_or_default(), self.log());
        let last: Vec<&str> = log.lines().rev().take(60).collect();
        format!("{} {}\n{}", stat["load"], stat["network"], last.join("\n"))
    }

    fn rss_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Waits until nobody but the honest client is connected.
    fn settled(&self) {
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
    let mut command = Command::new(env!("CARGO_BIN_EXE_dhtstore"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DHTSTORE_")) {
        command.env_remove(name);
    }
    command.env("DHTSTORE_CONFIG", "/dev/null").env_remove("RUST_LOG").arg("--data-dir").arg(dir.join("data"));
    // What is looked at is what the process keeps, not how many arenas its threads happened to need.
    command.env("MALLOC_ARENA_MAX", "2").stdin(Stdio::null());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn msg_3_twenty_rounds_of_all_attacks_leave_a_process_as_it_was() {
    let process = Process::start();
    let tcp = format!("/ip4/127.0.0.1/tcp/{}", process.tcp).parse().unwrap();
    let quic = format!("/ip4/127.0.0.1/udp/{}/quic-v1", process.udp).parse().unwrap();
    let honest = Honest::start(&tcp, 2).await;
    let victim = Victim { tcp, quic, many: MANY, patience: Duration::from_millis(100) };
    let mut looks = Vec::new();
    let begun = Instant::now();
    for rounds in [WARM_ROUNDS, ROUNDS - WARM_ROUNDS] {
        for _ in 0..rounds {
            let attacks = ATTACKS.iter().map(|attack| tokio::spawn((attack.run)(victim.clone())));
            for (attack, run) in ATTACKS.iter().zip(join_all(attacks).await) {
                assert!(run.is_ok(), "{}: {}", attack.name, process.state());
            }
        }
        tokio::task::block_in_place(|| process.settled());
        looks.push((process.rss_kb(), process.open_files()));
    }
    let served = honest.served().await;
    println!("{ROUNDS} rounds in {:?}: RSS in KB and open files {looks:?}; {served}", begun.elapsed());
    let [(warm_kb, warm_files), (kb, files)] = looks[..] else { panic!("two looks") };
    assert!(kb <= warm_kb + SLACK_KB, "{warm_kb} KB after {WARM_ROUNDS} rounds, {kb} KB after {ROUNDS}");
    assert!(files <= warm_files + 8, "{warm_files} files after {WARM_ROUNDS} rounds, {files} after {ROUNDS}");

    // What was refused is counted under the name that the documentation has, and logged at debug.
    let network = process.stat().unwrap()["network"].clone();
    let timed = ["refused, message not finished in time", "refused, answers not read"];
    for counter in ATTACKS.iter().flat_map(|attack| attack.counted).filter(|counter| !timed.contains(counter)) {
        assert!(network[counter].as_u64() >= Some(ROUNDS as u64), "{counter}: {network}");
    }
    let log = process.log();
    let refusal = log.lines().find(|line| line.contains("key is not a multihash")).expect("refusals are logged");
    assert!(refusal.contains("DEBUG"), "{refusal}");
    assert!(!log.contains("panicked"), "{log}");
    Raw::connect(victim.tcp, Over::Noise).await;
}
