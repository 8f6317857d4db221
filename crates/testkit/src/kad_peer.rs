//! An independent DHT peer: stock `libp2p-kad` over TCP, as client or server.

use dhtstore_kad::PeerInfo;
use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identify,
    identity::Keypair,
    noise,
    swarm::{NetworkBehaviour, SwarmEvent},
    tcp, yamux,
};
use libp2p_kad::{self as kad, GetProvidersOk, QueryId, QueryResult, store::MemoryStore};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Time allowed for a query. libp2p-kad ends queries after 60 s.
const PATIENCE: Duration = Duration::from_secs(75);

/// The protocols that a peer speaks.
#[derive(NetworkBehaviour)]
struct Behaviour {
    kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
}

type Kad = kad::Behaviour<MemoryStore>;

type Enough = Box<dyn Fn(&QueryResult) -> bool + Send>;

/// The outcome of a query.
pub struct Outcome {
    /// Its results, in order of arrival.
    pub results: Vec<QueryResult>,
    /// Requests sent, answered or not.
    pub requests: u32,
}

struct Query {
    start: Box<dyn FnOnce(&mut Kad) -> QueryId + Send>,
    /// Called with each result. The query ends when it returns true.
    enough: Enough,
    done: oneshot::Sender<Outcome>,
}

type Order = Box<dyn FnOnce(&mut Swarm<Behaviour>) + Send>;

enum Command {
    Do(Order),
    Query(Query),
}

/// The settings of a peer.
pub struct Options {
    /// Client or server.
    pub mode: kad::Mode,
    /// The protocol of its DHT.
    pub protocol: StreamProtocol,
    /// Its identity.
    pub keypair: Keypair,
    /// Its TCP listen address.
    pub listen: Multiaddr,
}

impl Options {
    /// Returns settings with a new identity, the protocol of the public DHT, and a free port on loopback.
    pub fn new(mode: kad::Mode) -> Self {
        Self {
            mode,
            protocol: kad::PROTOCOL_NAME,
            keypair: Keypair::generate_ed25519(),
            listen: "/ip4/127.0.0.1/tcp/0".parse().unwrap(),
        }
    }
}

