//! Tests of several nodes: one announces, others find.

use crate::harness::{TestNode, cid, eventually, fails, text};
use std::time::Duration;

/// Starts `count` nodes that know each other. All bootstrap from the first.
fn network(count: usize) -> Vec<TestNode> {
    let mut nodes = vec![TestNode::started()];
    for _ in 1..count {
        let mut node = TestNode::new().joining(&nodes[0]);
        node.start();
        nodes.push(node);
    }
    for node in &nodes {
        eventually("the table is full", Duration::from_secs(20), || node.table().len() >= count - 1);
    }
    nodes
}

#[test]
fn prv_9_what_one_node_provides_every_other_finds() {
    let nodes = network(5);
    let content = cid("findable");
    let said = nodes[1].ok(&["provide", "--wait", &content, "--format", "ndjson"]);
    assert!(said.contains("\"confirmed_min\":4"), "four servers confirm: {said}");
    for node in &nodes {
        let found = node.ok(&["findprovs", &content]);
        assert_eq!(found.trim(), nodes[1].peer_id().to_string(), "one id per line when piped");
    }
    let held = nodes[2].held(&content);
    assert!(held[0].1.contains(&nodes[1].multiaddr().to_string()), "{held:?}");
    let verbose = nodes[3].cli(&["findprovs", "-v", &content]);
    assert!(verbose.status.success(), "{}", text(&verbose));
    assert_eq!(nodes[4].ok(&["findprovs", &cid("nobody has this")]), "");
}

#[test]
fn findpeer_and_closest_know_the_network() {
    let nodes = network(4);
    let target = nodes[3].peer_id().to_string();
    let found = nodes[1].ok(&["findpeer", &target]);
    assert!(found.contains(&nodes[3].multiaddr().to_string()), "{found}");
    let mut closest = nodes[1].rows(&["closest", "--format", "ndjson", &cid("anything")]);
    closest.retain(|row| row["dht"] == "wan");
    assert_eq!(closest.len(), 3, "{closest:?}");
    let distances: Vec<_> = closest.iter().map(|row| row["distance"].as_str().unwrap().to_owned()).collect();
    assert!(distances.is_sorted(), "{distances:?}");
}

#[test]
fn connect_joins_two_nodes_and_peers_lists_them() {
    let (one, two) = (TestNode::started(), TestNode::started());
    one.ok(&["connect", &two.address()]);
    eventually("both list each other", Duration::from_secs(10), || {
        one.ok(&["peers", "--format", "ids"]).contains(&two.peer_id().to_string())
            && two.ok(&["peers", "--format", "ids"]).contains(&one.peer_id().to_string())
    });
    let output = one.cli(&["connect", &format!("/ip4/127.0.0.1/tcp/1/p2p/{}", two.peer_id())]);
    // The peer is already connected by another address. Success and failure are both right, but the command must end.
    assert!(output.status.code().is_some());
    let nobody = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5";
    fails(&one.cli(&["connect", &format!("/ip4/127.0.0.1/tcp/1/p2p/{nobody}")]), 1, &[nobody]);
}

#[test]
fn connect_says_what_is_wrong_with_an_address_and_what_to_give_instead() {
    let (one, two) = (TestNode::started(), TestNode::started());
    let (own, other) = (one.peer_id(), two.peer_id());
    let stranger = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5";
    let own_port = format!("/ip4/127.0.0.1/tcp/{}", one.port);
    let itself = ["cannot connect to", "this node itself", "dhtstore id"];
    for address in
        [own_port.clone(), format!("{own_port}/p2p/{own}"), format!("/ip4/127.0.0.1/tcp/1/p2p/{own}"), own.to_string()]
    {
        fails(&one.cli(&["connect", &address]), 65, &itself);
    }
    for (address, words) in [
        (format!("{own_port}/p2p/{stranger}"), [&*own.to_string(), "check host, port and the id"]),
        (
            format!("/ip4/127.0.0.1/tcp/{}/p2p/{stranger}", two.port),
            [&*other.to_string(), "check host, port and the id"],
        ),
        (format!("/ip4/127.0.0.1/tcp/1/p2p/{stranger}"), ["refused", "that the peer runs"]),
        (stranger.to_owned(), ["neither this node nor the network knows", "/tcp/4001/p2p/12D3"]),
        (format!("/p2p/{stranger}"), ["neither this node nor the network knows", "/tcp/4001/p2p/12D3"]),
    ] {
        fails(&one.cli(&["connect", &address]), 1, &words);
    }
    for (address, words) in [
        (format!("{own_port}/p2p/{stranger}/p2p-circuit/p2p/{other}"), ["relay", "address of the peer itself"]),
        (format!("/ip4/127.0.0.1/udp/{}/quic-v1/webtransport/p2p/{other}", two.port), ["TCP, QUIC v1", "one of these"]),
        (format!("/p2p/{stranger}/tcp/4001"), ["nobody can dial it", "give host and port"]),
    ] {
        fails(&one.cli(&["connect", &address]), 65, &words);
    }
    assert_eq!(one.ok(&["peers", "--format", "ids"]), "", "nothing was connected");
}

#[test]
fn connect_takes_a_peer_id_alone_in_any_form_and_looks_up_where_it_is() {
    let nodes = network(3);
    let (first, last) = (&nodes[0], &nodes[2]);
    let mut newcomer = TestNode::new().joining(first);
    newcomer.start();
    let id = last.peer_id();
    eventually("the newcomer knows somebody", Duration::from_secs(15), || !newcomer.table().is_empty());
    let hash = cid::multihash::Multihash::from_bytes(&id.to_bytes()).unwrap();
    let as_cid = cid::Cid::new_v1(0x72, hash).to_string();
    for form in
        [id.to_string(), format!("/p2p/{id}"), as_cid.clone(), format!("/ip4/127.0.0.1/tcp/{}/p2p/{as_cid}", last.port)]
    {
        let connected = newcomer.ok(&["connect", "--format", "ids", &form]);
        assert!(connected.contains(&id.to_string()), "{form}: {connected}");
    }
    assert!(newcomer.ok(&["peers", "--format", "ids"]).contains(&id.to_string()));
}

