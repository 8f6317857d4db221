//! Compares our look-ups with those of libp2p-kad in a network where some peers do not answer. There are 100 servers on
//! loopback. Some of them accept streams and never answer, or cannot be connected to (their SYNs are dropped, as by a
//! firewall). The others answer after 50 ms.
//!
//! Run `cargo bench --bench slow_peers [-- SEED]`. Both clients start with the same routing table, which has no silent
//! peers. They learn of silent peers from the servers, whose tables contain both kinds. A look-up begins every 100 ms,
//! whether earlier ones have ended or not.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a benchmark ends with the first error")]
#![allow(clippy::disallowed_methods, reason = "measures time")]

use dhtstore::{
    clock::SystemClock,
    config::{Config, Profile},
    kad::{
        Dht, PeerInfo,
        frame::{self, Header},
        keyspace::Key,
        message::{EncodedPeer, Message},
        rules::{self, Request},
        table::{K, RoutingTable, Settings, TableView},
    },
    node::lookup::Event,
};
use dhtstore_testkit::{
    kad_peer::{self, KadPeer},
    libp2p_kad::{Mode, RecordKey},
    ours::{self, Ours, full_addresses, multihash},
    stub_peer,
};
use futures::{AsyncReadExt, AsyncWriteExt, future::join_all};
use libp2p::{PeerId, Stream, identity::Keypair};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use std::{
    collections::{BTreeSet, HashMap},
    net::{SocketAddr, TcpStream},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, time::sleep};

const SERVERS: usize = 100;
/// Number of look-ups of each kind (closest peers, providers) by each client.
const LOOKUPS: u64 = 40;
/// Delay of an answer, as from a distant server; on loopback alone the benchmark would measure only CPU.
const ANSWER_TIME: Duration = Duration::from_millis(50);
/// Time between the beginnings of two look-ups.
const PACE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Silence {
    /// Accepts connections and streams, and never answers a request.
    Mute,
    /// Cannot be connected to: the SYNs are dropped, so not even a refusal comes back.
    Dropped,
}

#[tokio::main]
async fn main() {
    let seed = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(1u64);
    println!("{SERVERS} servers; those that answer do so after {ANSWER_TIME:?}. {LOOKUPS} look-ups of each kind,");
    println!("one begun every {PACE:?}. Seed {seed}.\n");
    println!("| silent | sought | by | median ms | p90 ms | max ms | requests | found |");
    println!("|---|---|---|---|---|---|---|---|");
    for (percent, silence) in
        [(0, Silence::Mute), (10, Silence::Mute), (30, Silence::Mute), (10, Silence::Dropped), (30, Silence::Dropped)]
    {
        let mut random = StdRng::seed_from_u64(seed);
        let network = Network::start(percent, silence, &mut random).await;
        let what = match (percent, silence) {
            (0, _) => "none".to_owned(),
            (_, Silence::Mute) => format!("{percent} %, mute"),
            (_, Silence::Dropped) => format!("{percent} %, packets dropped"),
        };
        compare(&network, &what).await;
    }
}

/// Starts a node of ours with the profile of a private network, which bootstraps from `peers`.
async fn joining(peers: &[PeerInfo]) -> Ours {
    let mut config = Config::defaults(Profile::Private);
    config.listen = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"].map(|addr| addr.parse().unwrap()).into();
    config.bootstrap = full_addresses(peers);
    let identity = Keypair::generate_ed25519();
    Ours::start(config.node_settings(), config.store_settings(), identity, SystemClock::new()).await
}

/// Runs the look-ups of both clients, one client after the other.
async fn compare(network: &Network, what: &str) {
    let ours = Arc::new(joining(&network.answering[..5]).await);
    ours::eventually("we have joined", || ours.table_len() >= K).await;
    ours.node.refresh_routing().await;
    let known: Vec<PeerInfo> = ours.node.table(Dht::Wan).iter().map(|entry| entry.peer.clone()).collect();

    let theirs = Arc::new(KadPeer::start(Mode::Client).await);
    for peer in known {
        theirs.know(peer.id, peer.addrs[0].clone()).await;
    }
    // libp2p-kad bootstraps by itself half a second after its table has grown.
    sleep(Duration::from_secs(1)).await;
    for (sought, name) in [(Sought::Closest, "20 closest"), (Sought::Provider, "first provider")] {
        let by_ours = series(|n| {
            let (ours, network) = (ours.clone(), network.truth(n, &ours.node.peer_id()));
            async move { our_lookup(&ours, sought, &multihash(n), &network).await }
        })
        .await;
        row(what, name, "dhtstore", sought, by_ours);
        let by_theirs = series(|n| {
            let (theirs, network) = (theirs.clone(), network.truth(n, &theirs.id));
            async move { their_lookup(&theirs, sought, multihash(n), &network).await }
        })
        .await;
        row(what, name, "libp2p-kad", sought, by_theirs);
    }
    ours.node.shutdown().await;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sought {
    Closest,
    Provider,
}

/// Result of a look-up.
struct Sample {
    took: Duration,
    requests: usize,
    /// Number of peers found, out of the 20 closest that answer or out of the one provider.
    found: usize,
}

async fn series<F: Future<Output = Sample> + Send + 'static>(lookup: impl Fn(u64) -> F) -> Vec<Sample> {
    let mut tasks = Vec::new();
    for n in 0..LOOKUPS {
        tasks.push(tokio::spawn(lookup(n)));
        sleep(PACE).await;
    }
    join_all(tasks).await.into_iter().map(Result::unwrap).collect()
}

