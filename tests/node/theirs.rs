//! Nodes of other implementations: `libp2p-kad` servers and clients, and a mute one that advertises the DHT, accepts
//! its streams and never answers.

use dhtstore::kad::PeerInfo;
pub use dhtstore_testkit::raw::Over;
use dhtstore_testkit::{
    libp2p_kad::{self as kad, store::MemoryStore},
    stub_peer,
};
use futures::{StreamExt, future::join_all};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, Transport,
    core::{transport::ListenerId, upgrade::Version},
    identify,
    identity::Keypair,
    noise, ping,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, tls, yamux,
};
use libp2p_websocket as websocket;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

pub const KAD: StreamProtocol = StreamProtocol::new("/ipfs/kad/1.0.0");

fn listens(over: Over) -> &'static str {
    if over == Over::Quic { "/ip4/127.0.0.1/udp/0/quic-v1" } else { "/ip4/127.0.0.1/tcp/0" }
}

#[derive(NetworkBehaviour)]
pub struct Behaviour {
    kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

type Order = Box<dyn FnOnce(&mut Swarm<Behaviour>) + Send>;
type Query = Box<dyn FnOnce(&mut kad::Behaviour<MemoryStore>) -> kad::QueryId + Send>;

enum Job {
    Query(Query, oneshot::Sender<Vec<kad::QueryResult>>),
    Do(Order),
}

/// A `libp2p-kad` node.
pub struct Theirs {
    pub info: PeerInfo,
    listener: ListenerId,
    jobs: mpsc::Sender<Job>,
}

impl Theirs {
    pub async fn server(over: Over) -> Self {
        Self::start(over, kad::Mode::Server).await
    }

    pub async fn client(over: Over) -> Self {
        Self::start(over, kad::Mode::Client).await
    }

    async fn start(over: Over, mode: kad::Mode) -> Self {
        Self::start_as(over, mode, Keypair::generate_ed25519(), None).await
    }

    pub async fn server_as(over: Over, keypair: Keypair) -> Self {
        Self::start_as(over, kad::Mode::Server, keypair, None).await
    }

    /// Starts a server that claims to be at `addrs` and hides its real address.
    pub async fn claiming(addrs: Vec<Multiaddr>) -> Self {
        Self::start_as(Over::Noise, kad::Mode::Server, Keypair::generate_ed25519(), Some(addrs)).await
    }

    async fn start_as(over: Over, mode: kad::Mode, keypair: Keypair, claims: Option<Vec<Multiaddr>>) -> Self {
        let mut swarm = swarm(keypair.clone(), over, behaviour(&keypair, mode, claims.is_some()));
        let listening = listen(&mut swarm, listens(over)).await;
        for addr in claims.into_iter().flatten() {
            swarm.add_external_address(addr);
        }
        Self::running(swarm, listening)
    }

    /// Starts a server that speaks only WebSockets, with `libp2p-websocket`.
    pub async fn by_websockets(tls: websocket::tls::Config, addr: &str) -> Self {
        let keypair = Keypair::generate_ed25519();
        let behaviour = behaviour(&keypair, kad::Mode::Server, false);
        let mut transport = websocket::Config::new(tcp::tokio::Transport::new(tcp::Config::default()));
        transport.set_tls_config(tls);
        let upgraded = |key: &Keypair| {
            transport
                .upgrade(Version::V1)
                .authenticate(noise::Config::new(key).unwrap())
                .multiplex(yamux::Config::default())
        };
        let builder = SwarmBuilder::with_existing_identity(keypair).with_tokio();
        let builder = builder.with_other_transport(upgraded).unwrap();
        let mut swarm = builder.with_behaviour(|_| behaviour).unwrap().build();
        let listening = listen(&mut swarm, addr).await;
        Self::running(swarm, listening)
    }

    fn running(swarm: Swarm<Behaviour>, (listener, info): (ListenerId, PeerInfo)) -> Self {
        let (jobs, todo) = mpsc::channel(16);
        tokio::spawn(run(swarm, todo));
        Self { info, listener, jobs }
    }

    /// Adds a peer to its table.
    pub async fn learns(&self, peer: &PeerInfo) {
        let peer = peer.clone();
        let job = Box::new(move |swarm: &mut Swarm<Behaviour>| {
            for addr in peer.addrs {
                swarm.behaviour_mut().kad.add_address(&peer.id, addr);
            }
        });
        self.jobs.send(Job::Do(job)).await.ok().unwrap();
    }

