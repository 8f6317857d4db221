//! Tests of what a start needs, and of its errors when something is missing.

use crate::harness::{TestNode, cid, dhtstore, eventually, fails};
use std::{os::unix::fs::PermissionsExt, time::Duration};

#[test]
fn with_no_configuration_at_all_run_works() {
    let home = tempfile::tempdir().unwrap();
    let port = dhtstore_testkit::port::free();
    let mut child = dhtstore()
        .env("HOME", home.path())
        .env("XDG_STATE_HOME", home.path().join("state"))
        .env_remove("STATE_DIRECTORY")
        // The test must choose a port, because two nodes on one machine cannot both use port 4001.
        .args(["--data-dir", home.path().join("data").to_str().unwrap(), "run"])
        .args([
            "--listen",
            &format!("/ip4/127.0.0.1/tcp/{port}"),
            "--listen",
            &format!("/ip4/127.0.0.1/udp/{port}/quic-v1"),
        ])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let data = home.path().join("data");
    eventually("it serves", Duration::from_secs(20), || {
        std::os::unix::net::UnixStream::connect(data.join("control.sock")).is_ok()
    });
    let mode = |name: &str| std::fs::metadata(data.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("identity.key"), 0o600);
    assert_eq!(mode("control.sock"), 0o600);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn two_processes_on_one_data_directory_is_75() {
    let node = TestNode::started();
    let mut second = node.command(&["run", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    fails(&second.output().unwrap(), 75, &["in use"]);
    // The first process still works.
    node.ok(&["provide", &cid("still here")]);
}

#[test]
fn a_taken_port_is_an_error_that_names_it() {
    for (scheme, taken) in [("tcp", true), ("udp", false)] {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = if taken { tcp.local_addr().unwrap().port() } else { udp.local_addr().unwrap().port() };
        let listen =
            if taken { format!("/ip4/127.0.0.1/tcp/{port}") } else { format!("/ip4/127.0.0.1/udp/{port}/quic-v1") };
        let node = TestNode::new();
        fails(&node.cli(&["run", "--listen", &listen]), 1, &[scheme, &port.to_string()]);
    }
    // The port is used by another dhtstore.
    let first = TestNode::started();
    let second = TestNode::new();
    let listen = format!("/ip4/127.0.0.1/tcp/{}", first.port);
    fails(&second.cli(&["run", "--listen", &listen]), 1, &[&first.port.to_string()]);
}

#[test]
fn a_damaged_identity_is_refused_and_left_alone() {
    let node = TestNode::new();
    node.ok(&["init"]);
    let key = node.dir().join("identity.key");
    let good = std::fs::read(&key).unwrap();
    for damaged in [b"".to_vec(), b"not a key".to_vec(), good[..good.len() / 2].to_vec()] {
        std::fs::write(&key, &damaged).unwrap();
        fails(&node.cli(&["run", "--listen", "/ip4/127.0.0.1/tcp/0"]), 65, &["identity.key"]);
        assert_eq!(std::fs::read(&key).unwrap(), damaged);
    }
}

#[test]
fn an_identity_that_is_no_file_is_refused() {
    let node = TestNode::new();
    std::fs::create_dir_all(node.dir().join("identity.key")).unwrap();
    let output = node.cli(&["run", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    assert_ne!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("identity.key"));
}

#[test]
fn a_data_directory_that_cannot_be_created_is_73() {
    // A file is in the way. Permissions would not stop root.
    let node = TestNode::new();
    std::fs::write(node.dir(), "a file").unwrap();
    fails(&node.cli(&["run", "--listen", "/ip4/127.0.0.1/tcp/0"]), 73, &[node.dir().to_str().unwrap()]);
    let below = node.dir().join("deeper");
    let output =
        dhtstore().arg("--data-dir").arg(&below).args(["run", "--listen", "/ip4/127.0.0.1/tcp/0"]).output().unwrap();
    fails(&output, 73, &[below.to_str().unwrap()]);
}

#[test]
fn a_read_only_data_directory_is_73() {
    // procfs refuses new files, even for root.
    let output =
        dhtstore().args(["--data-dir", "/proc/dhtstore", "run", "--listen", "/ip4/127.0.0.1/tcp/0"]).output().unwrap();
    fails(&output, 73, &["/proc/dhtstore"]);
}
