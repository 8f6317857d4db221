//! Tests of AutoNAT, client mode and relaying: MODE-1 and CLI-1.
//!
//! Loopback has many addresses: 127.1.0.0/16, 127.2.0.0/16 and so on are independent IP groups.

use crate::{
    ours::{self, Ours, addr, config, eventually},
    theirs::Over,
};
use dhtstore::{
    clock::{Clock, SystemClock, UnixTime},
    config::{Config, Profile},
    kad::{
        Dht, PeerInfo,
        message::{self, Message, MessageType},
        mode::{Mode, Setting, Why},
    },
};
use dhtstore_testkit::raw::{End, Raw};
use futures::StreamExt;
use libp2p::{
    Multiaddr, Swarm, SwarmBuilder, autonat,
    connection_limits::{self, ConnectionLimits},
    identify,
    identity::Keypair,
    noise,
    swarm::{NetworkBehaviour, SwarmEvent, behaviour::toggle::Toggle},
    tcp, yamux,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::mpsc, time::timeout};

const WAN: &str = "/ipfs/kad/1.0.0";
const LAN: &str = "/ipfs/lan/kad/1.0.0";
const PATIENCE: Duration = Duration::from_secs(60);

/// The rules of the public DHT, on loopback and without bootstrap peers.
fn amino() -> Config {
    Config { listen: config().listen, bootstrap: Vec::new(), ..Config::defaults(Profile::Amino) }
}

/// A clock that tests can advance.
#[derive(Debug)]
struct Ahead(Arc<SystemClock>, AtomicU64);

impl Clock for Ahead {
    fn wall(&self) -> UnixTime {
        self.0.wall()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic() + Duration::from_secs(self.1.load(Ordering::Relaxed))
    }
}

fn swarm<B: NetworkBehaviour>(behaviour: impl FnOnce(&Keypair) -> B) -> Swarm<B> {
    SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|key| behaviour(key))
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build()
}

async fn listening<B: NetworkBehaviour>(swarm: &mut Swarm<B>, at: Multiaddr) -> Multiaddr {
    swarm.listen_on(at).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return address.with_p2p(*swarm.local_peer_id()).unwrap();
        }
    }
}

pub fn identify(key: &Keypair) -> identify::Behaviour {
    identify::Behaviour::new(identify::Config::new("ipfs/0.1.0".to_owned(), key.public()))
}

/// libp2p's AutoNAT servers. One that must not dial reports that every peer is unreachable.
#[derive(NetworkBehaviour)]
struct Judging {
    limits: connection_limits::Behaviour,
    identify: identify::Behaviour,
    v1: Toggle<autonat::v1::Behaviour>,
    v2: Toggle<autonat::v2::server::Behaviour>,
}

struct Judge {
    address: Multiaddr,
    may_dial: mpsc::Sender<bool>,
}

fn limits(may_dial: bool) -> ConnectionLimits {
    ConnectionLimits::default().with_max_pending_outgoing(Some(if may_dial { 100 } else { 0 }))
}

impl Judge {
    async fn start(group: u8, v1: bool, v2: bool, may_dial: bool) -> Self {
        let mut swarm = swarm(|key| {
            let config = autonat::v1::Config { only_global_ips: false, ..autonat::v1::Config::default() };
            Judging {
                limits: connection_limits::Behaviour::new(limits(may_dial)),
                identify: identify(key),
                v1: v1.then(|| autonat::v1::Behaviour::new(key.public().to_peer_id(), config)).into(),
                v2: v2.then(autonat::v2::server::Behaviour::default).into(),
            }
        });
        let address = listening(&mut swarm, addr(&format!("/ip4/127.{group}.0.1/tcp/0"))).await;
        let (may_dial, mut changes) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    change = changes.recv() => match change {
                        Some(may_dial) => *swarm.behaviour_mut().limits.limits_mut() = limits(may_dial),
                        None => return,
                    },
                    _ = swarm.select_next_some() => {}
                }
            }
        });
        Self { address, may_dial }
    }

    /// Starts three independent servers: one speaks only v1, one only v2, and one both.
    async fn three(may_dial: bool) -> [Self; 3] {
        [
            Self::start(11, true, false, may_dial).await,
            Self::start(12, false, true, may_dial).await,
            Self::start(13, true, true, may_dial).await,
        ]
    }
}

