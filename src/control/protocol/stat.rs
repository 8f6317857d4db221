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
    /// Reason for the mode.
    pub mode_why: String,
    /// Limit of connections: `connections.max`, lowered to fit the limit of open files.
    #[serde(default)]
    pub connections_max: u64,
    /// Highest sequence number of each own IPNS name, by peer id.
    #[serde(default)]
    pub ipns_sequences: BTreeMap<String, u64>,
    /// Peers of the bootstrap list and their state.
    #[serde(default)]
    pub bootstrap: Vec<BootstrapPeer>,
    /// Seconds since start.
    pub uptime_s: u64,
    /// Addresses that it listens on.
    pub listening: Vec<String>,
    /// Addresses that it announces in at least one of the two DHTs.
    pub addresses: Vec<String>,
    /// Connected peers.
    pub connections: u64,
    /// Routing tables.
    pub tables: Vec<TableStat>,
    /// Work for other peers now.
    #[serde(default)]
    pub load: Load,
    /// Counters of the network since start: requests, refusals, limits.
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
    /// Common prefix length and number of entries of each bucket that is not empty.
    pub buckets: Vec<(u16, u64)>,
}

/// State of a peer of the bootstrap list, for `stat` and `diagnose`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct BootstrapPeer {
    /// Its addresses as configured.
    pub addresses: Vec<String>,
    /// Whether it answered when last asked; `None` if not asked yet.
    pub answers: Option<bool>,
    /// Why it did not answer.
    pub error: Option<String>,
}

/// Work of a node for other peers at this moment.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Load {
    /// Open inbound DHT streams.
    pub inbound_streams: u64,
    /// Inbound handshakes under way.
    #[serde(default)]
    pub pending_handshakes: u64,
    /// Bytes of `streams.read_budget` in use by half-read requests and unwritten answers.
    pub read_bytes: u64,
}

/// Figures of the store.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct StoreStat {
    /// Schema version of the databases (see migrations/).
    pub schema: u32,
    /// Provider records in the index, including expired ones that are not collected yet.
    pub records: u64,
    /// Multihashes with a provider.
    pub keys: u64,
    /// Peers in the address book.
    pub peers: u64,
    /// Own CIDs.
    pub provided: u64,
    /// Values, including expired ones that are not collected yet.
    #[serde(default)]
    pub values: u64,
    /// Bytes of these values and their keys.
    #[serde(default)]
    pub values_bytes: u64,
    /// Chunks of the log, including expired ones that are not collected yet.
    pub log_chunks: u64,
    /// Time of the oldest chunk, in Unix seconds.
    pub oldest: Option<u32>,
    /// Time of the newest chunk, in Unix seconds.
    pub newest: Option<u32>,
    /// Sum of the sizes of all files below `records/` and `log/`.
    pub records_bytes_on_disk: u64,
    /// Sum of the sizes of all files below `node/`.
    pub node_bytes_on_disk: u64,
    /// Bytes that the whole data directory takes on disk; some seconds old.
    #[serde(default)]
    pub bytes_on_disk: u64,
    /// Free bytes on the disk of the data directory.
    #[serde(default)]
    pub disk_free: u64,
    /// Sum of the sizes of all files below `exports/`.
    #[serde(default)]
    pub exports_bytes_on_disk: u64,
    /// Part of the log that has been replayed since the start, from 0.0 to 1.0.
    pub replayed: f64,
    /// Why garbage collection is paused, if it is.
    pub gc_paused: Option<String>,
    /// Notes on what recovery found and did when the store was opened, and on what could not be read since.
    pub notes: Vec<String>,
    /// Refusals and other events by name since start.
    pub counters: BTreeMap<String, u64>,
    /// Approximate number of announcements in the log.
    #[serde(default)]
    pub log_entries: Option<u64>,
    /// Age of the oldest chunk of the log, in seconds.
    #[serde(default)]
    pub oldest_age_s: Option<u64>,
    /// Announcements a second, averaged over the time that the log spans.
    #[serde(default)]
    pub log_entries_per_s: Option<f64>,
    /// Size of a record.
    #[serde(default)]
    pub per_record: RecordSize,
    /// Use of the limits, the nearest limit first.
    #[serde(default)]
    pub limits: Vec<Limit>,
}

/// Size of a record in the store. `None` if there are no records, or if it is unknown.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct RecordSize {
    /// Bytes of `records/` on disk, with all copies in the log and the address book.
    pub disk_bytes: Option<f64>,
    /// Bytes of the index in memory.
    pub index_bytes: Option<f64>,
    /// Bytes of memory of the whole process, per record.
    pub memory_bytes: Option<f64>,
    /// Approximate number of copies in the log: one for each announcement within the ttl, without those repeated within
    /// minutes.
    pub log_copies: Option<f64>,
}

/// A limit and its use.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Limit {
    /// A setting, or `memory` of the machine.
    pub limit: String,
    /// `records` or `bytes`.
    pub unit: String,
    /// The limit.
    pub max: u64,
    /// Current use.
    pub now: u64,
}

impl Limit {
    /// Returns the part of the limit in use; 1.0 is all of it.
    pub fn taken(&self) -> f64 {
        if self.max == 0 { 1.0 } else { self.now as f64 / self.max as f64 }
    }
}

/// State of reproviding, for `stat`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ReprovideStat {
    /// CIDs that were due at the last check and are not announced yet.
    pub due: u64,
    /// Announcements since start.
    pub announced: u64,
    /// Region of the keyspace announced last, as a bit string; empty for the whole keyspace.
    pub last_region: Option<String>,
    /// End of the last sweep, in Unix seconds.
    pub last_sweep: Option<u32>,
    /// Due time of the CID that has waited longest, in Unix seconds; `None` if no CID is late.
    pub behind_since: Option<u32>,
    /// Whether no server was known at the last try.
    pub offline: bool,
    /// Whether a sweep is under way.
    pub sweeping: bool,
}

/// State of a job.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct JobStat {
    /// Its name.
    pub job: String,
    /// When it checks whether it is due, as a cron expression.
    pub cron: String,
    /// Interval after which it is due again, in seconds.
    pub interval_s: u64,
    /// Whether it is running.
    pub running: bool,
    /// Start of the last run, RFC 3339.
    pub last: Option<String>,
    /// Duration of the last run, in ms.
    pub took_ms: Option<u64>,
    /// What the last run did.
    pub outcome: Option<String>,
    /// Whether the last run succeeded.
    pub ok: Option<bool>,
    /// Start of the next run, RFC 3339: the first check at which it will be due.
    pub next: Option<String>,
}
