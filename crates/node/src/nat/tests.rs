//! Tests which peers the node asks, and the effects of a change of mode.

use super::*;
use crate::test_node::{TestNode, eventually};
use libp2p::{PeerId, swarm::ConnectionId};

fn witness(ip: &str) -> (IpGroup, Witness) {
    let address: Multiaddr = format!("/ip4/{ip}/tcp/4001").parse().unwrap();
    let (peer, connection) = (PeerId::random(), ConnectionId::new_unchecked(1));
    (
        scope::IpGroups::default().of(&address).unwrap(),
        Witness { peer, connection, address, observed: None, v1: true, v2: false },
    )
}

#[test]
fn mode_1_one_of_each_group_is_asked_and_not_again_soon() {
    let mut asker = Asker::default();
    let peers = || ["1.1.0.1", "1.1.0.2", "1.2.0.1", "1.3.0.1", "1.4.0.1"].map(witness).to_vec();
    let first = asker.choose(peers(), Duration::ZERO);
    assert_eq!(first.len(), AT_ONCE);
    let second = asker.choose(peers(), Duration::from_secs(1));
    assert_eq!(second.len(), 1, "the fourth group");
    assert!(first.iter().all(|(group, _)| *group != second[0].0));
    assert!(asker.choose(peers(), Duration::from_secs(2)).is_empty());
    assert_eq!(asker.choose(peers(), ASK_AGAIN).len(), AT_ONCE);
}

#[test]
fn mode_1_private_and_announced_nodes_and_set_clients_ask_nobody() {
    let mut settings = Settings::on_loopback(Profile::Amino);
    assert!(asks(&settings));
    settings.mode = Setting::Client;
    assert!(!asks(&settings));
    settings.mode = Setting::Auto;
    settings.append_announce = vec!["/ip4/8.8.8.8/tcp/4001".parse().unwrap()];
    assert!(!asks(&settings));
    assert!(!asks(&Settings::on_loopback(Profile::Private)));
}

#[tokio::test(flavor = "multi_thread")]
async fn cli_1_at_the_change_to_client_mode_the_closest_servers_are_connected_to_and_kept() {
    let second = Duration::from_secs(1);
    // The servers leave connections open; the node closes each connection that it has no reason to keep.
    let mut patient = Settings::on_loopback(Profile::Private);
    patient.streams.idle = second;
    patient.connections.idle = 1000 * second;
    let mut impatient = Settings::on_loopback(Profile::Private);
    impatient.streams.idle = second;
    impatient.connections.idle = second;
    let (server, late) = (TestNode::start(patient.clone()).await, TestNode::start(patient).await);
    let ours = TestNode::start(impatient).await;
    // Pooled streams hold a connection, too; they expire by the node's clock.
    let has_ended = async |to: &TestNode| {
        ours.clock.advance(60 * second);
        !ours.is_connected_to(to).await
    };
    ours.node.connect(server.address()).await.unwrap();
    eventually("it knows the server", async || Dht::ALL.iter().all(|dht| ours.node.table(*dht).len() == 1)).await;
    eventually("the connection has ended", async || has_ended(&server).await).await;

    ours.node.parts.nat.set_mode(Decision { mode: Mode::Client, why: Why::Unreachable }, (0, 3));
    let kept = async || ours.node.parts.peers.connections.kept() == [server.node.peer_id()];
    eventually("it has found the closest", kept).await;
    eventually("and is connected again", async || ours.is_connected_to(&server).await).await;
    ours.node.connect(late.address()).await.unwrap();
    eventually("it asks the other as well", async || ours.node.table(Dht::Lan).len() == 2).await;
    eventually("the connection that is not kept has ended", async || has_ended(&late).await).await;
    // The pool is swept every 5 s.
    for _ in 0..8 {
        sleep(second).await;
        assert!(!has_ended(&server).await, "one of the closest servers is not kept");
    }

    ours.node.parts.nat.set_mode(Decision { mode: Mode::Server, why: Why::Reachable }, (3, 0));
    eventually("a server keeps no connections", async || has_ended(&server).await).await;
}
