//! The network: swarm, streams, server, client, routing upkeep.
//!
//! ```text
//! driver   the swarm task: dials, identify, addresses. No disk, no request of the DHT.
//! streams  inbound streams -> a `server` task each; outbound streams <- `client`
//! server   request -> kad::rules + store + routing -> answer
//! client   pooled streams, pipelined ADD_PROVIDERs;  query drives kad::lookup over it
//! routing  the tables: admission, checks, refresh
//! nat      AutoNAT: whether others can dial us, and so whether we are a server (MODE-1)
//! ```

mod addresses;
mod api;
pub mod asn;
mod book;
mod client;
mod counters;
mod door;
mod driver;
mod framing;
#[cfg(any(test, fuzzing, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod ip_limits;
mod nat;
pub mod no_announce;
pub mod query;
mod renewal;
pub(crate) mod routing;
mod server;
pub mod settings;
mod streams;
mod swarm;
#[cfg(test)]
mod test_node;

use addresses::Addresses;
use book::Book;
use client::Client;
use clock::Clock;
use counters::Counters;
use dhtstore_host::{clock, files, vital::Vital};
use dhtstore_kad as kad;
use dhtstore_store::{self as store, Store};
use dhtstore_transport::{
    certificate::{CertificateError, Certificates},
    listen::{self, ListenError},
    swarm_key::{SwarmKey, SwarmKeyError},
};
use door::Door;
use driver::{Command, Driver, MAX_COMMANDS};
use framing::Budget;
use futures::FutureExt;
use kad::{Dht, PeerInfo, message::EncodedPeer, mode::Decision, scope::IpGroups, useful::most_useful};
use libp2p::{Multiaddr, PeerId, identity::Keypair};
pub use routing::bootstrap::BootstrapPeer;
use routing::{Routing, Upkeep, bootstrap::Bootstrap};
pub use settings::Settings;
use std::{
    sync::{Arc, Weak, atomic::AtomicBool},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long requests under way may take to be answered when the node stops.
const DRAIN: Duration = Duration::from_secs(5);

/// How long the swarm task may take to end after that.
const END: Duration = Duration::from_secs(2);

/// A running node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Node {
    shared: Arc<Shared>,
}

