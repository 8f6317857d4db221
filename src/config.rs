//! Typed settings: every setting is documented here, every default in [`defaults`], once.
//! flags > environment (`DHTSTORE_…`) > file > defaults of the profile; see [`mod@file`] for the layering.

pub mod defaults;
pub mod descriptors;
pub mod file;
mod keys;
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
    /// Which defaults apply, which addresses are kept and announced, and whether IP diversity is enforced.
    pub profile: Profile,
    /// Where identity, databases and control socket are. Absolute once loaded.
    pub data_dir: PathBuf,
    /// Addresses to listen on: IP and TCP, IP and UDP with QUIC v1, or WebSockets (`/ws`, `/tls/ws`). At least one.
    #[serde(with = "text::addresses")]
    pub listen: Vec<Multiaddr>,
    /// If not empty: announced in place of the listen addresses.
    #[serde(with = "text::addresses")]
    pub announce: Vec<Multiaddr>,
    /// Announced as well.
    #[serde(with = "text::addresses")]
    pub append_announce: Vec<Multiaddr>,
    /// Never announced: multiaddrs, or ranges like `/ip4/10.0.0.0/ipcidr/8`.
    #[serde(with = "text::addresses")]
    pub no_announce: Vec<Multiaddr>,
    /// Pre-shared key of a private swarm, in Kubo's format. Unset: `swarm.key` in the data directory, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swarm_key: Option<PathBuf>,
    /// Peers to join the network by, each with a trailing `/p2p/<id>`. Asked at start, and one now and then.
    #[serde(with = "text::addresses")]
    pub bootstrap: Vec<Multiaddr>,
    /// Server or client in the DHT (MODE-1): `auto` goes by whether others can dial this node; profile `private` and
    /// `announce` or `append_announce` make it a server then.
    pub mode: Mode,
    /// The disk.
    pub store: Store,
    /// Records of others.
    pub records: Records,
    /// Values of others.
    pub values: Values,
    /// Own CIDs.
    pub reprovide: Reprovide,
    /// What is said of us as a provider.
    pub provide: Provide,
    /// The routing tables.
    pub routing: Routing,
    /// Limits on connections.
    pub connections: Connections,
    /// Limits on DHT streams.
    pub streams: Streams,
    /// Telling others whether they can be dialled.
    pub autonat: Autonat,
    /// Letting others be reached through this node.
    pub relay: Relay,
    /// Certificates of secure WebSockets.
    pub websocket: Websocket,
    /// The local control socket.
    pub control: Control,
    /// Scheduled jobs.
    pub jobs: Jobs,
}

/// `[store]`: what the store may take of the disk.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Bytes kept free on the disk of the data directory: below, nothing is accepted from others. 0: none.
    #[serde(with = "text::bytes")]
    pub reserve: usize,
    /// Bytes that the whole data directory may take, log, exports and all: beyond, new records are refused and
    /// refreshes taken. 0: as many as there are; else at least 64 MiB.
    #[serde(with = "text::bytes")]
    pub max_disk: usize,
}

/// `[records]`: what others announced to us.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Records {
    /// How long a provider record is served; removed soon after (PRV-5). 1 s to 30 d.
    #[serde(with = "text::duration")]
    pub ttl: Duration,
    /// How long a provider's addresses are served after its newest announcement (PRV-6). 1 s to 30 d.
    #[serde(with = "text::duration")]
    pub address_ttl: Duration,
    /// How long a step of the wall clock must last before garbage collection believes it. At most 1 d.
    #[serde(with = "text::duration")]
    pub clock_grace: Duration,
    /// Most records held; some 45 bytes of memory each. Near it those farthest from this node go, then new ones as far
    /// as these are refused; refreshes never are.
    pub max: usize,
    /// Most records of one provider: new ones of it are refused beyond.
    pub max_per_provider: usize,
    /// Most providers of one key.
    pub max_providers_per_key: usize,
    /// Most peers in the address book.
    pub max_peers: usize,
}

/// `[values]`: public keys and IPNS records that others put.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Values {
    /// How long a value is served after it was last put (VAL-5), unless it ends earlier by its own word. 1 s to 30 d.
    #[serde(with = "text::duration")]
    pub ttl: Duration,
    /// Most values. Beyond it those farthest from this node's id give way to closer ones.
    pub max: usize,
    /// Most bytes of keys and values; at least 1 MiB. The same happens beyond.
    #[serde(with = "text::bytes")]
    pub max_bytes: usize,
}

/// `[reprovide]`: the node's own CIDs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reprovide {
    /// How often each own CID is announced (PRV-9). Must be below `records.ttl`.
    #[serde(with = "text::duration")]
    pub interval: Duration,
    /// Most own CIDs.
    pub max_cids: usize,
}

/// `[provide]`: what is said of us as a provider.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provide {
    /// Where the content is served; announced in place of our own addresses. dhtstore itself serves no blocks.
    #[serde(with = "text::addresses")]
    pub addresses: Vec<Multiaddr>,
}

