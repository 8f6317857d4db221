//! A node of the IPFS DHT on libp2p, server and client in one.
//!
//! As a server, it answers FIND_NODE, GET_PROVIDERS, ADD_PROVIDER, GET_VALUE, PUT_VALUE and PING. As a client, it looks
//! up peers, providers and values, and announces provider records. It takes part in the WAN DHT and in the LAN DHT
//! ([`dhtstore_kad::Dht`]). It stores nothing itself: records, values and saved routing tables go through the traits of
//! `dhtstore-records`, which a store on disk or in memory implements.
//!
//! # Where to begin
//!
//! - [`Settings`]: addresses, limits and times of a node. [`Settings::on_loopback`] is a complete set to start from.
//! - [`Node`]: a running node. [`Node::start`] binds the listeners. The other methods send requests, run look-ups and
//!   return the node's state.
//! - [`dhtstore_records::Stores`]: where a node keeps what it stores. `dhtstore_records::memory::stores` needs no disk.
//!
//! Start two nodes, connect them, and ask one for its table of the WAN DHT:
//!
//! ```no_run
//! use dhtstore_host::clock::SystemClock;
//! use dhtstore_kad::{Dht, scope::Profile};
//! use dhtstore_node::{Node, Settings};
//! use dhtstore_records::memory;
//! use libp2p::identity::Keypair;
//!
//! async fn start() -> Result<Node, dhtstore_node::NodeError> {
//!     let clock = SystemClock::new();
//!     let stores = memory::stores(memory::Settings::default(), clock.clone());
//!     Node::start(Settings::on_loopback(Profile::Private), Keypair::generate_ed25519(), stores, clock).await
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let (server, client) = (start().await?, start().await?);
//! client.connect(server.listeners().remove(0)).await?;
//! println!("{} servers in the routing table", client.table(Dht::Wan).len());
//! client.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! `examples/two_nodes.rs` goes on from there: one node announces a provider record, the other finds it.
//!
//! # Parts
//!
//! Each part gets only what it needs; [`Node::start`] connects them.
//!
//! ```text
//! swarm       the swarm task: dials, identify, our addresses. It touches no disk and sees no DHT request
//! door        decides which inbound handshakes may continue when there are too many
//! streams     passes inbound streams to `serve`, opens outbound streams for `rpc`
//! peers       our own addresses, contacts, open connections;  dialer: asks the swarm task for connections
//! serve       reads requests from a stream and writes the answers;  serve/responder: request in, answer out, no socket
//! holdings    what the stores know about the providers of a multihash
//! rpc         sends requests to other servers and reports their outcome to an observer
//! routing     the routing tables: admission (that observer), bootstrap, upkeep
//! lookup      runs `kad::lookup` over `rpc`
//! nat         AutoNAT: finds out whether others can dial us, and so whether we are a server (MODE-1)
//! renewal     reloads certificates that change while the node runs
//! ```

mod api;
pub mod asn;
mod dialer;
mod door;
mod error;
mod framing;
#[cfg(any(test, fuzzing, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod holdings;
pub mod lookup;
pub mod metrics;
mod nat;
pub mod no_announce;
mod peers;
mod protocols;
mod renewal;
mod routing;
mod rpc;
mod serve;
pub mod settings;
mod streams;
mod swarm;
mod tasks;
#[cfg(test)]
mod test_node;

pub use api::{ConnectedPeer, Load};
use dhtstore_host::{
    clock::{self, Clock},
    files,
    vital::{self, Vital},
};
use dhtstore_kad as kad;
use dhtstore_records::Stores;
use dhtstore_transport::{certificate::Certificates, listen, swarm_key::SwarmKey};
use dialer::{Dialer, MAX_COMMANDS};
use door::Door;
pub use error::{Cause, NodeError, RpcError};
use framing::Budget;
use libp2p::identity::Keypair;
use lookup::Lookups;
use metrics::Metrics;
use nat::Nat;
use peers::Peers;
use renewal::Renewal;
pub use routing::bootstrap::BootstrapPeer;
use routing::{
    admission::Admission,
    bootstrap::{Bootstrap, List},
    tables::Tables,
    upkeep::Upkeep,
};
use rpc::Rpc;
pub use rpc::{Delivery, ProvidersAnswer, ValueAnswer};
use serve::{Server, responder::Responder};
pub use settings::Settings;
use std::sync::Arc;
use streams::inbound::{Acceptor, Inbound, Protocol};
use swarm::driver::{Driver, Handles};
use tasks::Tasks;
use tokio::sync::{Notify, mpsc, watch};