/// Why the node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// There is nothing to listen on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The swarm key of a private network cannot be used.
    #[error(transparent)]
    SwarmKey(#[from] SwarmKeyError),
    /// The database of autonomous systems cannot be used.
    #[error(transparent)]
    Asn(#[from] asn::AsnError),
    /// The certificate of secure WebSockets cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The transports cannot be made.
    #[error("{0}")]
    Transport(String),
    /// The node is on its way down.
    #[error("the node is shutting down")]
    Stopped,
}

/// Why a request to a peer failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RpcError {
    /// No connection.
    #[error("cannot be dialled: {0}")]
    Dial(String),
    /// The address leads to this node itself.
    #[error("cannot be dialled: this is the node itself")]
    Own,
    /// Connected, but it is no server of the DHT with this protocol.
    #[error("does not speak {0}")]
    Protocol(&'static str),
    /// Connected, and silent.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The stream broke or was ended; a server refuses a request that way.
    #[error("stream ended: {0}")]
    Stream(String),
    /// An answer that is none.
    #[error("malformed answer: {0}")]
    BadAnswer(String),
    /// A limit of our own: says nothing about the peer.
    #[error("this node is at a limit: {0}")]
    Busy(&'static str),
    /// The node is on its way down.
    #[error("the node is shutting down")]
    Stopped,
}

/// A connected peer, for `dhtstore peers`.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct ConnectedPeer {
    /// Its peer id.
    pub peer: String,
    /// Where it is, as we see it.
    pub address: String,
    /// Whether it dialled us.
    pub inbound: bool,
    /// What it calls itself; unknown before identify.
    pub agent: Option<String>,
    /// What it speaks.
    pub protocols: Vec<String>,
    /// For how many seconds.
    pub connected_s: u64,
    /// Last round trip in ms.
    pub ping_ms: Option<f64>,
    /// Whether it is a server of the WAN DHT.
    pub wan: bool,
    /// Whether it is a server of the LAN DHT.
    pub lan: bool,
}

/// What a node has in hand for others right now.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, serde::Serialize, serde::Deserialize)]
pub struct Load {
    /// DHT streams that others have open here.
    pub inbound_streams: u64,
    /// Handshakes that others have begun and not finished.
    #[serde(default)]
    pub pending_handshakes: u64,
    /// Bytes of `streams.read_budget` that half-read requests and unwritten answers take.
    pub read_bytes: u64,
}

/// What GET_PROVIDERS brought.
#[derive(Clone, Debug)]
pub struct ProvidersAnswer {
    /// Who provides, with the addresses that belong to the DHT asked; at most 1,000.
    pub providers: Vec<PeerInfo>,
    /// Closer servers; at most 2k.
    pub closer: Vec<PeerInfo>,
}

/// What GET_VALUE brought.
#[derive(Clone, Debug)]
pub struct ValueAnswer {
    /// The value held under the key, not validated.
    pub value: Option<Vec<u8>>,
    /// Closer servers; at most 2k.
    pub closer: Vec<PeerInfo>,
}

/// What became of a batch of ADD_PROVIDERs to one peer.
#[derive(Clone, Debug, Default)]
pub struct Delivery {
    /// Positions in the batch, ascending: those that the server has read, as its answer proves.
    pub read: Vec<usize>,
    /// Why the others were not.
    pub error: Option<RpcError>,
}

impl Delivery {
    /// How many the server has read.
    pub fn confirmed(&self) -> usize {
        self.read.len()
    }
}

/// What all parts of a node see.
#[derive(Debug)]
pub(crate) struct Shared {
    /// To hand itself to tasks.
    this: Weak<Shared>,
    pub(crate) local: PeerId,
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) addresses: Addresses,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) book: Book,
    pub(crate) routing: Routing,
    pub(crate) bootstrap: Bootstrap,
    ip_groups: IpGroups,
    pub(crate) connections: streams::Connections,
    /// Handshakes of others.
    pub(crate) door: Arc<Door>,
    pub(crate) client: Client,
    pub(crate) read_budget: Budget,
    /// Inbound streams that write: see [`server::MAX_WRITING`].
    pub(crate) writing: Semaphore,
    pub(crate) commands: mpsc::Sender<Command>,
    /// Server or client (MODE-1).
    pub(crate) mode: watch::Sender<Decision>,
    pub(crate) nat: nat::Nat,
    pub(crate) kubo_warned: AtomicBool,
    /// No new requests are taken.
    pub(crate) draining: CancellationToken,
    /// Everything ends.
    pub(crate) stop: CancellationToken,
    /// Inbound streams.
    serving: TaskTracker,
    /// Everything else.
    tasks: TaskTracker,
    /// Those among them without which there is no node.
    vital: Vital,
}

impl Shared {
    /// A task that ends with the node: `None` then.
    pub(crate) fn spawn<F>(&self, task: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(task))
    }

    /// The same for a task that has to run as long as the node does: its panic ends the process.
    pub(crate) fn spawn_vital<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.spawn(self.vital.watch(name, task));
    }

    /// How IP diversity groups addresses in `dht`; `None` where it does not hold (RT-6, LKP-2).
    pub(crate) fn ip_diversity(&self, dht: Dht) -> Option<IpGroups> {
        self.settings.profile.ip_diversity(dht).then(|| self.ip_groups.clone())
    }

    /// What is to be done for an inbound stream. On a connection's task.
    fn accept(&self, inbound: streams::Inbound) -> Option<streams::Serving> {
        if self.draining.is_cancelled() {
            return None;
        }
        let shared = self.this.upgrade()?;
        let streams::Inbound { peer, protocol, stream, permits } = inbound;
        let counted = self.serving.token();
        let served = async move {
            match protocol {
                streams::Protocol::Dht(dht) => server::serve(shared, peer, dht, stream).await,
                streams::Protocol::DialBack => shared.dialled_back(stream).await,
            }
            drop((permits, counted));
        };
        Some(self.stop.clone().run_until_cancelled_owned(served).map(|_| ()).boxed())
    }

    /// Where content is served that we provide, as `dht` is told.
    pub(crate) fn provider_addresses(&self, dht: Dht) -> Vec<Multiaddr> {
        let elsewhere = &self.settings.provider_addresses;
        if elsewhere.is_empty() {
            return self.addresses.of(dht);
        }
        let scope = self.settings.profile.scope(dht);
        most_useful(elsewhere.iter().filter(|addr| scope.hands_out(addr)).cloned().collect())
    }

    pub(crate) fn provider_entry(&self, dht: Dht) -> EncodedPeer {
        EncodedPeer::new(&self.local, &self.provider_addresses(dht))
    }
}