/// A running peer. Dropping it ends it.
pub struct KadPeer {
    /// Its peer id.
    pub id: PeerId,
    /// Its listen address.
    pub addr: Multiaddr,
    commands: mpsc::Sender<Command>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for KadPeer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl KadPeer {
    /// Starts a peer with a new identity in the public DHT.
    pub async fn start(mode: kad::Mode) -> Self {
        Self::start_with(Options::new(mode)).await
    }

    /// Starts a client that bootstraps from this server. Returns once the bootstrap is done.
    pub async fn client_of(server: PeerId, addr: Multiaddr) -> Self {
        let client = Self::start(kad::Mode::Client).await;
        client.know(server, addr).await;
        client.bootstrap().await;
        client
    }

    /// Starts a peer. It listens when this returns.
    pub async fn start_with(options: Options) -> Self {
        let Options { mode, protocol, keypair, listen } = options;
        let id = keypair.public().to_peer_id();
        let mut config = kad::Config::new(protocol.clone());
        config.set_periodic_bootstrap_interval(None).set_provider_publication_interval(None);
        let mut kad = Kad::with_config(id, MemoryStore::new(id), config);
        kad.set_mode(Some(mode));
        let identify = identify::Behaviour::new(identify::Config::new("ipfs/0.1.0".into(), keypair.public()));
        let mut swarm = SwarmBuilder::with_existing_identity(keypair)
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| Behaviour { kad, identify })
            .unwrap()
            .with_swarm_config(|c| c.with_idle_connection_timeout(Duration::from_secs(30)))
            .build();
        swarm.listen_on(listen).unwrap();
        let addr = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address;
            }
        };
        swarm.add_external_address(addr.clone());
        let (commands, inbox) = mpsc::channel(64);
        let task = tokio::spawn(drive(swarm, inbox, protocol));
        Self { id, addr, commands, task }
    }

    /// Sends the peer's task a function to run on its swarm.
    async fn with(&self, what: impl FnOnce(&mut Swarm<Behaviour>) + Send + 'static) {
        self.commands.send(Command::Do(Box::new(what))).await.ok().unwrap();
    }

    /// Adds the address of a peer to its routing table.
    pub async fn know(&self, peer: PeerId, addr: Multiaddr) {
        self.with(move |swarm| {
            swarm.behaviour_mut().kad.add_address(&peer, addr);
        })
        .await;
    }

    /// Returns the count of peers in its routing table.
    pub async fn table_len(&self) -> usize {
        let (reply, count) = oneshot::channel();
        self.with(|swarm| {
            let _ = reply.send(swarm.behaviour_mut().kad.kbuckets().map(|bucket| bucket.num_entries()).sum());
        })
        .await;
        count.await.unwrap()
    }

    /// Runs a query to its end, or until `enough` returns true for one of its results.
    pub async fn query(
        &self,
        start: impl FnOnce(&mut Kad) -> QueryId + Send + 'static,
        enough: impl Fn(&QueryResult) -> bool + Send + 'static,
    ) -> Outcome {
        let (done, outcome) = oneshot::channel();
        let query = Query { start: Box::new(start), enough: Box::new(enough), done };
        self.commands.send(Command::Query(query)).await.ok().unwrap();
        tokio::time::timeout(PATIENCE, outcome).await.expect("queries end").unwrap()
    }

    /// Bootstraps. Returns when its look-ups have ended.
    pub async fn bootstrap(&self) {
        self.query(|kad| kad.bootstrap().unwrap(), |_| false).await;
    }

    /// Announces `multihash`. Returns whether libp2p-kad reports success.
    pub async fn announce(&self, multihash: &[u8]) -> bool {
        let key = kad::RecordKey::new(&multihash);
        let outcome = self.query(|kad| kad.start_providing(key).unwrap(), |_| false).await;
        outcome.results.iter().any(|result| matches!(result, QueryResult::StartProviding(Ok(_))))
    }

    /// Looks up the providers of `multihash` until the query ends.
    pub async fn find_providers(&self, multihash: &[u8]) -> Vec<PeerId> {
        let key = kad::RecordKey::new(&multihash);
        providers(&self.query(|kad| kad.get_providers(key), |_| false).await)
    }

    /// Looks up the peers closest to `target`. Returns the peers that answered, and the count of requests sent.
    pub async fn closest(&self, target: Vec<u8>) -> (Vec<PeerInfo>, u32) {
        let outcome = self.query(|kad| kad.get_closest_peers(target), |_| false).await;
        let peers = outcome.results.into_iter().flat_map(|result| match result {
            QueryResult::GetClosestPeers(Ok(ok)) => ok.peers,
            QueryResult::GetClosestPeers(Err(kad::GetClosestPeersError::Timeout { peers, .. })) => peers,
            _ => Vec::new(),
        });
        let peers = peers.map(|peer| PeerInfo { id: peer.peer_id, addrs: peer.addrs });
        (peers.collect(), outcome.requests)
    }
}

/// Returns the distinct providers in these results.
pub fn providers(outcome: &Outcome) -> Vec<PeerId> {
    let mut found: Vec<PeerId> = outcome.results.iter().flat_map(named_providers).collect();
    found.sort();
    found.dedup();
    found
}

/// Returns the providers that one result names.
pub fn named_providers(result: &QueryResult) -> Vec<PeerId> {
    match result {
        QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) => {
            providers.iter().copied().collect()
        }
        _ => Vec::new(),
    }
}

/// A query under way.
struct Running {
    id: QueryId,
    results: Vec<QueryResult>,
    enough: Enough,
    done: oneshot::Sender<Outcome>,
}

async fn drive(mut swarm: Swarm<Behaviour>, mut inbox: mpsc::Receiver<Command>, protocol: StreamProtocol) {
    let mut running: Vec<Running> = Vec::new();
    loop {
        tokio::select! {
            command = inbox.recv() => match command {
                None => return,
                Some(Command::Do(what)) => what(&mut swarm),
                Some(Command::Query(Query { start, enough, done })) => {
                    let id = start(&mut swarm.behaviour_mut().kad);
                    running.push(Running { id, results: Vec::new(), enough, done });
                }
            },
            event = swarm.select_next_some() => match event {
                // libp2p-kad expects the application to add the addresses that identify reports.
                SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }))
                    if info.protocols.contains(&protocol) =>
                {
                    for addr in info.listen_addrs {
                        swarm.behaviour_mut().kad.add_address(&peer_id, addr);
                    }
                }
                SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                    id, result, stats, step,
                })) => {
                    let Some(at) = running.iter().position(|query| query.id == id) else { continue };
                    let enough = (running[at].enough)(&result);
                    running[at].results.push(result);
                    if enough && let Some(mut query) = swarm.behaviour_mut().kad.query_mut(&id) {
                        query.finish();
                    }
                    if enough || step.last {
                        let Running { results, done, .. } = running.swap_remove(at);
                        let _ = done.send(Outcome { results, requests: stats.num_requests() });
                    }
                }
                _ => {}
            },
        }
    }
}
