//! A place in which the commands of a document run unchanged: machines, each with its own home, and stubs of the
//! programs that would reach outside.

use crate::{
    pages::Step,
    text::{fits, line_contains, lines},
};
use dhtstore_testkit::{port, program};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Time allowed for a node to start, and for an output to match the one that is shown.
const PATIENCE: Duration = Duration::from_secs(20);
/// Commands that change nothing, so that they can be repeated until the network is in the state that the document
/// assumes.
const READS: [&str; 6] = ["peers", "findprovs", "diagnose", "closest", "stat", "provided"];
/// The ports that documents name. Each sandbox has others in their place.
const PORTS: [&str; 3] = ["4001", "4002", "4003"];
/// Beginnings of words that start with `/` and may still appear in a command, because they lead to no file outside.
const ADDRESSES: [&str; 6] = ["/ip4/", "/ip6/", "/dns", "/ipfs/", "/ipns/", "/dev/null"];

/// Programs that come first on the PATH. `$NODES` is a file with the ids of all nodes of the sandbox.
const STUBS: [(&str, &str); 9] = [
    ("sudo", r#"exec "$@""#),
    // A kill may cost the last two seconds of announcements, and a routing table that is not saved yet. The first run
    // of its job saves it within ten seconds, so the stub waits. A reader takes as long.
    (
        "pkill",
        r#"sleep 11
for pid in $(cat "$NODES"); do
    [ "$(readlink "/proc/$pid/exe")" = "$(readlink -f "$SANDBOX/bin/dhtstore")" ] && kill ${2:+"$1"} "$pid"
done
sleep 1"#,
    ),
    // `ssh HOST COMMAND` runs COMMAND on the machine of that name.
    (
        "ssh",
        r#"home=$SANDBOX/${1#*@}; shift
mkdir -p "$home/var/lib" && cd "$home" && HOME=$home DHTSTORE_DATA_DIR=$home/var/lib/dhtstore exec "$@""#,
    ),
    // One node for each machine. A document may stop a node whose start it does not show.
    (
        "systemctl",
        r#"case "$*" in
*restart*) systemctl stop && systemctl start ;;
*stop* | *disable*)
    [ -f node.pid ] || systemctl start
    kill "$(cat node.pid)"
    for _ in $(seq 300); do kill -0 "$(cat node.pid)" 2>/dev/null || break; sleep 0.1; done
    rm node.pid ;;
*start* | *enable*)
    [ -f node.pid ] && exit
    setsid dhtstore run >node.log 2>&1 </dev/null & echo $! | tee node.pid >>"$NODES"
    for _ in $(seq 300); do grep -q '^ready' node.log && exit; sleep 0.1; done
    cat node.log; exit 1 ;;
esac"#,
    ),
    ("chown", "true"),
    ("jq", "cat"),
    ("age", "cat"),
    ("ipfs", "echo bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"),
    ("journalctl", "cat node.log"),
];

pub struct Sandbox {
    dir: TempDir,
    ports: Vec<String>,
}

impl Sandbox {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("docs-").tempdir().unwrap();
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_dhtstore"), bin.join("dhtstore")).unwrap();
        for (name, script) in STUBS {
            fs::write(bin.join(name), format!("#!/bin/bash\n{script}\n")).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(dir.path().join("nodes"), "").unwrap();
        let ports = PORTS.map(|_| port::free().to_string()).into();
        Self { dir, ports }
    }

    /// The home of a machine, which is the working directory there.
    fn home(&self, host: &str) -> PathBuf {
        let home = self.dir.path().join(host);
        fs::create_dir_all(home.join("etc/dhtstore")).unwrap();
        fs::create_dir_all(home.join("var/lib")).unwrap();
        home
    }

    fn nodes(&self) -> PathBuf {
        self.dir.path().join("nodes")
    }

    /// The text with the ports and the paths of this sandbox.
    fn fit(&self, text: &str, home: &Path) -> String {
        let mut text = text.to_owned();
        for (shown, own) in PORTS.iter().zip(&self.ports) {
            text = text.replace(&format!("/{shown}"), &format!("/{own}"));
        }
        for path in ["/var/lib/dhtstore", "/etc/dhtstore"] {
            text = text.replace(path, &format!("{}{path}", home.display()));
        }
        text.replace("~/", &format!("{}/", home.display()))
    }

    /// A shell for one command line on a machine.
    fn shell(&self, program: &str, home: &Path, command: &str) -> Command {
        let mut shell = program::command(program);
        let path = format!("{}:{}", self.dir.path().join("bin").display(), std::env::var("PATH").unwrap());
        shell.env_remove("DHTSTORE_CONFIG").env("PATH", path).env("SHELL", "/bin/bash").env("HOME", home);
        shell.env("DHTSTORE_DATA_DIR", home.join("var/lib/dhtstore")).env("SANDBOX", self.dir.path());
        shell.env("NODES", self.nodes()).env("NO_COLOR", "1").current_dir(home);
        if !command.contains("--listen") {
            shell.env("DHTSTORE_LISTEN", format!("/ip4/127.0.0.1/tcp/{}", self.port_of(home)));
        }
        // No peer outside is dialled.
        if !command.contains("--bootstrap") && !command.contains("config") {
            shell.env("DHTSTORE_BOOTSTRAP", "");
        }
        shell
    }

