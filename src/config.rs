//! Typed settings. [`mod@file`] reads them from flags, environment and file; [`defaults`] has their defaults.
//! docs/configuration.md describes each setting, with its bounds and the reason for its default.

pub mod defaults;
pub mod descriptors;
pub mod file;
mod keys;
#[cfg(test)]
mod page;
mod text;
mod validate;

pub use crate::kad::{mode::Setting as Mode, scope::Profile};
pub use validate::Warning;
pub(crate) use validate::{can_reach_us, is_public_bootstrapper};

use crate::{
    node,
    transport::{addresses::is_quic, certificate},
};
use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// The effective configuration.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The kind of network. It decides the defaults, which addresses are kept and handed out, and whether IP diversity
    /// applies (RT-6).
    pub profile: Profile,
    /// Directory of the identity, the databases and the control socket. Absolute once loaded.
    pub data_dir: PathBuf,
    /// Addresses to listen on: IP and TCP, IP and UDP with QUIC v1, or WebSockets (`/ws`, `/tls/ws`). At least one.
    #[serde(with = "text::addresses")]
    pub listen: Vec<Multiaddr>,
    /// Addresses to announce in place of the listen addresses. Empty: the listen addresses.
    #[serde(with = "text::addresses")]
    pub announce: Vec<Multiaddr>,
    /// Addresses to announce in addition to the others.
    #[serde(with = "text::addresses")]
    pub append_announce: Vec<Multiaddr>,
    /// Addresses that are never announced: multiaddrs, or ranges like `/ip4/10.0.0.0/ipcidr/8`.
    #[serde(with = "text::addresses")]
    pub no_announce: Vec<Multiaddr>,
    /// File with the key of a private swarm, in Kubo's format. Unset: `swarm.key` in the data directory, if there is
    /// one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swarm_key: Option<PathBuf>,
    /// Peers through which the node joins the network, each with `/p2p/<id>` at the end. The node asks all of them at
    /// start, and one at each refresh.
    #[serde(with = "text::addresses")]
    pub bootstrap: Vec<Multiaddr>,
    /// Server or client in the DHT (MODE-1). `auto`: a server if other peers can dial this node, if the profile is
    /// `private`, or if `announce` or `append_announce` is set.
    pub mode: Mode,
    /// Limits of the store on the disk.
    pub store: Store,
    /// Provider records of other peers.
    pub records: Records,
    /// Values of other peers.
    pub values: Values,
    /// The node's own CIDs.
    pub reprovide: Reprovide,
    /// What the node announces about itself as a provider.
    pub provide: Provide,
    /// The routing tables.
    pub routing: Routing,
    /// Limits on connections.
    pub connections: Connections,
    /// Limits on DHT streams.
    pub streams: Streams,
    /// The AutoNAT server.
    pub autonat: Autonat,
    /// The circuit relay.
    pub relay: Relay,
    /// Certificates of secure WebSockets.
    pub websocket: Websocket,
    /// The local control socket.
    pub control: Control,
    /// Scheduled jobs.
    pub jobs: Jobs,
}

/// `[store]`: limits of the store on the disk.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Disk space to keep free, in bytes. Below it nothing is accepted from other peers. 0: no reserve.
    #[serde(with = "text::bytes")]
    pub reserve: usize,
    /// Most bytes for the whole data directory. At the limit new records are refused, but refreshes are accepted. 0: no
    /// limit; else at least 64 MiB.
    #[serde(with = "text::bytes")]
    pub max_disk: usize,
}

/// `[records]`: provider records that other peers announced to this node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Records {
    /// Time that a provider record is served after its announcement (PRV-5).
    #[serde(with = "text::duration")]
    pub ttl: Duration,
    /// Time that a provider's addresses are served after its newest announcement (PRV-6).
    #[serde(with = "text::duration")]
    pub address_ttl: Duration,
    /// Time that a step of the wall clock must last before garbage collection believes it.
    #[serde(with = "text::duration")]
    pub clock_grace: Duration,
    /// Most records held; some 45 bytes of memory each. Near the limit the records farthest from this node are removed,
    /// and new ones that are as far away are refused. Refreshes are always accepted.
    pub max: usize,
    /// Most records of one provider. At the limit its new records are refused.
    pub max_per_provider: usize,
    /// Most providers of one key.
    pub max_providers_per_key: usize,
    /// Most peers in the address book.
    pub max_peers: usize,
}