fn row(silent: &str, sought: &str, by: &str, kind: Sought, mut samples: Vec<Sample>) {
    samples.sort_by_key(|sample| sample.took);
    let at = |percent: usize| samples[(samples.len() - 1) * percent / 100].took.as_secs_f64() * 1e3;
    let mean = |of: fn(&Sample) -> usize| samples.iter().map(of).sum::<usize>() as f64 / samples.len() as f64;
    let found = match kind {
        Sought::Closest => format!("{:.2} of {K}", mean(|sample| sample.found)),
        Sought::Provider => format!("{:.0} %", 100.0 * mean(|sample| sample.found)),
    };
    println!(
        "| {silent} | {sought} | {by} | {:.0} | {:.0} | {:.0} | {:.1} | {found} |",
        at(50),
        at(90),
        at(100),
        mean(|sample| sample.requests)
    );
}

/// The peers that a look-up should find.
#[derive(Clone)]
struct Truth {
    closest: BTreeSet<PeerId>,
    provider: PeerId,
}

async fn our_lookup(ours: &Ours, sought: Sought, target: &[u8], truth: &Truth) -> Sample {
    let (events, mut told) = mpsc::channel(64);
    let requests = tokio::spawn(async move {
        let mut requests = 0;
        while let Some(event) = told.recv().await {
            requests += usize::from(matches!(event, Event::Asking { .. }));
        }
        requests
    });
    let begun = Instant::now();
    let found = match sought {
        Sought::Closest => {
            let found = ours.node.closest_peers(Dht::Wan, target, Some(events)).await;
            found.peers.iter().filter(|peer| truth.closest.contains(&peer.id)).count()
        }
        Sought::Provider => {
            let found = ours.node.find_providers(target, 1, Some(events)).await;
            found.iter().filter(|peer| peer.id == truth.provider).count()
        }
    };
    Sample { took: begun.elapsed(), requests: requests.await.unwrap(), found }
}

async fn their_lookup(theirs: &KadPeer, sought: Sought, target: Vec<u8>, truth: &Truth) -> Sample {
    let begun = Instant::now();
    let (found, requests) = match sought {
        Sought::Closest => {
            let (peers, requests) = theirs.closest(target).await;
            (peers.iter().filter(|peer| truth.closest.contains(&peer.id)).count(), requests)
        }
        Sought::Provider => {
            let key = RecordKey::new(&target);
            let named = |result: &_| !kad_peer::named_providers(result).is_empty();
            let outcome = theirs.query(|kad| kad.get_providers(key), named).await;
            let found = kad_peer::providers(&outcome).iter().filter(|id| **id == truth.provider).count();
            (found, outcome.requests)
        }
    };
    Sample { took: begun.elapsed(), requests: requests as usize, found }
}

/// The servers.
struct Network {
    answering: Vec<PeerInfo>,
    /// The provider of every record.
    provider: PeerId,
    /// Silent servers whose queue of connections is full.
    _full: Vec<FullListener>,
}

