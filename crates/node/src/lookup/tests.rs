//! Tests that a look-up follows the rules of its DHT. `kad/lookup` tests the rules themselves.

use super::*;
use crate::{kad::scope::Profile, settings::Settings, test_node::TestNode};

#[tokio::test(flavor = "multi_thread")]
async fn lkp_2_on_the_public_dht_alone_three_of_an_ip_group_are_taken_from_an_answer() {
    let peer = |n: usize| PeerInfo {
        id: PeerId::random(),
        addrs: vec![format!("/ip4/1.2.3.4/tcp/{}", 1000 + n).parse().unwrap()],
    };
    let (asked, named): (PeerInfo, Vec<PeerInfo>) = (peer(0), (1..=8).map(peer).collect());
    for (profile, dht, taken) in [
        (Profile::Amino, Dht::Wan, 3),
        (Profile::Amino, Dht::Lan, 8),
        (Profile::Private, Dht::Wan, 8),
        (Profile::Private, Dht::Lan, 8),
    ] {
        let node = TestNode::start(Settings::on_loopback(profile)).await.node;
        let target = target_key(b"target");
        let mut lookup = node.parts.lookups.lookup_from(dht, target, vec![asked.clone()], Goal::Closest);
        assert_eq!(lookup.next(Duration::ZERO), Next::Ask(asked.clone()));
        lookup.answered(&asked.id, named.clone());
        assert_eq!(lookup.closest_heard_of().len(), 1 + taken, "{profile:?} {dht:?}");
    }
}