impl Node {
    /// Binds the listeners and starts serving. Does not wait for peers.
    pub async fn start(
        settings: Settings,
        identity: Keypair,
        store: Store,
        clock: Arc<dyn Clock>,
    ) -> Result<Node, NodeError> {
        let psk = match &settings.swarm_key {
            Some(path) => Some(SwarmKey::load(path)?.pre_shared_key()),
            None => None,
        };
        let ip_groups = asn::ip_groups(settings.asn_database.clone(), &*clock).await?;
        let files = settings.certificates.clone();
        let certificates = tokio::task::spawn_blocking(move || Certificates::load(&files)).await;
        let certificates = Arc::new(certificates.map_err(|_| NodeError::Stopped)??);
        let listen = listen::usable(&settings.listen, psk.is_some())?;
        let local = identity.public().to_peer_id();
        let (commands, obeyed) = mpsc::channel(MAX_COMMANDS);
        let counters = Arc::<Counters>::default();
        let door = Arc::new(Door::new(&settings.connections, clock.clone(), counters.clone()));
        let shared = Arc::new_cyclic(|this| Shared {
            this: this.clone(),
            local,
            settings: settings.clone(),
            store,
            clock,
            counters,
            addresses: Addresses::new(&settings),
            certificates: certificates.clone(),
            book: Book::default(),
            routing: Routing::new(local, settings.profile, &ip_groups),
            bootstrap: Bootstrap::new(&settings.bootstrap, &local),
            ip_groups,
            connections: streams::Connections::default(),
            door: door.clone(),
            client: Client::new(settings.connections.max_pending),
            read_budget: Budget::new(settings.streams.read_budget),
            writing: Semaphore::new(server::MAX_WRITING),
            commands,
            mode: nat::mode(&settings),
            nat: nat::Nat::default(),
            kubo_warned: AtomicBool::new(false),
            draining: CancellationToken::new(),
            stop: CancellationToken::new(),
            serving: TaskTracker::new(),
            tasks: TaskTracker::new(),
            vital: Vital::default(),
        });
        let acceptor = {
            // Weak: the swarm holds it, and the swarm's task holds the node.
            let this = Arc::downgrade(&shared);
            Arc::new(move |inbound| this.upgrade()?.accept(inbound))
        };
        let streams = streams::Behaviour::new(
            acceptor,
            shared.connections.clone(),
            settings.streams.max_per_connection,
            shared.counters.clone(),
            shared.mode.subscribe(),
            nat::asks(&settings),
        );
        let swarm = swarm::build(&settings, identity, psk, streams, &shared, certificates)?;
        let mut driver = Driver::new(swarm, obeyed, shared.clone());
        driver.bind(listen).await?;
        // Not by `spawn`: it watches `stop` itself, to say goodbye.
        shared.tasks.spawn(shared.vital.watch("swarm", driver.run()));
        shared.spawn_vital("client", Client::keep_tidy(shared.clone()));
        if nat::asks(&settings) {
            shared.spawn_vital("nat", nat::keep_asking(shared.clone()));
        }
        shared.spawn_vital("certificates", renewal::keep_fresh(shared.clone()));
        Upkeep::start(&shared);
        Ok(Node { shared })
    }

    /// The watch over the tasks without which the node is only half a node.
    pub fn vital(&self) -> &Vital {
        &self.shared.vital
    }

    /// Stops accepting, lets requests under way be answered for at most 5 s, closes connections.
    pub async fn shutdown(&self) {
        let shared = &self.shared;
        shared.draining.cancel();
        shared.serving.close();
        let _ = timeout(DRAIN, shared.serving.wait()).await;
        shared.stop.cancel();
        shared.tasks.close();
        let _ = timeout(END, shared.tasks.wait()).await;
    }
}