#[test]
fn diagnose_tells_the_four_verdicts_apart() {
    let mut nodes = network(4);
    let content = cid("diagnosed");
    let nothing = nodes[1].cli(&["diagnose", &content]);
    assert_eq!(nothing.status.code(), Some(1), "{}", text(&nothing));
    assert!(text(&nothing).contains("no records"), "{}", text(&nothing));
    nodes[3].ok(&["provide", "--wait", &content]);
    let good = nodes[1].cli(&["diagnose", &content]);
    assert_eq!(good.status.code(), Some(0), "{}", text(&good));
    assert!(text(&good).contains(&nodes[3].peer_id().to_string()), "{}", text(&good));
    nodes[3].kill();
    let unreachable = nodes[1].cli(&["diagnose", &content]);
    assert_eq!(unreachable.status.code(), Some(1), "{}", text(&unreachable));
    assert!(text(&unreachable).contains("dial"), "{}", text(&unreachable));
}

#[test]
fn unprovide_ends_announcing_and_says_that_remote_records_live_on() {
    let nodes = network(3);
    let content = cid("unwanted");
    nodes[1].ok(&["provide", "--wait", &content]);
    let output = nodes[1].cli(&["unprovide", &content]);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("12h"), "{}", text(&output));
    assert_eq!(nodes[1].ok(&["provided", "--format", "ids"]), "");
    assert_eq!(nodes[2].held(&content).len(), 1, "the others keep it until its ttl");
}

#[test]
fn a_node_on_its_own_announces_to_nobody_and_says_so() {
    let node = TestNode::started();
    let output = node.cli(&["provide", "--wait", &cid("lonely"), "--format", "ndjson"]);
    fails(&output, 1, &["no server is known", "kept"]);
    assert_eq!(node.ok(&["provided", "--format", "ids"]).lines().count(), 1);
}

#[test]
fn a_list_of_several_requests_is_reported_as_one_whole_and_counts_what_is_in_it_twice() {
    let (hub, mut node) = (TestNode::started(), TestNode::new());
    node = node.joining(&hub);
    node.start();
    eventually("it has joined", Duration::from_secs(20), || !node.table().is_empty());
    // Some 850 kB: two parts of up to 512 kB each, and more CIDs than are announced one by one.
    let mut list: Vec<String> = (0..11_000).map(|i| cid(&format!("long {i}"))).collect();
    list.push(list[0].clone());
    list.push(list[10_999].clone());
    let output = node.cli_with_input(&["provide", "--wait", "--verify", "--format", "ndjson", "-"], &list.join("\n"));
    assert!(output.status.success(), "{}", text(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let figures = ["cids", "added", "announced", "unconfirmed", "servers", "confirmed_min", "confirmed_max"];
    assert_eq!(figures.map(|name| report[name].as_u64().unwrap()), [11_002, 11_000, 11_002, 0, 1, 1, 1], "{report}");
    assert_eq!((report["verified_asked"].as_u64(), report["verified_holding"].as_u64()), (Some(10), Some(10)));
}

#[test]
fn a_private_swarm_admits_who_has_its_key_and_nobody_else() {
    let mut hub = TestNode::new();
    hub.ok(&["init", "--private"]);
    hub.start();
    let mut member = TestNode::new().joining(&hub);
    member.ok(&["init"]);
    std::fs::copy(hub.dir().join("swarm.key"), member.dir().join("swarm.key")).unwrap();
    member.start();
    let mut stranger = TestNode::new().joining(&hub);
    stranger.start();
    let mut other_key = TestNode::new().joining(&hub);
    other_key.ok(&["init", "--private"]);
    other_key.start();
    eventually("the member is in", Duration::from_secs(15), || hub.table() == vec![member.peer_id().to_string()]);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(hub.ok(&["peers", "--format", "ids"]).lines().count(), 1);
}

#[test]
fn rt_4_a_server_that_goes_leaves_the_tables_soon_whether_it_was_killed_or_stopped() {
    let mut nodes = network(4);
    for ends in [TestNode::kill, |node: &mut TestNode| assert_eq!(node.stop(), Some(0))] {
        let mut gone = nodes.pop().unwrap();
        let peer = gone.peer_id().to_string();
        ends(&mut gone);
        for node in &nodes {
            eventually("it is in no answer", Duration::from_secs(20), || !node.table().contains(&peer));
            assert_eq!(node.table().len(), nodes.len() - 1, "the others stay");
        }
    }
}

#[test]
fn bootstrap_peers_that_fail_are_named_by_stat_and_diagnose_and_in_the_log() {
    let nobody = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWLU2znyJMtDiHArqAGbZn8CgUGp92kxDBtefftEEaHSZS";
    let mut node = TestNode::new().with("BOOTSTRAP", nobody);
    node.start();
    let named = format!("{nobody}: cannot be dialled");
    eventually("stat names it", Duration::from_secs(20), || node.ok(&["stat", "--format", "table"]).contains(&named));
    let said = text(&node.cli(&["diagnose", &cid("anything")]));
    assert!(said.contains("correct the bootstrap list"), "{said}");
    std::thread::sleep(Duration::from_secs(5));
    let log = node.log();
    assert_eq!(log.matches("a bootstrap peer cannot be used").count(), 1, "{log}");
}