/// A running node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Node {
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts {
    settings: Settings,
    peers: Arc<Peers>,
    tables: Arc<Tables>,
    dialer: Arc<Dialer>,
    rpc: Arc<Rpc>,
    lookups: Arc<Lookups>,
    bootstrap: Arc<Bootstrap>,
    upkeep: Arc<Upkeep>,
    nat: Arc<Nat>,
    renewal: Arc<Renewal>,
    door: Arc<Door>,
    budget: Budget,
    tasks: Tasks,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// Returns the handler of inbound streams. It accepts none while the node drains, and the work that it returns is
/// cancelled when the node stops, even if the connection is still open.
fn acceptor(server: Arc<Server>, nat: Arc<Nat>, tasks: Tasks) -> Acceptor {
    Arc::new(move |Inbound { peer, protocol, stream, permits }| {
        if tasks.draining().is_cancelled() {
            return None;
        }
        let (server, nat) = (server.clone(), nat.clone());
        Some(tasks.serving(async move {
            match protocol {
                Protocol::Dht(dht) => server.serve(peer, dht, stream).await,
                Protocol::DialBack => nat.dialled_back(stream).await,
            }
            drop(permits);
        }))
    })
}

impl Node {
    /// Binds the listeners and starts serving, without waiting for peers.
    ///
    /// # Errors
    /// [`NodeError`] if there is nothing to listen on, or if a file that the settings name cannot be used.
    pub async fn start(
        settings: Settings,
        identity: Keypair,
        stores: Stores,
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
        let tasks = Tasks::default();
        let metrics = Arc::<Metrics>::default();
        let (commands, obeyed) = mpsc::channel(MAX_COMMANDS);
        let peers = Arc::new(Peers::new(local, &settings));
        let tables = Arc::new(Tables::new(local, settings.profile, &ip_groups));
        let dialer = Arc::new(Dialer::new(commands.clone(), peers.clone(), settings.connections.max_pending));
        let door = Arc::new(Door::new(&settings.connections, clock.clone(), metrics.clone()));
        let budget = Budget::new(settings.streams.read_budget);
        let mode = watch::Sender::new(nat::first_decision(&settings));

        let admission = Admission::new(
            peers.clone(),
            tables.clone(),
            |observer| {
                let stop = tasks.stopping().clone();
                let providers = stores.providers.clone();
                Arc::new(Rpc::new(peers.clone(), dialer.clone(), providers, observer, clock.clone(), stop, &settings))
            },
            tasks.clone(),
            clock.clone(),
            metrics.clone(),
            settings.record_ttl,
        );
        let rpc = admission.rpc().clone();
        let lookups =
            Arc::new(Lookups::new(peers.clone(), tables.clone(), rpc.clone(), &stores, tasks.clone(), clock.clone()));
        let bootstrap = Arc::new(Bootstrap {
            list: List::new(&settings.bootstrap, &local),
            peers: peers.clone(),
            tables: tables.clone(),
            admission: admission.clone(),
            rpc: rpc.clone(),
            dialer: dialer.clone(),
            lookups: lookups.clone(),
            tasks: tasks.clone(),
            clock: clock.clone(),
            refresh: settings.refresh_interval,
        });
        let upkeep = Arc::new(Upkeep {
            peers: peers.clone(),
            tables: tables.clone(),
            admission: admission.clone(),
            bootstrap: bootstrap.clone(),
            lookups: lookups.clone(),
            dialer: dialer.clone(),
            saved: stores.tables.clone(),
            clock: clock.clone(),
            mode: mode.subscribe(),
            tries_saved: settings.saved_peers,
        });
        let decided = mode.subscribe();
        let nat = Arc::new(Nat {
            peers: peers.clone(),
            upkeep: upkeep.clone(),
            mode,
            setting: settings.mode,
            pinned: nat::pinned(&settings),
            ip_groups,
            commands,
            budget: budget.clone(),
            tasks: tasks.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            wake: Notify::new(),
            nonces: nat::Nonces::default(),
        });
        let responder = Responder::new(peers.clone(), tables.clone(), stores, metrics.clone());
        let server = Arc::new(Server::new(
            responder,
            tables.clone(),
            settings.streams.clone(),
            budget.clone(),
            decided.clone(),
            tasks.draining().clone(),
            clock.clone(),
            metrics.clone(),
        ));
        let renewal = Arc::new(Renewal {
            certificates: certificates.clone(),
            peers: peers.clone(),
            listen: settings.listen.clone(),
            clock: clock.clone(),
        });

        let streams = streams::Behaviour::new(
            acceptor(server, nat.clone(), tasks.clone()),
            peers.connections.clone(),
            settings.streams.max_per_connection,
            metrics.clone(),
            decided,
            nat::asks(&settings),
        );
        let aids = (&clock, &metrics);
        let swarm = swarm::build(&settings, identity, psk, streams, door.clone(), certificates, aids)?;
        let handles = Handles {
            peers: peers.clone(),
            admission,
            nat: nat.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            stop: tasks.stopping().clone(),
        };
        let mut driver = Driver::new(swarm, obeyed, handles);
        driver.bind(listen).await?;
        tasks.spawn_last("swarm", driver.run());
        tasks.spawn_vital("client", rpc.clone().keep_tidy());
        if nat::asks(&settings) {
            tasks.spawn_vital("nat", nat.clone().keep_asking());
        }
        if settings.certificates.certificate.is_some() || settings.certificates.ca.is_some() {
            tasks.spawn_vital("certificates", renewal.clone().keep_fresh());
        }
        upkeep.start(&tasks);
        let parts = Parts {
            settings,
            peers,
            tables,
            dialer,
            rpc,
            lookups,
            bootstrap,
            upkeep,
            nat,
            renewal,
            door,
            budget,
            tasks,
            clock,
            metrics,
        };
        Ok(Node { parts: Arc::new(parts) })
    }

    /// Returns the watch over the node's vital tasks: it reports when one of them panics.
    pub fn vital(&self) -> &Vital {
        self.parts.tasks.vital()
    }

    /// Stops accepting requests, gives those under way at most 5 s to be answered, then closes all connections.
    pub async fn shutdown(&self) {
        self.parts.tasks.end().await;
    }
}