    pub async fn dials(&self, addr: Multiaddr) {
        self.jobs.send(Job::Do(Box::new(move |swarm| swarm.dial(addr).unwrap()))).await.ok().unwrap();
    }

    /// Makes it claim `addr` in addition.
    pub async fn claims(&self, addr: Multiaddr) {
        self.jobs.send(Job::Do(Box::new(move |swarm| swarm.add_external_address(addr)))).await.ok().unwrap();
    }

    /// Disconnects from a peer and stops listening: from now on it can dial but not be dialled.
    pub async fn hides_from(&self, peer: PeerId) {
        let listener = self.listener;
        let job = move |swarm: &mut Swarm<Behaviour>| {
            assert!(swarm.remove_listener(listener));
            let _ = swarm.disconnect_peer_id(peer);
        };
        self.jobs.send(Job::Do(Box::new(job))).await.ok().unwrap();
    }

    pub async fn connections(&self) -> u32 {
        let (reply, count) = oneshot::channel();
        let job = |swarm: &mut Swarm<Behaviour>| {
            let _ = reply.send(swarm.network_info().connection_counters().num_connections());
        };
        self.jobs.send(Job::Do(Box::new(job))).await.ok().unwrap();
        count.await.unwrap()
    }

    async fn query(
        &self,
        query: impl FnOnce(&mut kad::Behaviour<MemoryStore>) -> kad::QueryId + Send + 'static,
    ) -> Vec<kad::QueryResult> {
        let (reply, results) = oneshot::channel();
        self.jobs.send(Job::Query(Box::new(query), reply)).await.ok().unwrap();
        results.await.unwrap()
    }

    pub async fn bootstraps(&self) -> bool {
        let results = self.query(|kad| kad.bootstrap().unwrap()).await;
        results.iter().all(|result| matches!(result, kad::QueryResult::Bootstrap(Ok(_))))
    }

    pub async fn announces(&self, multihash: Vec<u8>) {
        self.query(move |kad| kad.start_providing(multihash.into()).unwrap()).await;
    }

    pub async fn finds_providers(&self, multihash: Vec<u8>) -> Vec<PeerId> {
        let results = self.query(move |kad| kad.get_providers(multihash.into())).await;
        let mut found: Vec<PeerId> = results
            .into_iter()
            .filter_map(|result| match result {
                kad::QueryResult::GetProviders(Ok(kad::GetProvidersOk::FoundProviders { providers, .. })) => {
                    Some(providers)
                }
                _ => None,
            })
            .flatten()
            .collect();
        found.sort();
        found.dedup();
        found
    }

    /// Puts a value. Returns whether at least one server confirmed it.
    pub async fn puts_value(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let record = kad::Record::new(key, value);
        let results = self.query(move |kad| kad.put_record(record, kad::Quorum::One).unwrap()).await;
        results.iter().any(|result| matches!(result, kad::QueryResult::PutRecord(Ok(_))))
    }

    /// Returns the values that servers hold, without those in its own store.
    pub async fn gets_value(&self, key: Vec<u8>) -> Vec<Vec<u8>> {
        let results = self.query(move |kad| kad.get_record(key.into())).await;
        let found = results.into_iter().filter_map(|result| match result {
            kad::QueryResult::GetRecord(Ok(kad::GetRecordOk::FoundRecord(found))) => Some(found.record.value),
            _ => None,
        });
        found.collect()
    }

