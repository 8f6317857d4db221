//! Tests of two sites, each in its own network namespace. The link between them is cut until each site has forgotten
//! the other, then restored.

use crate::harness::{TestNode, cid, eventually};
use dhtstore_testkit::small_disk::{cannot, inside, run_inside};
use std::{
    process::{Child, Command},
    time::Duration,
};

/// A network namespace, held by a process that sleeps in it.
struct Site {
    holder: Child,
}

impl Site {
    /// Creates a site with these addresses, connected to the bridge of this namespace by a port named `port`.
    fn new(port: &str, addresses: &[&str]) -> Self {
        let holder = Command::new("unshare").args(["--net", "sleep", "600"]).spawn().unwrap();
        let site = Self { holder };
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let theirs = format!("/proc/{}/ns/net", site.pid());
        eventually("the namespace is there", Duration::from_secs(5), || {
            std::fs::read_link(&theirs).is_ok_and(|namespace| namespace != own)
        });
        ip(&format!("link add {port} type veth peer name eth0 netns {}", site.pid()));
        ip(&format!("link set {port} master middle up"));
        for address in addresses {
            site.ip(&format!("address add {address}/16 dev eth0"));
        }
        site.ip("link set lo up");
        site.ip("link set eth0 up");
        site
    }

    fn pid(&self) -> u32 {
        self.holder.id()
    }

    fn ip(&self, args: &str) {
        let net = format!("--net=/proc/{}/ns/net", self.pid());
        run(Command::new("nsenter").arg(net).args(["--", "ip"]).args(args.split(' ')));
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}

fn ip(args: &str) {
    run(Command::new("ip").args(args.split(' ')));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Returns true inside the network namespace of the test. Outside, runs `test` (its full name) inside one, and returns
/// false once it has passed.
fn in_a_namespace(test: &str) -> bool {
    if inside().is_some() {
        return true;
    }
    let unshare = |program: &str| {
        let user: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
        let mut command = Command::new("unshare");
        command.args(user).args(["--net", "--", program]);
        command
    };
    if !unshare("ip").args(["link", "add", "middle", "type", "bridge"]).output().is_ok_and(|o| o.status.success()) {
        cannot(test, "no network namespace with a bridge: install iproute2, run it as root");
        return false;
    }
    let dir = tempfile::tempdir().unwrap();
    run_inside(unshare(std::env::current_exe().unwrap().to_str().unwrap()), test, dir.path());
    false
}

#[test]
fn sites_that_were_cut_until_their_tables_forgot_find_each_other_once_healed() {
    let name = "sites::sites_that_were_cut_until_their_tables_forgot_find_each_other_once_healed";
    if !in_a_namespace(name) {
        return;
    }
    ip("link add middle type bridge");
    ip("link set middle up");
    let (one, two) = (Site::new("one", &["10.9.1.1", "10.9.1.2"]), Site::new("two", &["10.9.2.1", "10.9.2.2"]));
    let node = |site: &Site, address: &str| {
        let node = TestNode::new().at(site.pid(), address);
        let listen = node.multiaddr().to_string();
        let node = node
            .with("LISTEN", &listen)
            .with("JOBS_ROUTING_REFRESH_INTERVAL", "1s")
            .with("JOBS_ROUTING_REFRESH_CRON", "* * * * * *");
        node.ok(&["init"]);
        node
    };
    let mut nodes = [node(&one, "10.9.1.1"), node(&one, "10.9.1.2"), node(&two, "10.9.2.1"), node(&two, "10.9.2.2")];
    // Each bootstrap list names both sites.
    let bootstrap = [&nodes[0], &nodes[2]].map(TestNode::address).join(",");
    for node in &mut nodes {
        node.set("BOOTSTRAP", &bootstrap);
        node.start();
    }
    let ids: Vec<_> = nodes.iter().map(|node| node.peer_id().to_string()).collect();
    let others = |number: usize| ids.iter().enumerate().filter(move |(other, _)| other / 2 != number / 2);
    let known = |number: usize| {
        let table = nodes[number].table();
        others(number).filter(|(_, id)| table.contains(id)).count()
    };
    eventually("one network", Duration::from_secs(30), || (0..4).all(|number| known(number) == 2));

    // A cut link closes no connection. A connection is closed once two pings in a row are unanswered.
    ip("link set two down");
    eventually("each site has forgotten the other", Duration::from_secs(120), || {
        let connected = |number: usize| {
            let peers = nodes[number].ok(&["peers", "--format", "ids"]);
            others(number).any(|(_, id)| peers.contains(id.as_str()))
        };
        (0..4).all(|number| known(number) == 0 && !connected(number))
    });
    for node in &nodes {
        assert_eq!(node.table().len(), 1, "the neighbour of the same site stays");
    }
    let content = cid("published behind the cut");
    nodes[1].ok(&["provide", "--wait", &content]);
    assert_eq!(nodes[3].ok(&["findprovs", &content]), "");
    // Longer than the first pauses between bootstrap attempts, so that some attempts fail.
    std::thread::sleep(Duration::from_secs(5));

    ip("link set two up");
    eventually("one network again", Duration::from_secs(40), || (0..4).all(|number| known(number) == 2));
    assert_eq!(nodes[3].ok(&["findprovs", &content]).trim(), ids[1]);
}