    fn port_of(&self, home: &Path) -> &str {
        &self.ports[usize::from(!home.ends_with("here") && !home.ends_with("old"))]
    }

    /// Runs a command of a document and compares its output.
    pub fn run(&self, step: &Step) {
        let home = self.home(&step.host);
        if let Some(text) = &step.file {
            fs::write(home.join("block.toml"), self.fit(text, &home)).unwrap();
        }
        let command = self.fit(&step.command, &home);
        let is_absolute =
            |word: &&str| word.strip_prefix('/').is_some_and(|rest| rest.starts_with(char::is_alphanumeric));
        for word in command.split([' ', '\'', '"', '=']).filter(is_absolute) {
            let is_inside = Path::new(word).starts_with(self.dir.path());
            assert!(is_inside || ADDRESSES.iter().any(|a| word.starts_with(a)), "{}: {word} is outside", step.place);
        }
        let expected: Option<Vec<String>> =
            step.expected.as_ref().map(|lines| lines.iter().map(|line| self.fit(line, &home)).collect());
        if command.starts_with("dhtstore") && command.split_whitespace().any(|word| word == "run") {
            return self.start(step, &home, command.trim_end_matches('&'), &expected.unwrap_or_default());
        }
        let fails = expected.iter().flatten().any(|line| line.starts_with("error: "));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (succeeded, actual) = self.output(&home, &command);
            let is_right = succeeded != fails && expected.as_ref().is_none_or(|expected| fits(expected, &actual));
            if is_right {
                return;
            }
            let can_repeat = READS.iter().any(|read| command.split_whitespace().any(|word| word == *read));
            assert!(
                can_repeat && Instant::now() < deadline,
                "{}: {}\nsuccess: {succeeded}, and the output is\n{}\nwhere the document shows\n{}",
                step.place,
                step.command,
                actual.join("\n"),
                expected.unwrap_or_default().join("\n")
            );
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Runs a command line on a terminal. Returns whether it succeeded, and what the terminal shows.
    fn output(&self, home: &Path, command: &str) -> (bool, Vec<String>) {
        let mut terminal = self.shell("script", home, command);
        terminal.args(["-qec", &format!("stty cols 250; {command}"), "/dev/null"]);
        let output = terminal.output().unwrap();
        (output.status.success(), lines(&String::from_utf8_lossy(&output.stdout)))
    }

    /// The exit code of a command line without a terminal, and everything that it wrote.
    pub fn exit_code(&self, command: &str) -> (Option<i32>, String) {
        let home = self.home("here");
        let output = self.shell("bash", &home, command).args(["-c", command]).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Starts a node and waits until it serves and has logged what the document shows.
    fn start(&self, step: &Step, home: &Path, command: &str, expected: &[String]) {
        let before = fs::read_to_string(self.nodes()).unwrap();
        let log_path = home.join(format!("log-{}", before.lines().count()));
        let log = fs::File::create(&log_path).unwrap();
        let mut node = self.shell("bash", home, command);
        node.args(["-c", &format!("exec {command}")]).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut node = node.spawn().unwrap();
        fs::write(self.nodes(), format!("{before}{}\n", node.id())).unwrap();
        // A reader goes on only after the node has joined.
        let joined = if command.contains("--bootstrap") { "joined" } else { "" };
        let is_there = |log: &str, line: &String| line == "…" || log.lines().any(|logged| line_contains(line, logged));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = fs::read_to_string(&log_path).unwrap();
            if log.lines().any(|line| line == "ready")
                && log.contains(joined)
                && expected.iter().all(|line| is_there(&log, line))
            {
                // Waits for its end, so that a killed node does not stay in the process table as a zombie.
                thread::spawn(move || node.wait());
                return;
            }
            let has_ended = node.try_wait().unwrap().is_some();
            assert!(
                !has_ended && Instant::now() < deadline,
                "{}: {}\nthe log is\n{log}\nwhere the document shows\n{}",
                step.place,
                step.command,
                expected.join("\n")
            );
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Sandbox {
    /// Ends the nodes that are left, each by its id, and only if that id still belongs to a node.
    fn drop(&mut self) {
        let own = fs::canonicalize(env!("CARGO_BIN_EXE_dhtstore")).unwrap();
        for id in fs::read_to_string(self.nodes()).unwrap_or_default().lines() {
            let is_own = fs::read_link(format!("/proc/{id}/exe")).is_ok_and(|exe| exe == own);
            if let Some(pid) = id.parse().ok().and_then(Pid::from_raw).filter(|_| is_own) {
                kill_process(pid, Signal::KILL).ok();
            }
        }
        thread::sleep(Duration::from_millis(100));
    }
}
