//! Typed settings: every default is documented here, once. flags > environment (`DHTSTORE_…`) > file > defaults.

pub mod file;

use crate::kad::{Dht, scope::AddressScope};
use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};

/// What belongs together on a kind of network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Profile {
    #[default]
    Private,
    Amino,
}

impl Profile {
    /// The addresses that `dht` keeps and hands out.
    pub fn scope(self, dht: Dht) -> AddressScope {
        match (self, dht) {
            (Profile::Private, _) => AddressScope::Any,
            (Profile::Amino, Dht::Wan) => AddressScope::Public,
            (Profile::Amino, Dht::Lan) => AddressScope::Private,
        }
    }
    /// IP diversity (RT-6) holds on public DHTs only.
    pub fn ip_diversity(self, dht: Dht) -> bool {
        self == Profile::Amino && dht == Dht::Wan
    }
}

/// The effective configuration.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Config {
    pub profile: Profile,
    pub data_dir: PathBuf,
    pub listen: Vec<Multiaddr>,
    pub announce: Vec<Multiaddr>,
    pub append_announce: Vec<Multiaddr>,
    /// Multiaddrs, or `/ip4/10.0.0.0/ipcidr/8`.
    pub no_announce: Vec<Multiaddr>,
    pub swarm_key: Option<PathBuf>,
    pub bootstrap: Vec<Multiaddr>,
    pub records: Records,
    pub reprovide: Reprovide,
    pub provide: Provide,
    pub connections: Connections,
    pub streams: Streams,
    pub control: Control,
    pub jobs: Jobs,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Records {
    #[serde(with = "humantime_text")]
    pub ttl: Duration,
    #[serde(with = "humantime_text")]
    pub address_ttl: Duration,
    #[serde(with = "humantime_text")]
    pub clock_grace: Duration,
    pub max: usize,
    pub max_providers_per_key: usize,
    pub max_peers: usize,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Reprovide {
    #[serde(with = "humantime_text")]
    pub interval: Duration,
    pub max_cids: usize,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Provide {
    /// Where the content is served; announced in place of our own addresses.
    pub addresses: Vec<Multiaddr>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Connections {
    pub max: u32,
    pub max_pending: u32,
    pub max_per_peer: u32,
    pub max_per_ip: u32,
    #[serde(with = "humantime_text")]
    pub idle: Duration,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Streams {
    /// Inbound, per connection; at least 256.
    pub max_per_connection: usize,
    #[serde(with = "humantime_text")]
    pub idle: Duration,
    #[serde(with = "humantime_text")]
    pub message_timeout: Duration,
    /// Bytes of half-read requests in the whole process.
    pub read_budget: usize,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Control {
    /// Default: `control.sock` in the data directory.
    pub socket: Option<PathBuf>,
}

/// One scheduled job: how often to look, and (where it has one) what is due.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Job {
    pub cron: String,
    #[serde(with = "humantime_text")]
    pub interval: Duration,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[allow(missing_docs)]
pub struct Jobs {
    pub gc: Job,
    pub reprovide: ReprovideJob,
    pub routing_refresh: Job,
    pub routing_snapshot: Job,
    pub flush_state: Job,
}

/// The reprovide job has its interval in `[reprovide]`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ReprovideJob {
    pub cron: String,
}

/// Durations as text: `12h`, `500ms`.
mod humantime_text {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;
    pub fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&humantime::format_duration(*value))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(d)?;
        humantime::parse_duration(&text)
            .map_err(|e| serde::de::Error::custom(format!("{e}; write a duration like \"12h\"")))
    }
}

/// Why the configuration cannot be used. The message names file or variable, key, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A setting is unknown, malformed, out of bounds or at odds with another.
    #[error("{0}")]
    Invalid(String),
}

#[expect(unused_variables, missing_docs)]
impl Config {
    /// The defaults of a profile.
    pub fn defaults(profile: Profile) -> Self {
        todo!()
    }
    pub fn control_socket(&self) -> PathBuf {
        self.control.socket.clone().unwrap_or_else(|| self.data_dir.join("control.sock"))
    }
    pub fn store_settings(&self) -> crate::store::Settings {
        todo!()
    }
}
