//! The state of the daemon: identity, figures, peers, jobs, and what a check of the store finds.

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
    /// The profile of the configuration.
    pub profile: Profile,
    /// Server or client in the WAN DHT, and why (MODE-1).
    pub mode: Decision,
    /// Most connections: `connections.max`, lowered to what the limit of open files allows.
    pub connections_max: u32,
    /// The highest sequence number of each own IPNS name.
    pub ipns_sequences: BTreeMap<PeerId, u64>,
    /// The bootstrap peers, and how each answered.
    pub bootstrap: Vec<BootstrapPeer>,
    /// Time since the start.
    pub uptime: Duration,
    /// Bound listeners.
    pub listening: Vec<Multiaddr>,
    /// The addresses that the node announces in both DHTs.
    pub addresses: Vec<Multiaddr>,
    /// The number of connected peers.
    pub connections: usize,
    /// The routing tables.
    pub tables: Vec<Table>,
    /// Work under way for other peers.
    pub load: Load,
    /// Counts since the start, by name: requests, refusals, limits reached.
    pub network: BTreeMap<String, u64>,
    /// The figures of the store.
    pub store: store::Stat,
    /// The state of announcing own CIDs.
    pub reprovide: reprovider::Status,
    /// The scheduled jobs.
    pub jobs: Vec<JobStatus>,
}

/// The figures of a routing table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// Its DHT.
    pub dht: Dht,
    /// Common prefix length and number of entries of each bucket that is not empty.
    pub buckets: Vec<(u16, usize)>,
}

impl Table {
    /// Returns the number of entries.
    pub fn peers(&self) -> usize {
        self.buckets.iter().map(|(_, peers)| peers).sum()
    }
}

/// The figures of a status line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Brief {
    /// The number of entries in the routing table of each DHT.
    pub servers: Vec<(Dht, usize)>,
    /// The number of provider records.
    pub records: u64,
    /// The number of own CIDs.
    pub own: u64,
}

impl Ops {
    /// Returns the node's peer id.
    pub fn peer_id(&self) -> PeerId {
        self.handles.node.peer_id()
    }

    /// Returns the bound listeners.
    pub fn listeners(&self) -> Vec<Multiaddr> {
        self.handles.node.listeners()
    }

    /// Returns the addresses that the node announces in either DHT, each once.
    pub fn addresses(&self) -> Vec<Multiaddr> {
        let mut all: Vec<Multiaddr> = Vec::new();
        for address in Dht::ALL.into_iter().flat_map(|dht| self.handles.node.addresses(dht)) {
            if !all.contains(&address) {
                all.push(address);
            }
        }
        all
    }

    /// Returns the time since the start.
    pub fn uptime(&self) -> Duration {
        self.handles.clock.monotonic().saturating_sub(self.handles.started)
    }

    /// Returns all figures.
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

    /// Returns the figures of a status line.
    ///
    /// # Errors
    /// [`OpsError::Stopped`].
    pub async fn brief(&self) -> Result<Brief, OpsError> {
        let store = self.handles.store.clone();
        let stat = tokio::task::spawn_blocking(move || store.stat()).await?;
        let servers = Dht::ALL.into_iter().map(|dht| (dht, self.handles.node.table(dht).len())).collect();
        Ok(Brief { servers, records: stat.records, own: stat.provided })
    }

    /// Returns the connected peers, longest connected first.
    pub async fn peers(&self) -> Vec<ConnectedPeer> {
        self.handles.node.peers().await
    }

    /// Returns the scheduled jobs and their states.
    pub async fn jobs(&self) -> Vec<JobStatus> {
        self.handles.schedule.status().await
    }

    /// Checks what can be checked while the store runs. Waits for the end of replay.
    ///
    /// # Errors
    /// [`OpsError::Stopped`].
    pub async fn check(&self) -> Result<Vec<check::Finding>, OpsError> {
        let store = self.handles.store.clone();
        Ok(tokio::task::spawn_blocking(move || check::running(&store)).await?)
    }
}
