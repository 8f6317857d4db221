//! Tests of circuit relay v2 (`[relay]`), one limit at a time. Our defaults are libp2p's, so no other test would notice
//! a setting that is not passed on.

use crate::{
    nat::identify,
    ours::{self, Ours, config},
};
use dhtstore::config::Relay;
use dhtstore_testkit::raw::{Over, Raw};
use futures::StreamExt;
use libp2p::{
    PeerId, Swarm, SwarmBuilder, identify,
    multiaddr::Protocol,
    noise, relay,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use std::time::Duration;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);
/// In this time a limit of one second or of very few bytes ends a circuit. libp2p's defaults, two minutes and 128 KiB,
/// do not.
const SOON: Duration = Duration::from_secs(20);

#[derive(NetworkBehaviour)]
struct Relayed {
    identify: identify::Behaviour,
    relay: relay::client::Behaviour,
}

/// A peer that can be reached through a relay, and that never closes idle connections.
fn relayed() -> Swarm<Relayed> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_relay_client(noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key, relay| Relayed { identify: identify(key), relay })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(10 * PATIENCE))
        .build()
}

/// Starts a node that relays, with changes to the default limits.
async fn relaying(limits: impl FnOnce(&mut Relay)) -> Ours {
    let mut config = config();
    config.relay.enabled = true;
    limits(&mut config.relay);
    ours::start_with(config).await
}

/// Returns whether `ours` accepts a reservation of `swarm`.
async fn reserves(swarm: &mut Swarm<Relayed>, ours: &Ours) -> bool {
    let relay = ours.address(false).with_p2p(ours.node.peer_id()).unwrap();
    swarm.listen_on(relay.with(Protocol::P2pCircuit)).unwrap();
    let outcome = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::Behaviour(RelayedEvent::Relay(relay::client::Event::ReservationReqAccepted { .. })) => {
                    return true;
                }
                SwarmEvent::ListenerClosed { .. } => return false,
                _ => {}
            }
        }
    };
    timeout(PATIENCE, outcome).await.unwrap()
}

/// Starts a peer that holds a reservation at `ours`.
async fn waiting(ours: &Ours) -> PeerId {
    let mut swarm = relayed();
    assert!(reserves(&mut swarm, ours).await);
    let id = *swarm.local_peer_id();
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    id
}

/// Connects to `peer` through `ours`. Returns `None` if the circuit is refused, or cut before the connection is
/// established.
async fn circuit(ours: &Ours, peer: PeerId) -> Option<Swarm<Relayed>> {
    let mut swarm = relayed();
    let relay = ours.address(false).with_p2p(ours.node.peer_id()).unwrap();
    swarm.dial(relay.with(Protocol::P2pCircuit).with_p2p(peer).unwrap()).unwrap();
    let established = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { peer_id, .. } if peer_id == peer => return true,
                SwarmEvent::OutgoingConnectionError { peer_id: Some(to), .. } if to == peer => return false,
                _ => {}
            }
        }
    };
    timeout(PATIENCE, established).await.unwrap().then_some(swarm)
}

/// Returns whether the circuit to `peer` ends within `time`.
async fn cut_within(time: Duration, swarm: &mut Swarm<Relayed>, peer: PeerId) -> bool {
    let cut = async {
        loop {
            if matches!(swarm.select_next_some().await, SwarmEvent::ConnectionClosed { peer_id, .. } if peer_id == peer)
            {
                return;
            }
        }
    };
    timeout(time, cut).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_takes_as_many_reservations_as_set_and_none_when_off() {
    assert!(!reserves(&mut relayed(), &ours::start().await).await);

    let ours = relaying(|limits| limits.max_reservations = 1).await;
    let first = waiting(&ours).await;
    let mut second = relayed();
    assert!(!reserves(&mut second, &ours).await);
    assert!(circuit(&ours, first).await.is_some(), "other peers still reach the first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_carries_as_many_circuits_at_a_time_as_set() {
    let ours = relaying(|limits| limits.max_circuits = 1).await;
    let peer = waiting(&ours).await;
    let mut first = circuit(&ours, peer).await.unwrap();
    assert!(circuit(&ours, peer).await.is_none(), "the second is refused");
    assert!(!cut_within(Duration::from_secs(3), &mut first, peer).await, "the first goes on");
    drop(first);
    let mut freed = circuit(&ours, peer).await;
    for _ in 0..50 {
        if freed.is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        freed = circuit(&ours, peer).await;
    }
    panic!("the place was not freed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_cuts_a_circuit_after_the_bytes_that_are_set() {
    // Two handshakes and two messages of identify: more than 1 KiB, less than 128.
    let ours = relaying(|limits| limits.connection_data_limit = 1 << 10).await;
    let peer = waiting(&ours).await;
    if let Some(mut swarm) = circuit(&ours, peer).await {
        assert!(cut_within(SOON, &mut swarm, peer).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_cuts_a_circuit_after_the_time_that_is_set() {
    let ours = relaying(|limits| limits.connection_duration_limit = Duration::from_secs(1)).await;
    let peer = waiting(&ours).await;
    let mut swarm = circuit(&ours, peer).await.unwrap();
    assert!(cut_within(SOON, &mut swarm, peer).await);
}

/// Requests a reservation by hand, so that it is not renewed. Returns the status in the answer.
async fn reservation(raw: &Raw) -> u64 {
    let mut stream = raw.try_stream("/libp2p/circuit/relay/0.2.0/hop").await.unwrap();
    // A HopMessage of type RESERVE.
    stream.send(&[2, 0x08, 0]).await;
    let answer = timeout(PATIENCE, stream.receive()).await.unwrap().unwrap();
    let (mut rest, mut status) = (&answer[..], 0);
    let number = |rest: &mut &[u8]| {
        let (mut number, mut shift) = (0, 0);
        while let Some((&byte, more)) = rest.split_first() {
            *rest = more;
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    };
    while !rest.is_empty() {
        match number(&mut rest) {
            0x28 => status = number(&mut rest),
            tag if tag & 7 == 2 => {
                let length = number(&mut rest) as usize;
                rest = &rest[length..];
            }
            _ => drop(number(&mut rest)),
        }
    }
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_that_is_not_renewed_ends_after_the_time_that_is_set() {
    const OK: u64 = 100;
    let ours = relaying(|limits| {
        limits.max_reservations = 1;
        limits.reservation_ttl = Duration::from_secs(2);
    })
    .await;
    let [first, second] =
        [Raw::connect(ours.address(false), Over::Noise).await, Raw::connect(ours.address(false), Over::Noise).await];
    assert_eq!(reservation(&first).await, OK);
    assert_ne!(reservation(&second).await, OK, "there is room for one");
    let peers = || futures::executor::block_on(ours.node.peers()).len();
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        if reservation(&second).await == OK {
            assert_eq!(peers(), 2, "the first is still connected");
            return;
        }
    }
    panic!("the first reservation did not end");
}