impl Network {
    async fn start(percent: usize, silence: Silence, random: &mut StdRng) -> Self {
        let keypairs: Vec<Keypair> =
            (0..SERVERS).map(|_| Keypair::ed25519_from_bytes(random.random::<[u8; 32]>()).unwrap()).collect();
        let silent = SERVERS * percent / 100;
        let (mut all, mut answering, mut full) = (Vec::new(), Vec::new(), Vec::new());
        let mut servers: Vec<(PeerId, Arc<OnceLock<Server>>)> = Vec::new();
        for (n, keypair) in keypairs.into_iter().enumerate() {
            let id = keypair.public().to_peer_id();
            let peer = if n >= silent {
                let server = Arc::new(OnceLock::new());
                servers.push((id, server.clone()));
                let serve = move |sender, stream| {
                    tokio::spawn(serve(server.clone(), sender, stream));
                };
                let peer = stub_peer::start(keypair, Arc::new(serve)).await;
                answering.push(peer.clone());
                peer
            } else if silence == Silence::Mute {
                stub_peer::start(keypair, stub_peer::mute()).await
            } else {
                let listener = FullListener::new();
                let address = format!("/ip4/127.0.0.1/tcp/{}", listener.at.port()).parse().unwrap();
                full.push(listener);
                PeerInfo { id, addrs: vec![address] }
            };
            all.push(peer);
        }
        let provider = PeerInfo { id: PeerId::random(), addrs: vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()] };
        let network = Self { answering, provider: provider.id, _full: full };
        let mut records: HashMap<PeerId, BTreeSet<Vec<u8>>> = HashMap::new();
        for n in 0..LOOKUPS {
            for holder in network.closest(&multihash(n), None) {
                records.entry(holder).or_default().insert(multihash(n));
            }
        }
        for (id, server) in servers {
            all.shuffle(random);
            let server = server.set(Server {
                table: network.table_of(&id, &all),
                records: records.remove(&id).unwrap_or_default(),
                provider: EncodedPeer::new(&provider.id, &provider.addrs),
            });
            assert!(server.is_ok());
        }
        network
    }

    /// Returns the routing table of a peer that learns of `peers` in this order: 20 in each bucket.
    fn table_of(&self, local: &PeerId, peers: &[PeerInfo]) -> Arc<TableView> {
        let mut table = RoutingTable::new(*local, Settings { ip_diversity: None });
        for peer in peers {
            // Fails for full buckets, and for the peer itself.
            let _ = table.admit(peer, Duration::ZERO);
        }
        table.view()
    }

    /// Returns the 20 closest peers that answer.
    fn closest(&self, target: &[u8], but: Option<&PeerId>) -> Vec<PeerId> {
        let target = Key::for_value(target);
        let mut ids: Vec<PeerId> = self.answering.iter().map(|peer| peer.id).filter(|id| Some(id) != but).collect();
        ids.sort_by_key(|id| Key::for_peer(id).distance(&target));
        ids.truncate(K);
        ids
    }

    fn truth(&self, n: u64, seeker: &PeerId) -> Truth {
        Truth { closest: self.closest(&multihash(n), Some(seeker)).into_iter().collect(), provider: self.provider }
    }
}

/// State of a server that answers.
struct Server {
    table: Arc<TableView>,
    records: BTreeSet<Vec<u8>>,
    provider: EncodedPeer,
}

/// Answers the requests on a stream from memory, as our server does.
async fn serve(server: Arc<OnceLock<Server>>, sender: PeerId, mut stream: Stream) -> std::io::Result<()> {
    let (mut buffer, mut part) = (Vec::new(), [0; 1024]);
    loop {
        while let Ok(Header::Complete { header, body }) = frame::header(&buffer, frame::MAX_REQUEST)
            && buffer.len() >= header + body
        {
            let message: Vec<u8> = buffer.drain(..header + body).skip(header).collect();
            let server = server.get().unwrap();
            let answer = match rules::check(&Message::decode(&message).unwrap(), &sender) {
                Ok(Request::FindNode { target }) => rules::answer_find_node(&server.table, target, &sender, None),
                Ok(Request::GetProviders { multihash }) => {
                    let held = server.records.contains(multihash);
                    let providers = std::slice::from_ref(&server.provider);
                    let providers = if held { providers } else { &[] };
                    rules::answer_get_providers(&server.table, multihash, &sender, providers, 0)
                }
                _ => return Ok(()),
            };
            sleep(ANSWER_TIME).await;
            stream.write_all(&answer).await?;
            stream.flush().await?;
        }
        match stream.read(&mut part).await? {
            0 => return Ok(()),
            n => buffer.extend_from_slice(&part[..n]),
        }
    }
}

/// A listener that accepts nothing and whose queue is full, so that Linux drops further SYNs.
struct FullListener {
    at: SocketAddr,
    _listener: socket2::Socket,
    _queued: Vec<TcpStream>,
}

impl FullListener {
    fn new() -> Self {
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let at = listener.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        // The queue takes one or two connections.
        while let Ok(stream) = TcpStream::connect_timeout(&at, Duration::from_millis(50)) {
            queued.push(stream);
        }
        Self { at, _listener: listener, _queued: queued }
    }
}