/// Returns the protocols that a connected peer gets by identify, message by message.
async fn listen_to(ours: &Ours) -> mpsc::Receiver<Vec<String>> {
    let mut swarm = swarm(identify);
    swarm.dial(ours.address(false)).unwrap();
    let (told, heard) = mpsc::channel(64);
    tokio::spawn(async move {
        while !told.is_closed() {
            if let SwarmEvent::Behaviour(identify::Event::Received { info, .. }) = swarm.select_next_some().await {
                let _ = told.send(info.protocols.iter().map(ToString::to_string).collect()).await;
            }
        }
    });
    heard
}

async fn hears(told: &mut mpsc::Receiver<Vec<String>>, wan: bool) -> Vec<String> {
    let next = async {
        loop {
            let protocols = told.recv().await.unwrap();
            if protocols.iter().any(|protocol| protocol == WAN) == wan {
                return protocols;
            }
        }
    };
    timeout(PATIENCE, next).await.unwrap()
}

async fn answers(raw: &Raw, protocol: &str) -> bool {
    let asked = async {
        let mut stream = raw.try_stream(protocol).await?;
        stream.try_send(&message::request(MessageType::FindNode, b"target")).await;
        stream.receive().await
    };
    matches!(timeout(Duration::from_secs(1), asked).await, Ok(Some(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn mode_1_who_is_proven_unreachable_becomes_a_client_and_who_is_reached_again_a_server() {
    let clock = Arc::new(Ahead(SystemClock::new(), AtomicU64::new(0)));
    let ours = ours::start_as(amino(), Keypair::generate_ed25519(), clock.clone()).await;
    let mut told = listen_to(&ours).await;
    assert!(hears(&mut told, true).await.iter().any(|protocol| protocol == "/libp2p/autonat/2/dial-back"));
    let raw = Raw::connect(ours.address(false), Over::Noise).await;
    let mut open = raw.stream().await;
    open.send(&message::request(MessageType::FindNode, b"target")).await;
    open.receive().await.unwrap();
    assert_eq!((ours.node.mode().mode, ours.node.mode().why), (Mode::Server, Why::Unknown));

    let judges = Judge::three(false).await;
    for judge in &judges[..2] {
        ours.node.connect(judge.address.clone()).await.unwrap();
    }
    eventually("two could not", || ours.counter("autonat not reached by") == 2).await;
    assert_eq!(ours.node.mode().mode, Mode::Server, "two are not enough");
    assert!(answers(&raw, WAN).await);

    ours.node.connect(judges[2].address.clone()).await.unwrap();
    let protocols = hears(&mut told, false).await;
    assert!(protocols.iter().any(|protocol| protocol == LAN), "LAN-1: the local network can dial it");
    assert_eq!((ours.node.mode().mode, ours.node.mode().why), (Mode::Client, Why::Unreachable));
    assert_eq!(open.end_within(PATIENCE).await, End::Closed);
    assert!(!answers(&raw, WAN).await);
    assert!(answers(&raw, LAN).await);
    let server = ours::start().await;
    ours.node.connect(server.address(false)).await.unwrap();
    let info = PeerInfo { id: server.node.peer_id(), addrs: server.node.listeners() };
    ours.node.find_node(Dht::Wan, &info, b"target").await.unwrap();

    for judge in &judges {
        judge.may_dial.send(true).await.unwrap();
    }
    clock.1.store(11 * 60, Ordering::Relaxed);
    // A new peer makes the node look for peers to ask.
    let _new = listen_to(&ours).await;
    hears(&mut told, true).await;
    assert_eq!((ours.node.mode().mode, ours.node.mode().why), (Mode::Server, Why::Reachable));
    assert!(answers(&raw, WAN).await);
    assert_eq!((ours.counter("autonat reached by"), ours.counter("mode changes")), (3, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn mode_1_our_own_nodes_prove_each_other_reachable() {
    let ours = ours::start_with(amino()).await;
    let mut servers = Vec::new();
    for group in 21..24 {
        let listen = vec![addr(&format!("/ip4/127.{group}.0.1/tcp/0"))];
        let server = ours::start_with(Config { listen, ..config() }).await;
        ours.node.connect(server.address(false)).await.unwrap();
        servers.push(server);
    }
    eventually("all three could dial", || ours.counter("autonat reached by") == 3).await;
    eventually("and it is known", || ours.node.mode().why == Why::Reachable).await;
    assert!(servers.iter().all(|server| server.counter("autonat dials for others") >= 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn mode_1_who_refuses_to_dial_proves_nothing() {
    let ours = ours::start_with(amino()).await;
    // With the public profile our server dials no loopback addresses, so it gives no verdict.
    for group in 31..34 {
        let listen = vec![addr(&format!("/ip4/127.{group}.0.1/tcp/0"))];
        let server = ours::start_with(Config { listen, ..amino() }).await;
        ours.node.connect(server.address(false)).await.unwrap();
        eventually("it was asked and refused", || server.counter("autonat dials for others refused") >= 1).await;
    }
    assert_eq!(ours.counter("autonat reached by") + ours.counter("autonat not reached by"), 0);
    assert_eq!((ours.node.mode().mode, ours.node.mode().why), (Mode::Server, Why::Unknown));
}

#[tokio::test(flavor = "multi_thread")]
async fn mode_1_on_a_private_network_everybody_serves_and_who_is_set_to_client_does_not() {
    let judges = Judge::three(false).await;
    let ours = ours::start().await;
    let client = ours::start_with(Config { mode: Setting::Client, ..config() }).await;
    for judge in &judges {
        ours.node.connect(judge.address.clone()).await.unwrap();
    }
    eventually("all are identified", || {
        let peers = futures::executor::block_on(ours.node.peers());
        peers.iter().filter(|peer| peer.agent.is_some()).count() == 3
    })
    .await;
    assert_eq!((ours.node.mode().mode, ours.node.mode().why), (Mode::Server, Why::PrivateNetwork));
    assert_eq!(ours.counter("autonat not reached by"), 0);
    let raw = Raw::connect(client.address(false), Over::Noise).await;
    assert!(!answers(&raw, WAN).await && !answers(&raw, LAN).await);
}

#[derive(NetworkBehaviour)]
struct Asking {
    limits: connection_limits::Behaviour,
    identify: identify::Behaviour,
    v1: autonat::v1::Behaviour,
    v2: autonat::v2::client::Behaviour,
}

/// Returns whether libp2p's v1 and v2 clients learn from `ours` that they can be reached.
async fn learn(ours: &Ours, reachable: bool) -> (bool, bool) {
    let mut swarm = swarm(|key| {
        let config = autonat::v1::Config {
            boot_delay: Duration::from_millis(500),
            only_global_ips: false,
            ..autonat::v1::Config::default()
        };
        let pending = if reachable { 100 } else { 0 };
        Asking {
            limits: connection_limits::Behaviour::new(
                ConnectionLimits::default().with_max_pending_incoming(Some(pending)),
            ),
            identify: identify(key),
            v1: autonat::v1::Behaviour::new(key.public().to_peer_id(), config),
            v2: autonat::v2::client::Behaviour::default(),
        }
    });
    listening(&mut swarm, addr("/ip4/127.0.0.1/tcp/0")).await;
    swarm.dial(ours.address(false)).unwrap();
    let (mut v1, mut v2) = (None, None);
    let both = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::Behaviour(AskingEvent::V1(autonat::v1::Event::OutboundProbe(event))) => match event {
                    autonat::v1::OutboundProbeEvent::Response { .. } => v1 = Some(true),
                    autonat::v1::OutboundProbeEvent::Error {
                        error: autonat::v1::OutboundProbeError::Response(autonat::v1::ResponseError::DialError),
                        ..
                    } => v1 = Some(false),
                    _ => {}
                },
                SwarmEvent::Behaviour(AskingEvent::V2(event)) => v2 = Some(event.result.is_ok()),
                _ => {}
            }
            if let (Some(v1), Some(v2)) = (v1, v2) {
                return (v1, v2);
            }
        }
    };
    timeout(PATIENCE, both).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn mode_1_clients_of_autonat_v1_and_v2_learn_from_us_whether_they_can_be_reached() {
    let ours = ours::start().await;
    let (reachable, unreachable) = tokio::join!(learn(&ours, true), learn(&ours, false));
    assert_eq!((reachable, unreachable), ((true, true), (false, false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn mode_1_autonat_can_be_switched_off() {
    let mut config = config();
    config.autonat.enabled = false;
    let protocols = hears(&mut listen_to(&ours::start_with(config).await).await, true).await;
    assert!(!protocols.iter().any(|protocol| protocol.contains("autonat")), "{protocols:?}");
    let protocols = hears(&mut listen_to(&ours::start().await).await, true).await;
    for protocol in ["/libp2p/autonat/1.0.0", "/libp2p/autonat/2/dial-request"] {
        assert!(protocols.iter().any(|offered| offered == protocol), "{protocol} of {protocols:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cli_1_a_client_stays_connected_to_the_closest_servers_and_is_found_through_them() {
    // These servers end streams that are idle for a second; one of them ends idle connections too.
    let second = Duration::from_secs(1);
    let idle = |streams, connections| {
        let mut config = config();
        (config.streams.idle, config.connections.idle) = (streams, connections);
        config
    };
    let server = ours::start_with(idle(second, second)).await;
    let patient =
        [ours::start_with(idle(second, 1000 * second)).await, ours::start_with(idle(second, 1000 * second)).await];
    let [keeping, late] = &patient;
    let full = |ours: &Ours| ours.address(false).with_p2p(ours.node.peer_id()).unwrap();
    let client =
        Config { mode: Setting::Client, bootstrap: vec![full(&server), full(keeping)], ..idle(second, second) };
    let clock = Arc::new(Ahead(SystemClock::new(), AtomicU64::new(0)));
    let client = ours::start_as(client, Keypair::generate_ed25519(), clock.clone()).await;
    eventually("it has joined", || client.table_len() == 2).await;
    assert_eq!(server.table_len(), 0, "RT-2: clients enter no table");
    let connected = |to: &Ours| {
        let peer = to.node.peer_id().to_string();
        futures::executor::block_on(client.node.peers()).iter().any(|connected| connected.peer == peer)
    };
    client.node.refresh_routing().await;
    eventually("the one that ends idle connections has done so", || !connected(&server)).await;
    // Once the streams of a connection are no longer pooled, the client keeps it only if there is another reason.
    client.node.connect(full(late)).await.unwrap();
    eventually("it asks the other as well", || client.table_len() == 3).await;
    eventually("the connection that is not kept has ended", || {
        clock.1.fetch_add(1, Ordering::Relaxed);
        !connected(late)
    })
    .await;
    // The pool is swept every 5 s.
    for _ in 0..8 {
        clock.1.fetch_add(60, Ordering::Relaxed);
        tokio::time::sleep(second).await;
        assert!(connected(keeping), "one of the closest is not kept");
    }
    client.node.refresh_routing().await;
    assert!(connected(&server) && connected(keeping));

    let raw = Raw::connect(server.address(false), Over::Noise).await;
    let mut stream = raw.stream().await;
    eventually("identify is done", || {
        futures::executor::block_on(server.node.peers()).iter().any(|peer| peer.agent.is_some())
    })
    .await;
    let target = client.node.peer_id().to_bytes();
    stream.send(&message::request(MessageType::FindNode, &target)).await;
    let body = stream.receive().await.unwrap();
    assert!(Message::decode(&body).unwrap().closer_peers().any(|peer| peer.id == target));
}
