//! Looking at the daemon: identity, figures, peers, jobs, findings.

use super::{Ops, OpsError};
use crate::{
    kad::{Dht, mode::Decision, scope::Profile},
    node::{BootstrapPeer, ConnectedPeer, Load},
    provide::reprovider,
    schedule::JobStatus,
    store::{self, check},
};
use libp2p::{Multiaddr, PeerId};
use std::{collections::BTreeMap, time::Duration};

/// The figures of a running daemon.
#[derive(Clone, Debug)]
pub struct Stat {
    /// The version of the program.
    pub version: &'static str,
    /// The node's peer id.
    pub peer: PeerId,
    /// The kind of network.
    pub profile: Profile,
    /// Server or client in the WAN DHT, and why (MODE-1).
    pub mode: Decision,
    /// Connections that there may be: `connections.max`, lowered to the open files that there are.
    pub connections_max: u32,
    /// The highest sequence number of each own IPNS name.
    pub ipns_sequences: BTreeMap<PeerId, u64>,
    /// The bootstrap list, and how its peers fare.
    pub bootstrap: Vec<BootstrapPeer>,
    /// Time since the start.
    pub uptime: Duration,
    /// Bound listeners.
    pub listening: Vec<Multiaddr>,
    /// What is announced of the node, over both DHTs.
    pub addresses: Vec<Multiaddr>,
    /// Connected peers.
    pub connections: usize,
    /// Routing tables.
    pub tables: Vec<Table>,
    /// What is in hand for others now.
    pub load: Load,
    /// What happened on the network since the start, by name: requests, refusals, limits.
    pub network: BTreeMap<String, u64>,
    /// The store.
    pub store: store::Stat,
    /// Own CIDs.
    pub reprovide: reprovider::Status,
    /// Jobs.
    pub jobs: Vec<JobStatus>,
}

/// The figures of a routing table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// Of this DHT.
    pub dht: Dht,
    /// Common prefix length, entries; without empty buckets.
    pub buckets: Vec<(u16, usize)>,
}

impl Table {
    /// Entries in all.
    pub fn peers(&self) -> usize {
        self.buckets.iter().map(|(_, peers)| peers).sum()
    }
}

/// A few figures, for a line of status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Brief {
    /// Entries of the routing table of each DHT.
    pub servers: Vec<(Dht, usize)>,
    /// Provider records.
    pub records: u64,
    /// Own CIDs.
    pub own: u64,
}

impl Ops {
    /// The node's peer id.
    pub fn peer_id(&self) -> PeerId {
        self.handles.node.peer_id()
    }

    /// Bound listeners.
    pub fn listeners(&self) -> Vec<Multiaddr> {
        self.handles.node.listeners()
    }

    /// What is announced of the node in either DHT, each once.
    pub fn addresses(&self) -> Vec<Multiaddr> {
        let mut all: Vec<Multiaddr> = Vec::new();
        for address in Dht::ALL.into_iter().flat_map(|dht| self.handles.node.addresses(dht)) {
            if !all.contains(&address) {
                all.push(address);
            }
        }
        all
    }

    /// Time since the start.
    pub fn uptime(&self) -> Duration {
        self.handles.clock.monotonic().saturating_sub(self.handles.started)
    }

    /// All figures.
    ///
    /// # Errors
    /// [`OpsError::Stopped`].
    pub async fn stat(&self) -> Result<Stat, OpsError> {
        let handles = &self.handles;
        let store = handles.store.clone();
        let figures = tokio::task::spawn_blocking(move || store.stat()).await?;
        let tables = Dht::ALL.into_iter().map(|dht| {
            let buckets = handles.node.buckets(dht).into_iter().map(|(cpl, entries)| (cpl, entries.len()));
            Table { dht, buckets: buckets.filter(|&(_, entries)| entries > 0).collect() }
        });
        let mut network = handles.node.counters();
        network.insert("log lines lost".into(), (handles.lost_log_lines)());
        Ok(Stat {
            version: env!("CARGO_PKG_VERSION"),
            peer: self.peer_id(),
            profile: handles.config.profile,
            mode: handles.node.mode(),
            connections_max: handles.config.connections.max,
            ipns_sequences: handles.store.sequences(),
            bootstrap: handles.node.bootstrap(),
            uptime: self.uptime(),
            listening: self.listeners(),
            addresses: self.addresses(),
            connections: handles.node.peers().await.len(),
            tables: tables.collect(),
            load: handles.node.load(),
            network,
            store: figures,
            reprovide: handles.reprovider.status(),
            jobs: self.jobs().await,
        })
    }

    /// A few figures.
    ///
    /// # Errors
    /// [`OpsError::Stopped`].
    pub async fn brief(&self) -> Result<Brief, OpsError> {
        let store = self.handles.store.clone();
        let stat = tokio::task::spawn_blocking(move || store.stat()).await?;
        let servers = Dht::ALL.into_iter().map(|dht| (dht, self.handles.node.table(dht).len())).collect();
        Ok(Brief { servers, records: stat.records, own: stat.provided })
    }

    /// Connected peers, longest first.
    pub async fn peers(&self) -> Vec<ConnectedPeer> {
        self.handles.node.peers().await
    }

    /// The scheduled jobs, and how each stands.
    pub async fn jobs(&self) -> Vec<JobStatus> {
        self.handles.schedule.status().await
    }

    /// What a running store can say of itself. Waits for the end of replay.
    ///
    /// # Errors
    /// [`OpsError::Stopped`].
    pub async fn check(&self) -> Result<Vec<check::Finding>, OpsError> {
        let store = self.handles.store.clone();
        Ok(tokio::task::spawn_blocking(move || check::running(&store)).await?)
    }
}
