//! The figures of `stat`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The figures of a running node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stat {
    /// Its version.
    pub version: String,
    /// Its id.
    pub peer: String,
    /// `private` or `amino`.
    pub profile: String,
    /// `server` or `client` in the WAN DHT (MODE-1).
    pub mode: String,
    /// Why.
    pub mode_why: String,
    /// Connections that there may be: `connections.max`, lowered to the open files that there are.
    #[serde(default)]
    pub connections_max: u64,
    /// The highest sequence number of each own IPNS name, by peer id.
    #[serde(default)]
    pub ipns_sequences: BTreeMap<String, u64>,
    /// The bootstrap list, and how its peers fare.
    #[serde(default)]
    pub bootstrap: Vec<BootstrapPeer>,
    /// Seconds since start.
    pub uptime_s: u64,
    /// Where it listens.
    pub listening: Vec<String>,
    /// What is announced of it, over both DHTs.
    pub addresses: Vec<String>,
    /// Connected peers.
    pub connections: u64,
    /// Routing tables.
    pub tables: Vec<TableStat>,
    /// What is in hand for others now.
    #[serde(default)]
    pub load: Load,
    /// What happened on the network since start: requests, refusals, limits.
    #[serde(default)]
    pub network: BTreeMap<String, u64>,
    /// The store.
    pub store: StoreStat,
    /// Own CIDs.
    pub reprovide: ReprovideStat,
    /// Jobs.
    pub jobs: Vec<JobStat>,
}

/// The figures of a routing table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TableStat {
    /// `wan` or `lan`.
    pub dht: String,
    /// Entries.
    pub peers: u64,
    /// Common prefix length, entries; without empty buckets.
    pub buckets: Vec<(u16, u64)>,
}

/// How a peer of the bootstrap list fares, for `stat` and `diagnose`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct BootstrapPeer {
    /// Its addresses as configured.
    pub addresses: Vec<String>,
    /// It answered when it was last asked; `None` before.
    pub answers: Option<bool>,
    /// Why it does not.
    pub error: Option<String>,
}

/// What a node has in hand for others right now.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Load {
    /// DHT streams that others have open here.
    pub inbound_streams: u64,
    /// Handshakes that others have begun and not finished.
    #[serde(default)]
    pub pending_handshakes: u64,
    /// Bytes of `streams.read_budget` that half-read requests and unwritten answers take.
    pub read_bytes: u64,
}

/// Figures of the store.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct StoreStat {
    /// Schema version of the databases (migrations/).
    pub schema: u32,
    /// Provider records in the index; expired ones that are not collected yet included.
    pub records: u64,
    /// Multihashes with a provider.
    pub keys: u64,
    /// Peers in the address book.
    pub peers: u64,
    /// Own CIDs.
    pub provided: u64,
    /// Values; ended ones that are not collected yet included.
    #[serde(default)]
    pub values: u64,
    /// Bytes of their keys and values.
    #[serde(default)]
    pub values_bytes: u64,
    /// Chunks of the log; expired ones that are not collected yet included.
    pub log_chunks: u64,
    /// Unix seconds.
    pub oldest: Option<u32>,
    /// Unix seconds.
    pub newest: Option<u32>,
    /// Sum of the sizes of all files below `records/` and `log/`.
    pub records_bytes_on_disk: u64,
    /// Sum of the sizes of all files below `node/`.
    pub node_bytes_on_disk: u64,
    /// Bytes of disk that the whole data directory takes, as of some seconds ago.
    #[serde(default)]
    pub bytes_on_disk: u64,
    /// Bytes free on its disk.
    #[serde(default)]
    pub disk_free: u64,
    /// Sum of the sizes of all files below `exports/`.
    #[serde(default)]
    pub exports_bytes_on_disk: u64,
    /// 0.0 to 1.0; 1.0 when the log is replayed.
    pub replayed: f64,
    /// Why GC waits, if it does.
    pub gc_paused: Option<String>,
    /// What recovery found and did when the store was opened, and what could not be read since.
    pub notes: Vec<String>,
    /// Refusals and other events by name since start.
    pub counters: BTreeMap<String, u64>,
    /// Announcements in the log, about.
    #[serde(default)]
    pub log_entries: Option<u64>,
    /// Age of the oldest chunk of the log.
    #[serde(default)]
    pub oldest_age_s: Option<u64>,
    /// Announcements a second that the log took, over all the time that it spans.
    #[serde(default)]
    pub log_entries_per_s: Option<f64>,
    /// What a record takes.
    #[serde(default)]
    pub per_record: RecordSize,
    /// How far the limits are, the nearest first.
    #[serde(default)]
    pub limits: Vec<Limit>,
}

/// What the store takes for each record. `None` where there are no records, or it is not known.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct RecordSize {
    /// Bytes of `records/` on disk: all copies in the log, and the address book.
    pub disk_bytes: Option<f64>,
    /// Bytes of the index in memory.
    pub index_bytes: Option<f64>,
    /// Bytes of memory of the whole process.
    pub memory_bytes: Option<f64>,
    /// How often it stands in the log, about: each announcement that was not a repeat of the last minutes, within the ttl.
    pub log_copies: Option<f64>,
}

/// A limit, and how far it is.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Limit {
    /// A setting, or `memory` of the machine.
    pub limit: String,
    /// `records` or `bytes`.
    pub unit: String,
    /// Where it stands.
    pub max: u64,
    /// What counts towards it now.
    pub now: u64,
}

impl Limit {
    /// How much of it is taken: 1.0 is all.
    pub fn taken(&self) -> f64 {
        if self.max == 0 { 1.0 } else { self.now as f64 / self.max as f64 }
    }
}

/// How reproviding stands, for `stat`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ReprovideStat {
    /// CIDs due and not announced yet, as of the last look.
    pub due: u64,
    /// Announcements since start.
    pub announced: u64,
    /// The part of the keyspace announced last, as a bit string; empty: all of it.
    pub last_region: Option<String>,
    /// When a sweep last ended, in Unix seconds.
    pub last_sweep: Option<u32>,
    /// Since when (Unix seconds) the CID that waits longest has been due; `None` when nothing is late.
    pub behind_since: Option<u32>,
    /// No server was known at the last try.
    pub offline: bool,
    /// A sweep is under way.
    pub sweeping: bool,
}

/// How a job stands.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct JobStat {
    /// Its name.
    pub job: String,
    /// How often it looks.
    pub cron: String,
    /// What is due, in seconds.
    pub interval_s: u64,
    /// Under way now.
    pub running: bool,
    /// When it last began, RFC 3339.
    pub last: Option<String>,
    /// How long that took.
    pub took_ms: Option<u64>,
    /// What it did.
    pub outcome: Option<String>,
    /// Whether it went well.
    pub ok: Option<bool>,
    /// When it runs next, RFC 3339: the first look at which it will be due.
    pub next: Option<String>,
}