/// `[routing]`: who may enter the routing tables.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Routing {
    /// A database of autonomous systems in MMDB format, by which IP diversity groups IPv6 addresses (RT-6). Unset: by
    /// /32. Read once, at start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn_database: Option<PathBuf>,
    /// Whether the peers of the saved routing table are tried at start. With `false` and an empty `bootstrap` the node dials
    /// nobody on its own: it waits to be dialled.
    pub saved_peers: bool,
}

/// `[connections]`: limits, counted over both directions.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connections {
    /// Established connections in all.
    pub max: u32,
    /// Connections whose handshake is under way, each direction.
    pub max_pending: u32,
    /// Inbound handshakes under way at the same time from one connection group (IPv4 /24, IPv6 /48): beyond it the oldest of the
    /// group gives way.
    pub max_pending_per_group: u32,
    /// Established connections with one peer.
    pub max_per_peer: u32,
    /// Established inbound connections from one IP address.
    pub max_per_ip: u32,
    /// How long a connection without streams is kept.
    #[serde(with = "text::duration")]
    pub idle: Duration,
}

/// `[streams]`: limits on DHT streams.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Streams {
    /// Inbound, per connection; at least 256.
    pub max_per_connection: usize,
    /// How long a stream without requests is kept.
    #[serde(with = "text::duration")]
    pub idle: Duration,
    /// How long a begun message may take to arrive, and a write may stand still.
    #[serde(with = "text::duration")]
    pub message_timeout: Duration,
    /// Bytes of half-read requests in the whole process; at least 1 MiB.
    #[serde(with = "text::bytes")]
    pub read_budget: usize,
}

/// `[autonat]`: the server of AutoNAT v1 and v2. It dials peers that ask for it and tells them whether that worked; public
/// addresses only on profile `amino`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Autonat {
    /// Whether others may ask.
    pub enabled: bool,
    /// Dials a minute in all, of each version.
    pub max_dials: usize,
    /// Dials a minute for one peer, of each version.
    pub max_dials_per_peer: usize,
}

/// `[relay]`: circuit relay v2, the hop. Names are those of go's `RelayService`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    /// Whether others may be reached through this node.
    pub enabled: bool,
    /// Peers that may wait here to be reached.
    pub max_reservations: usize,
    /// Connections relayed at a time.
    pub max_circuits: usize,
    /// How long a reservation holds unless it is renewed.
    #[serde(with = "text::duration")]
    pub reservation_ttl: Duration,
    /// How long a relayed connection may last.
    #[serde(with = "text::duration")]
    pub connection_duration_limit: Duration,
    /// Bytes that it may carry, both directions together: libp2p counts them in one, where go counts each.
    #[serde(with = "text::bytes")]
    pub connection_data_limit: usize,
}

/// `[websocket]`: certificates of secure WebSockets (NET-5), PEM files. They are read again when they change.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Websocket {
    /// The node's certificate, first, and its chain. Listen addresses with `/tls/ws` need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Its private key: PKCS#8, PKCS#1 or SEC1, without a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Authorities of a private network that are trusted when dialling, beside the public ones (Mozilla's list).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

/// `[control]`: the local socket that commands talk to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// Unset: `control.sock` in the data directory. At most 107 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
}

/// One scheduled job: how often to look, and what is due.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// When to look whether the job is due: cron with seconds, `sec min hour day month weekday`, UTC.
    pub cron: String,
    /// Due when the last run is so long ago.
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
    /// Puts progress of the other jobs on disk.
    pub flush_state: Job,
}

/// The reprovide job has its interval in `[reprovide]`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReprovideJob {
    /// When to look whether CIDs are due: cron with seconds, UTC.
    pub cron: String,
}

/// Why the configuration cannot be used. The message names file or variable, key, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{}: {message}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Line, column and what is wrong.
        message: String,
    },
    /// Settings are unknown, malformed, out of bounds or at odds with each other: all of them.
    #[error("{}", problems.join("\nerror: "))]
    Invalid {
        /// One sentence each.
        problems: Vec<String>,
    },
}

impl ConfigError {
    pub(crate) fn invalid(problem: impl Into<String>) -> Self {
        Self::Invalid { problems: vec![problem.into()] }
    }
}

impl Config {
    /// The control socket: as set, else `control.sock` in the data directory.
    pub fn control_socket(&self) -> PathBuf {
        self.control.socket.clone().unwrap_or_else(|| self.data_dir.join("control.sock"))
    }

    /// What the store needs to know.
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

    /// What the node needs to know.
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

    /// Where to listen: without the QUIC addresses in a private swarm, which the pre-shared key cannot protect.
    pub fn effective_listen(&self) -> Vec<Multiaddr> {
        let private = self.swarm_key.is_some();
        self.listen.iter().filter(|addr| !(private && is_quic(addr))).cloned().collect()
    }

    /// `swarm.key` in the data directory: what an unset `swarm_key` means, if that file exists.
    pub fn default_swarm_key(data_dir: &Path) -> PathBuf {
        data_dir.join("swarm.key")
    }
}

impl Websocket {
    /// The files that the settings name.
    pub fn files(&self) -> certificate::Files {
        certificate::Files { certificate: self.certificate.clone(), key: self.key.clone(), ca: self.ca.clone() }
    }
}