/// `[values]`: public keys and IPNS records that other peers put.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Values {
    /// Time that a value is served after it was last put (VAL-5), unless its own validity ends earlier.
    #[serde(with = "text::duration")]
    pub ttl: Duration,
    /// Most values. At the limit those farthest from this node's id give way to closer ones.
    pub max: usize,
    /// Most bytes of keys and values. At the limit the farthest values give way, as for `max`.
    #[serde(with = "text::bytes")]
    pub max_bytes: usize,
}

/// `[reprovide]`: the node's own CIDs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reprovide {
    /// Time between two announcements of an own CID (PRV-9). Must be below `records.ttl`.
    #[serde(with = "text::duration")]
    pub interval: Duration,
    /// Most own CIDs.
    pub max_cids: usize,
}

/// `[provide]`: what the node announces about itself as a provider.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provide {
    /// Addresses where the content is served, announced in place of the node's own. dhtstore itself serves no blocks.
    #[serde(with = "text::addresses")]
    pub addresses: Vec<Multiaddr>,
}

/// `[routing]`: which peers enter the routing tables.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Routing {
    /// Database of autonomous systems in MMDB format, by which IP diversity groups IPv6 addresses (RT-6). Unset: groups
    /// them by /32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn_database: Option<PathBuf>,
    /// Whether the peers of the saved routing table are tried at start. With `false` and an empty `bootstrap` the node
    /// dials no peer by itself.
    pub saved_peers: bool,
}

/// `[connections]`: limits, counted over both directions.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connections {
    /// Most established connections.
    pub max: u32,
    /// Most handshakes under way at the same time, in each direction.
    pub max_pending: u32,
    /// Most inbound handshakes under way from one connection group (IPv4 /24, IPv6 /48). Beyond it the oldest of the
    /// group gives way.
    pub max_pending_per_group: u32,
    /// Most established connections with one peer.
    pub max_per_peer: u32,
    /// Most established inbound connections from one IP address.
    pub max_per_ip: u32,
    /// Time that a connection without streams is kept.
    #[serde(with = "text::duration")]
    pub idle: Duration,
}

/// `[streams]`: limits on DHT streams.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Streams {
    /// Most inbound streams of one connection.
    pub max_per_connection: usize,
    /// Time that a stream without requests is kept.
    #[serde(with = "text::duration")]
    pub idle: Duration,
    /// Time in which a message that has begun must arrive, and in which a write must make progress.
    #[serde(with = "text::duration")]
    pub message_timeout: Duration,
    /// Most bytes of half-read requests in the whole process.
    #[serde(with = "text::bytes")]
    pub read_budget: usize,
}

/// `[autonat]`: the server of AutoNAT v1 and v2. It dials peers that ask for it and reports whether that worked. With
/// profile `amino` it dials public addresses only.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Autonat {
    /// Whether peers may ask this node to dial them.
    pub enabled: bool,
    /// Most dials in a minute, for each version.
    pub max_dials: usize,
    /// Most dials in a minute for one peer, for each version.
    pub max_dials_per_peer: usize,
}

/// `[relay]`: circuit relay v2. The settings have the names of go's `RelayService`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    /// Whether peers can be reached through this node.
    pub enabled: bool,
    /// Most peers that may hold a reservation, so that others can reach them through this node.
    pub max_reservations: usize,
    /// Most connections relayed at the same time.
    pub max_circuits: usize,
    /// Time that a reservation holds unless it is renewed.
    #[serde(with = "text::duration")]
    pub reservation_ttl: Duration,
    /// Time that a relayed connection may last.
    #[serde(with = "text::duration")]
    pub connection_duration_limit: Duration,
    /// Most bytes of a relayed connection, both directions together.
    #[serde(with = "text::bytes")]
    pub connection_data_limit: usize,
}

/// `[websocket]`: certificates of secure WebSockets (NET-5), in PEM. The files are read again when they change.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Websocket {
    /// The node's certificate, with its chain behind it. Listen addresses with `/tls/ws` need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// The private key of the certificate: PKCS#8, PKCS#1 or SEC1, without a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Authorities that are trusted when the node dials, in addition to the public ones (Mozilla's list).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

/// `[control]`: the local socket that commands talk to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// Path of the socket, at most 107 bytes. Unset: `control.sock` in the data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
}

/// A scheduled job.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// How often to look whether the job is due: a cron expression with seconds (`sec min hour day month weekday`), in
    /// UTC.
    pub cron: String,
    /// Time after its last run at which the job is due.
    #[serde(with = "text::duration")]
    pub interval: Duration,
}

/// `[jobs]`: the scheduled jobs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Jobs {
    /// Removes records older than `records.ttl`.
    pub gc: Job,
    /// Announces own CIDs that are due.
    pub reprovide: ReprovideJob,
    /// Checks and refills the routing tables (RT-7).
    pub routing_refresh: Job,
    /// Saves the routing tables.
    pub routing_snapshot: Job,
    /// Writes the progress of announcements to disk.
    pub flush_state: Job,
}

