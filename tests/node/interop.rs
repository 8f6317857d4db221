//! Tests with `libp2p-kad` as client and as server of our nodes, over every transport.

use crate::{
    ours::{self, addr, eventually, holds, multihash},
    theirs::{Over, Theirs},
};
use cid::Cid;
use dhtstore::kad::{
    Dht, PeerInfo,
    message::{self, EncodedPeer},
};
use dhtstore_testkit::raw::Raw;
use libp2p::PeerId;

#[tokio::test(flavor = "multi_thread")]
async fn net_2_net_3_libp2p_kad_bootstraps_announces_and_finds_over_every_transport() {
    for over in Over::ALL {
        let ours = ours::start().await;
        let publisher = Theirs::server(over).await;
        let seeker = Theirs::client(over).await;
        publisher.learns(&ours.info()).await;
        seeker.learns(&ours.info()).await;
        assert!(publisher.bootstraps().await, "{over:?}");

        publisher.announces(multihash(1)).await;
        assert_eq!(holds(&ours, &multihash(1)).await, 1, "{over:?}");
        // libp2p-kad announces no addresses if none is confirmed as external; we know them from identify.
        let asker = ours::start().await;
        let answer = asker.node.get_providers(Dht::Wan, &ours.info(), &multihash(1)).await.unwrap();
        assert_eq!(answer.providers, std::slice::from_ref(&publisher.info), "{over:?}");

        assert_eq!(seeker.finds_providers(multihash(1)).await, [publisher.info.id], "{over:?}");
        eventually("the publisher is in our table", || ours.node.table(Dht::Wan).get(&publisher.info.id).is_some())
            .await;
        let closest = seeker.finds_closest(publisher.info.id.to_bytes()).await;
        let found = closest.iter().find(|peer| peer.id == publisher.info.id).unwrap();
        assert!(
            found.addrs.iter().any(|a| a.to_string().starts_with(&publisher.info.addrs[0].to_string())),
            "{found:?}"
        );
        ours.node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rt_2_mode_1_servers_enter_the_table_and_clients_do_not() {
    let ours = ours::start().await;
    let server = Theirs::server(Over::Noise).await;
    let client = Theirs::client(Over::Noise).await;
    for theirs in [&server, &client] {
        theirs.dials(ours.address(false)).await;
    }
    eventually("the server is in the table", || ours.node.table(Dht::Wan).get(&server.info.id).is_some()).await;
    eventually("both are connected", || {
        futures::executor::block_on(ours.node.peers()).iter().filter(|peer| peer.agent.is_some()).count() == 2
    })
    .await;
    let peers = ours.node.peers().await;
    let of = |id: &libp2p::PeerId| peers.iter().find(|peer| peer.peer == id.to_string()).unwrap();
    assert!(of(&server.info.id).wan && !of(&server.info.id).lan);
    assert!(!of(&client.info.id).wan);
    assert_eq!(ours.table_len(), 1);
    assert!(ours.node.table(Dht::Lan).is_empty());
    // SRV-5: a client is still found by its id.
    let found = server.finds_closest(client.info.id.to_bytes()).await;
    assert!(!found.is_empty());
    assert_eq!(ours.node.find_peer(&client.info.id, None).await.unwrap().addrs, client.info.addrs);
}

#[tokio::test(flavor = "multi_thread")]
async fn own_cids_are_answered_with_ourselves_as_provider() {
    let ours = ours::start().await;
    let hash = cid::multihash::Multihash::from_bytes(&multihash(7)).unwrap();
    ours.store.provided.add(vec![Cid::new_v1(0x55, hash)]).await.unwrap();
    let seeker = Theirs::client(Over::Noise).await;
    seeker.learns(&ours.info()).await;
    assert_eq!(seeker.finds_providers(multihash(7)).await, [ours.node.peer_id()]);
    // Our own node finds it too, with addresses.
    let found = ours.node.find_providers(&multihash(7), 20, None).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].id, ours.node.peer_id());
    assert!(!found[0].addrs.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn prv_7_libp2p_kad_that_relays_lead_to_is_found_with_its_circuits_and_we_dial_none_of_them() {
    let relay = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    relay.set_nonblocking(true).unwrap();
    let (port, id) = (relay.local_addr().unwrap().port(), PeerId::random());
    let mut circuits = [
        addr(&format!("/ip4/127.0.0.1/tcp/{port}/p2p/{id}/p2p-circuit")),
        addr(&format!("/ip4/127.0.0.1/tcp/{port}/p2p/{}/p2p-circuit", PeerId::random())),
    ];
    // libp2p-kad names them in any order.
    circuits.sort();
    let publisher = Theirs::claiming(circuits.to_vec()).await;
    let ours = ours::start().await;
    publisher.learns(&ours.info()).await;
    assert!(publisher.bootstraps().await);
    publisher.announces(multihash(1)).await;
    assert_eq!(holds(&ours, &multihash(1)).await, 1);
    let asker = ours::joining(&[ours.info()]).await;
    eventually("the asker knows us", || asker.table_len() == 1).await;
    let mut found = asker.node.find_providers(&multihash(1), 20, None).await;
    found[0].addrs.sort();
    assert_eq!(found, [PeerInfo { id: publisher.info.id, addrs: circuits.to_vec() }]);

    // A host with many interfaces lists those addresses first. (libp2p-kad keeps 20 addresses.)
    let host = Raw::connect(ours.address(false), Over::Noise).await;
    let direct = (1..=40).map(|n| addr(&format!("/ip4/127.0.{n}.1/tcp/1")));
    let all: Vec<_> = direct.chain(circuits.clone()).collect();
    let mut stream = host.try_stream(Dht::Wan.protocol()).await.unwrap();
    stream.send(&message::add_provider(&multihash(2), &EncodedPeer::new(&host.id, &all))).await;
    assert_eq!(holds(&ours, &multihash(2)).await, 1);
    let found = asker.node.find_providers(&multihash(2), 20, None).await;
    let kept = [&all[..30], &circuits].concat();
    assert_eq!(found, [PeerInfo { id: host.id, addrs: kept }], "one circuit of each relay, last");
    let found = asker.node.find_peer(&host.id, None).await.unwrap();
    assert!(circuits.iter().all(|circuit| found.addrs.contains(circuit)), "{found:?}");

    assert!(ours.node.table(Dht::Wan).get(&publisher.info.id).is_none(), "it cannot be dialled");
    let dialled = relay.accept().map(|_| ()).map_err(|error| error.kind());
    assert_eq!(dialled, Err(std::io::ErrorKind::WouldBlock), "the relay was dialled");
}