    pub async fn finds_closest(&self, target: Vec<u8>) -> Vec<PeerInfo> {
        let results = self.query(move |kad| kad.get_closest_peers(target)).await;
        let peers = results.into_iter().filter_map(|result| match result {
            kad::QueryResult::GetClosestPeers(Ok(ok)) => Some(ok.peers),
            _ => None,
        });
        peers.flatten().map(|peer| PeerInfo { id: peer.peer_id, addrs: peer.addrs }).collect()
    }
}

fn behaviour(keypair: &Keypair, mode: kad::Mode, hides: bool) -> Behaviour {
    let id = keypair.public().to_peer_id();
    let mut kad = kad::Behaviour::with_config(id, MemoryStore::new(id), kad::Config::new(KAD));
    kad.set_mode(Some(mode));
    let identify = identify::Config::new("ipfs/0.1.0".to_owned(), keypair.public()).with_hide_listen_addrs(hides);
    Behaviour { kad, identify: identify::Behaviour::new(identify), ping: ping::Behaviour::default() }
}

async fn run(mut swarm: Swarm<Behaviour>, mut jobs: mpsc::Receiver<Job>) {
    let mut queries: Vec<(kad::QueryId, Vec<kad::QueryResult>, oneshot::Sender<Vec<kad::QueryResult>>)> = Vec::new();
    loop {
        tokio::select! {
            job = jobs.recv() => match job {
                None => return,
                Some(Job::Do(job)) => job(&mut swarm),
                Some(Job::Query(query, reply)) => {
                    let id = query(&mut swarm.behaviour_mut().kad);
                    queries.push((id, Vec::new(), reply));
                }
            },
            event = swarm.select_next_some() => match event {
                SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }))
                    if info.protocols.contains(&KAD) =>
                {
                    for addr in info.listen_addrs {
                        swarm.behaviour_mut().kad.add_address(&peer_id, addr);
                    }
                }
                SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                    id, result, step, ..
                })) => {
                    if let Some(at) = queries.iter().position(|(query, ..)| *query == id) {
                        queries[at].1.push(result);
                        if step.last {
                            let (_, results, reply) = queries.swap_remove(at);
                            let _ = reply.send(results);
                        }
                    }
                }
                _ => {}
            },
        }
    }
}

fn swarm<B: NetworkBehaviour>(keypair: Keypair, over: Over, behaviour: B) -> Swarm<B> {
    let builder = SwarmBuilder::with_existing_identity(keypair).with_tokio();
    match over {
        Over::Noise => builder
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| behaviour)
            .unwrap()
            .build(),
        Over::Tls => builder
            .with_tcp(tcp::Config::default(), tls::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| behaviour)
            .unwrap()
            .build(),
        Over::Quic => builder.with_quic().with_behaviour(|_| behaviour).unwrap().build(),
    }
}

async fn listen<B: NetworkBehaviour>(swarm: &mut Swarm<B>, addr: &str) -> (ListenerId, PeerInfo) {
    let listener = swarm.listen_on(addr.parse().unwrap()).unwrap();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            return (listener, PeerInfo { id: *swarm.local_peer_id(), addrs: vec![address] });
        }
    }
}

/// Starts `n` servers that know each other.
pub async fn network(n: usize) -> Vec<Theirs> {
    let mut servers = Vec::new();
    for _ in 0..n {
        servers.push(Theirs::server(Over::Noise).await);
    }
    for server in &servers {
        for other in &servers {
            if server.info.id != other.info.id {
                server.learns(&other.info).await;
            }
        }
    }
    servers
}

/// Waits until no new connections are made. libp2p-kad bootstraps by itself half a second after it has learnt about
/// peers, and some hundred handshakes at a time keep the machine busy for a while.
pub async fn settled(servers: &[Theirs]) {
    let mut before = None;
    loop {
        let now = join_all(servers.iter().map(Theirs::connections)).await;
        if before.as_ref() == Some(&now) && now.iter().all(|n| *n > 0) {
            return;
        }
        before = Some(now);
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
}

/// Starts a node that advertises the DHT, takes its streams and never answers.
pub async fn mute() -> PeerInfo {
    stub_peer::start(Keypair::generate_ed25519(), stub_peer::mute()).await
}

/// Starts a node that advertises the DHT and ends its streams at once.
pub async fn refusing() -> PeerInfo {
    stub_peer::start(Keypair::generate_ed25519(), stub_peer::refusing()).await
}

/// Observes the node at `addr` with a node that speaks only identify and ping. Returns the identify message and the
/// round-trip time of a ping.
pub async fn observe(addr: Multiaddr) -> (identify::Info, Duration) {
    let keypair = Keypair::generate_ed25519();
    let identify = identify::Config::new("ipfs/0.1.0".to_owned(), keypair.public());
    let behaviour = Observer { identify: identify::Behaviour::new(identify), ping: ping::Behaviour::default() };
    let mut swarm = swarm(keypair, Over::Noise, behaviour);
    swarm.dial(addr).unwrap();
    let (mut said, mut took) = (None, None);
    let both = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::Behaviour(ObserverEvent::Identify(identify::Event::Received { info, .. })) => {
                    said = Some(info);
                }
                SwarmEvent::Behaviour(ObserverEvent::Ping(ping)) => took = Some(ping.result.unwrap()),
                _ => {}
            }
            if let (Some(said), Some(took)) = (&said, took) {
                return (said.clone(), took);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), both).await.unwrap()
}

#[derive(NetworkBehaviour)]
struct Observer {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}