/// The reprovide job. Its interval is `reprovide.interval`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReprovideJob {
    /// How often to look whether CIDs are due: a cron expression with seconds, in UTC.
    pub cron: String,
}

/// Why the configuration cannot be used. The message names the file or variable, the setting, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{}: {}", path.display(), source.to_string().trim_end())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and what is wrong.
        source: toml::de::Error,
    },
    /// The file is too large or is not text.
    #[error("{}: {reason}", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Settings are unknown, malformed, out of bounds, or contradict each other.
    #[error("{}", problems.join("\nerror: "))]
    Invalid {
        /// One sentence for each problem.
        problems: Vec<String>,
    },
}

impl ConfigError {
    pub(crate) fn invalid(problem: impl Into<String>) -> Self {
        Self::Invalid { problems: vec![problem.into()] }
    }
}

impl Config {
    /// Returns the path of the control socket: the setting, or `control.sock` in the data directory.
    pub fn control_socket(&self) -> PathBuf {
        self.control.socket.clone().unwrap_or_else(|| self.data_dir.join("control.sock"))
    }

    /// Returns the settings of the store.
    pub fn store_settings(&self) -> crate::store::Settings {
        crate::store::Settings {
            ttl: self.records.ttl,
            address_ttl: self.records.address_ttl,
            clock_grace: self.records.clock_grace,
            max_records: self.records.max,
            max_records_per_provider: self.records.max_per_provider,
            max_providers_per_key: self.records.max_providers_per_key,
            max_peers: self.records.max_peers,
            max_provided: self.reprovide.max_cids,
            values_ttl: self.values.ttl,
            max_values: self.values.max,
            max_values_bytes: self.values.max_bytes,
            reserve: self.store.reserve as u64,
            max_disk: self.store.max_disk as u64,
            ..crate::store::Settings::default()
        }
    }

    /// Returns the settings of the node.
    pub fn node_settings(&self) -> node::Settings {
        let connections = &self.connections;
        node::Settings {
            profile: self.profile,
            listen: self.listen.clone(),
            announce: self.announce.clone(),
            append_announce: self.append_announce.clone(),
            no_announce: self.no_announce.clone(),
            provider_addresses: self.provide.addresses.clone(),
            swarm_key: self.swarm_key.clone(),
            bootstrap: self.bootstrap.clone(),
            mode: self.mode,
            asn_database: self.routing.asn_database.clone(),
            saved_peers: self.routing.saved_peers,
            refresh_interval: self.jobs.routing_refresh.interval,
            record_ttl: self.records.ttl,
            connections: node::settings::Connections {
                max: connections.max,
                max_pending: connections.max_pending,
                max_pending_per_group: connections.max_pending_per_group,
                max_per_peer: connections.max_per_peer,
                max_per_ip: connections.max_per_ip,
                idle: connections.idle,
            },
            streams: node::settings::Streams {
                max_per_connection: self.streams.max_per_connection,
                idle: self.streams.idle,
                message_timeout: self.streams.message_timeout,
                read_budget: self.streams.read_budget,
            },
            autonat: node::settings::Autonat {
                enabled: self.autonat.enabled,
                max_dials: self.autonat.max_dials,
                max_dials_per_peer: self.autonat.max_dials_per_peer,
            },
            relay: self.relay.enabled.then_some(node::settings::Relay {
                max_reservations: self.relay.max_reservations,
                max_circuits: self.relay.max_circuits,
                reservation_ttl: self.relay.reservation_ttl,
                connection_duration_limit: self.relay.connection_duration_limit,
                connection_data_limit: self.relay.connection_data_limit as u64,
            }),
            certificates: self.websocket.files(),
        }
    }

    /// Returns the addresses to listen on. In a private swarm QUIC addresses are left out, since the key cannot protect
    /// QUIC.
    pub fn effective_listen(&self) -> Vec<Multiaddr> {
        let private = self.swarm_key.is_some();
        self.listen.iter().filter(|addr| !(private && is_quic(addr))).cloned().collect()
    }

    /// Returns `swarm.key` in the data directory. An unset `swarm_key` means this file, if it exists.
    pub fn default_swarm_key(data_dir: &Path) -> PathBuf {
        data_dir.join("swarm.key")
    }
}

impl Websocket {
    /// Returns the files that the settings name.
    pub fn files(&self) -> certificate::Files {
        certificate::Files { certificate: self.certificate.clone(), key: self.key.clone(), ca: self.ca.clone() }
    }
}
