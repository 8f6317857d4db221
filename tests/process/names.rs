//! Tests that names are resolved with the current resolv.conf and hosts file, in namespaces with their own files.

use crate::harness::{TestNode, eventually};
use dhtstore_testkit::small_disk::{cannot, inside, run_inside};
use std::{fs, net::UdpSocket, path::PathBuf, process::Command, time::Duration};

/// Runs `test` again in namespaces of its own, with loopback up. Inside them, returns the directory whose `hosts` and
/// `resolv.conf` replace those of the system. Outside, returns `None` once the test has passed inside.
fn own_files(test: &str) -> Option<PathBuf> {
    if let Some(dir) = inside() {
        return Some(dir);
    }
    let dir = tempfile::tempdir().unwrap();
    let user: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
    let prepare = "ip link set lo up && touch \"$0/hosts\" \"$0/resolv.conf\" && mount --bind \"$0/hosts\" /etc/hosts && \
                   { [ -e /etc/resolv.conf ] || touch /etc/resolv.conf; } && mount --bind \"$0/resolv.conf\" \
                   /etc/resolv.conf && exec \"$@\"";
    let unshare = |program: &str| {
        let mut command = Command::new("unshare");
        command.args(user).args(["--mount", "--net", "--", "sh", "-c", prepare]).arg(dir.path()).arg(program);
        command
    };
    if !unshare("true").status().is_ok_and(|status| status.success()) {
        cannot(test, "no namespaces, or no `ip`: run it as root, with iproute2");
        return None;
    }
    run_inside(unshare(std::env::current_exe().unwrap().to_str().unwrap()), test, dir.path());
    None
}

/// Starts a name server that answers every question for an IPv4 address with 127.0.0.1, and others with nothing.
fn name_server(at: &str) {
    let socket = UdpSocket::bind(at).unwrap();
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            let question = &query[..length];
            let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
            let is_address = question[end - 4..end - 2] == [0, 1];
            let mut answer = question[..end].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
            if is_address {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
            }
            socket.send_to(&answer, from).unwrap();
        }
    });
}

fn connects(node: &TestNode, name: &str, other: &TestNode) -> bool {
    node.cli(&["connect", &format!("/dns4/{name}/tcp/{}/p2p/{}", other.port, other.peer_id())]).status.success()
}

#[test]
fn a_changed_hosts_file_and_resolver_count_within_seconds() {
    let Some(dir) = own_files("names::a_changed_hosts_file_and_resolver_count_within_seconds") else { return };
    let (hosts, resolv) = (dir.join("hosts"), dir.join("resolv.conf"));
    fs::write(&resolv, "").unwrap();
    let other = TestNode::started();
    // The node starts before the files have contents.
    let mut node = TestNode::new().with("CONNECTIONS_IDLE", "1s");
    node.start();
    assert!(!connects(&node, "one.example", &other));
    fs::write(&hosts, "127.0.0.1 one.example\n").unwrap();
    fs::write(&resolv, "nameserver 127.0.0.53\n").unwrap();
    eventually("the hosts file counts", Duration::from_secs(20), || connects(&node, "one.example", &other));
    // The first resolver does not answer; then the file names another one.
    name_server("127.0.0.54:53");
    fs::write(&resolv, "nameserver 127.0.0.54\noptions timeout:1 attempts:1\n").unwrap();
    let restarted = TestNode::started();
    eventually("the new resolver counts", Duration::from_secs(20), || connects(&node, "two.example", &restarted));
    // A file that is empty for a moment changes nothing, and is reported once, however often names are resolved. Each
    // round dials a new node, because a connected one is not dialled again, and waits until the files are read again.
    let later = || std::thread::sleep(Duration::from_millis(1100));
    let failed = || node.log().matches("the resolver's files cannot be read").count();
    let read = || node.log().matches("host names are resolved by the new content of these files").count();
    let (text, before) = (fs::read(&resolv).unwrap(), (failed(), read()));
    fs::write(&resolv, "").unwrap();
    for _ in 0..3 {
        later();
        let next = TestNode::started();
        assert!(connects(&node, "three.example", &next), "{}", node.log());
    }
    assert_eq!((failed(), read()), (before.0 + 1, before.1), "{}", node.log());
    fs::write(&resolv, text).unwrap();
    later();
    let last = TestNode::started();
    assert!(connects(&node, "four.example", &last), "{}", node.log());
    assert_eq!((failed(), read()), (before.0 + 1, before.1 + 1), "{}", node.log());
    assert_eq!(node.stop(), Some(0));
}
