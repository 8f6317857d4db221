//! The disk, and the index in memory in front of it. Only this module names sled and bincode.

pub mod data_dir;
pub mod dump;
pub mod jobs;
pub mod provided;
pub mod records;
pub mod routing;

use crate::clock::Clock;
use std::{path::Path, sync::Arc, time::Duration};

/// Bounds and times of the store. Every default is a documented constant.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Settings {
    pub ttl: Duration,
    /// How long a provider's addresses are served after its newest announcement (PRV-6).
    pub address_ttl: Duration,
    /// How long a step of the wall clock must last before garbage collection believes it.
    pub clock_grace: Duration,
    pub max_records: usize,
    pub max_providers_per_key: usize,
    pub max_peers: usize,
    pub max_provided: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(12 * 3600),
            address_ttl: Duration::from_secs(24 * 3600),
            clock_grace: Duration::from_secs(600),
            max_records: 100_000_000,
            max_providers_per_key: 10_000,
            max_peers: 2_000_000,
            max_provided: 10_000_000,
        }
    }
}

/// Why the store cannot do what it is asked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StoreError {
    #[error("no dhtstore database in {0}")]
    NoDatabase(std::path::PathBuf),
    #[error("the data directory {0} is in use by another process")]
    Locked(std::path::PathBuf),
    #[error("cannot {doing} {path}: {source}")]
    Io { doing: &'static str, path: std::path::PathBuf, source: std::io::Error },
    #[error("database: {0}")]
    Database(String),
    #[error(
        "the database was written by a newer dhtstore (schema {found}, this one knows {known}); install that version or a newer one"
    )]
    FromTheFuture { found: u32, known: u32 },
    #[error("limit of {limit} {what} reached")]
    Full { what: &'static str, limit: usize },
}

/// Both databases of a data directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    /// What others announced to us.
    pub records: records::Records,
    /// Our own CIDs.
    pub provided: provided::Provided,
    /// Saved routing tables.
    pub routing: routing::RoutingState,
    /// When each scheduled job last ran.
    pub jobs: jobs::JobLog,
}

#[expect(unused_variables, missing_docs)]
impl Store {
    /// Opens or creates both databases below `dir`, whose lock the caller holds; recovers from damage. Blocking.
    /// Replay of the log goes on in threads of its own after this has returned.
    pub fn open(dir: &data_dir::Lock, settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        todo!()
    }
    /// Everything to disk, fsynced. Nothing is accepted afterwards.
    pub async fn close(&self) -> Result<(), StoreError> {
        todo!()
    }
    pub async fn flush(&self) -> Result<(), StoreError> {
        todo!()
    }
    /// Counts, bounds, bytes on disk, floor, recovery notes: what `stat` and `dump meta` show.
    pub fn stat(&self) -> Stat {
        todo!()
    }
}

/// Figures of the store.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs)]
pub struct Stat {
    pub schema: u32,
    pub records: u64,
    pub keys: u64,
    pub peers: u64,
    pub provided: u64,
    pub log_chunks: u64,
    /// Unix seconds.
    pub oldest: Option<u32>,
    pub newest: Option<u32>,
    pub records_bytes_on_disk: u64,
    pub node_bytes_on_disk: u64,
    /// 0.0 to 1.0; 1.0 when the log is replayed.
    pub replayed: f64,
    /// Why GC waits, if it does.
    pub gc_paused: Option<String>,
    /// What recovery found and did when the store was opened.
    pub notes: Vec<String>,
    /// Refusals and other events by name since start.
    pub counters: std::collections::BTreeMap<String, u64>,
}

/// Whether `path` is a data directory at all.
pub fn is_data_dir(path: &Path) -> bool {
    path.join("node").is_dir() || path.join("records").is_dir()
}
