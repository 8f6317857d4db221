//! A node of the IPFS DHT on libp2p: it serves others and asks them.
//!
//! Each part is given what it needs and no more; [`Node::start`] wires them.
//!
//! ```text
//! swarm       the swarm task: dials, identify, addresses. No disk, no request of the DHT.
//! door        which handshakes of strangers go on
//! streams     inbound streams -> `serve`; outbound streams <- `rpc`
//! peers       ourselves as others are told, contacts, open connections;  dialer asks for more of those
//! serve       a stream's requests and their answers;  serve/responder: request in, answer out, without a socket
//! holdings    what the stores say of the providers of a multihash
//! rpc         requests to other servers; tells an observer how they answer
//! routing     the tables: who is in, admission (that observer), bootstrap, upkeep
//! lookup      drives `kad::lookup` over `rpc`
//! nat         AutoNAT: whether others can dial us, and so whether we are a server (MODE-1)
//! renewal     certificates that change while the node runs
//! ```
//!
//! What it keeps is behind the traits of `dhtstore-records`: a store on disk, in memory, or elsewhere.

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
pub use error::{NodeError, RpcError};
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
use swarm::driver::{Driver, Told};
use tasks::Tasks;
use tokio::sync::{Notify, mpsc, watch};

/// A running node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Node {
    parts: Arc<Parts>,
}

/// What a node consists of.
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

/// What is done for the streams of others. It ends with the node, also while connections last.
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
    /// Binds the listeners and starts serving. Does not wait for peers.
    ///
    /// # Errors
    /// [`NodeError`]: nothing to listen on, or a file that the settings name cannot be used.
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
        let told = Told {
            peers: peers.clone(),
            admission,
            nat: nat.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            stop: tasks.stopping().clone(),
        };
        let mut driver = Driver::new(swarm, obeyed, told);
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

    /// The watch over the tasks without which the node is only half a node.
    pub fn vital(&self) -> &Vital {
        self.parts.tasks.vital()
    }

    /// Stops accepting, lets requests under way be answered for at most 5 s, closes connections.
    pub async fn shutdown(&self) {
        self.parts.tasks.end().await;
    }
}
