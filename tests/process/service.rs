//! Tests of the node as a service: messages to systemd, signals, and commands while the node does not answer.

use crate::harness::{TestNode, cid, eventually, fails, signal, text};
use rustix::process::Signal;
use std::{
    os::unix::net::UnixDatagram,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

/// Reads messages to systemd until one begins with `wanted`. Returns all of them.
fn told(systemd: &UnixDatagram, wanted: &str) -> Vec<String> {
    let mut messages: Vec<String> = Vec::new();
    let mut buffer = [0; 4096];
    while !messages.last().is_some_and(|last| last.starts_with(wanted)) {
        assert!(messages.len() < 10, "{wanted} is not among {messages:?}");
        let length = systemd.recv(&mut buffer).expect(wanted);
        messages.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    messages
}

#[test]
fn systemd_is_told_ready_status_and_stopping() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // Readiness must not wait for peers that never answer.
    let node = TestNode::new();
    let mut child = node
        .run_command()
        .args(["--bootstrap", "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"])
        .env("NOTIFY_SOCKET", &path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut messages = told(&systemd, "READY=1");
    assert!(node.cli(&["stat"]).status.success(), "ready is told when it serves");
    if messages.len() == 1 {
        messages = told(&systemd, "STATUS=");
    }
    assert!(messages.iter().any(|message| message.starts_with("STATUS=") && message.contains("0 records")));
    signal(&child, Signal::TERM);
    told(&systemd, "STOPPING=1");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Starts the process of a node, without a log, and waits until it serves.
fn serving(node: &TestNode) -> Child {
    let child = node.run_command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("it serves", Duration::from_secs(20), || node.cli(&["stat"]).status.success());
    child
}

#[test]
fn sigint_stops_as_sigterm_does() {
    let node = TestNode::new();
    let mut child = serving(&node);
    signal(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!node.dir().join("control.sock").exists());
}

#[test]
fn no_command_hangs_on_a_server_that_is_stopped() {
    let node = TestNode::new();
    let mut server = serving(&node);
    signal(&server, Signal::STOP);
    let (content, peer) = (cid("x"), "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5");
    let address = format!("/ip4/127.0.0.1/tcp/1/p2p/{peer}");
    let commands: [&[&str]; 12] = [
        &["stat"],
        &["peers"],
        &["provided"],
        &["provide", "--wait", &content],
        &["unprovide", &content],
        &["reprovide"],
        &["findprovs", &content],
        &["findpeer", peer],
        &["closest", &content],
        &["diagnose", &content],
        &["connect", &address],
        &["dump", "--count"],
    ];
    let running: Vec<(&[&str], Child)> = commands
        .into_iter()
        .map(|args| (args, node.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()))
        .collect();
    let id = node.cli(&["id"]);
    assert!(id.status.success() && text(&id).contains("does not answer"), "{}", text(&id));
    fails(&node.cli(&["run", "--listen", "/ip4/127.0.0.1/tcp/0"]), 75, &["in use"]);
    let deadline = Instant::now() + Duration::from_secs(30);
    for (args, mut child) in running {
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "{args:?} hangs");
            std::thread::sleep(Duration::from_millis(20));
        }
        fails(&child.wait_with_output().unwrap(), 75, &["has said nothing", "try again"]);
    }
    signal(&server, Signal::CONT);
    node.ok(&["stat"]);
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn a_damaged_swarm_key_is_65_with_file_and_line() {
    let node = TestNode::new();
    node.ok(&["init", "--private"]);
    let key = node.dir().join("swarm.key");
    std::fs::write(&key, "/key/swarm/psk/1.0.0/\n/base16/\nnot hexadecimal\n").unwrap();
    let output = node.run_command().output().unwrap();
    fails(&output, 65, &[key.to_str().unwrap(), "line 3"]);
}

#[test]
fn log_lines_follow_the_flags() {
    let log = |args: &[&str], variable: Option<&str>| {
        let node = TestNode::new();
        let mut command = node.run_command();
        command.args(args).envs(variable.map(|value| ("RUST_LOG", value)));
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        eventually("it serves", Duration::from_secs(20), || node.cli(&["stat"]).status.success());
        signal(&child, Signal::TERM);
        String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap()
    };
    assert_eq!(log(&["-q"], None), "");
    let json = log(&["--log-format", "json"], None);
    let rows: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(rows.iter().any(|row| row["message"] == "ready" && row["level"] == "INFO"), "{json}");
    assert!(log(&["-q"], Some("dhtstore=debug")).contains("DEBUG"), "RUST_LOG has the last word");
    assert!(log(&[], Some("no=such=level")).contains("cannot parse RUST_LOG"));
}

#[test]
fn connections_are_lowered_to_the_open_files_so_that_store_and_control_socket_work() {
    let mut node = TestNode::new();
    let command = node.run_command();
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", "ulimit -n 64 && exec \"$@\"", "-"]).arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    node.start_by(shell);
    let stat = || node.rows(&["stat"])[0].clone();
    let most = stat()["connections_max"].as_u64().unwrap();
    assert!((1..60).contains(&most), "{most}");
    assert!(
        node.log().contains("connections.max and max_pending are lowered to what the limit of open files allows"),
        "{}",
        node.log()
    );

    // Many more idle sockets than open files are allowed.
    let addr = std::net::SocketAddr::from(([127, 0, 0, 1], node.port));
    let idle: Vec<_> = (0..400).filter_map(|_| std::net::TcpStream::connect(addr).ok()).collect();
    for n in 0..20 {
        let content = cid(&format!("own {n}"));
        node.ok(&["provide", &content]);
        assert_eq!(node.held(&content).len(), 1);
        assert!(stat()["store"]["notes"].as_array().unwrap().is_empty(), "{}", stat()["store"]);
        std::thread::sleep(Duration::from_millis(100));
    }
    let log = node.log();
    assert!(!log.contains("Too many open files"), "{log}");
    drop(idle);
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn with_too_few_open_files_the_start_says_how_many_are_needed() {
    let node = TestNode::new();
    let command = node.run_command();
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", "ulimit -n 40 && exec \"$@\"", "-"]).arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = shell.output().unwrap();
    assert!(output.status.code() == Some(78) && text(&output).contains("open files"), "{}", text(&output));
}
