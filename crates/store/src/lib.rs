//! The disk, and the index in memory in front of it. Only this module names sled and bincode.
//!
//! Two databases, so that damage to the large and churning one never touches the small one: `records/` holds what
//! others announced (soft state, refreshed by its publishers) with the bodies of its log in `log/`, `node/` what is ours. `exports/` holds own CIDs
//! and routing tables once more, outside of sled.

pub mod ballast;
pub mod check;
mod codec;
pub mod compact;
pub mod data_dir;
mod database;
mod disk;
pub mod dump;
mod engine;
mod exports;
mod files;
pub mod footprint;
mod frames;
#[cfg(any(test, fuzzing, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod health;
pub mod jobs;
pub mod limits;
pub mod load;
mod memory;
mod meta;
mod migrate;
pub mod migration;
pub mod provided;
pub mod records;
mod recovery;
pub mod routing;
mod seam;
mod stat;
mod supervisor;
pub mod values;

use clock::{Clock, UnixTime};
use dhtstore_host::{clock, vital};
use dhtstore_kad as kad;
use libp2p_identity::PeerId;
use meta::{Floor, NodeDb, SCHEMA, schema_of};
use records::log::{Log, chunk_time, newest_chunk};
use recovery::{Contents, Opened, Place};
pub use stat::{Stat, stat_stopped};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Directory of the database of what others announced.
const RECORDS: &str = "records";
/// Directory of the bodies of the log, whose rows are in [`RECORDS`].
const LOG: &str = "log";
/// Directory of the database of what is ours.
const NODE: &str = "node";
/// sled's page cache of `records/`, in bytes: rows of peers and values, and a row of some 20 bytes for each chunk.
const RECORDS_CACHE: u64 = 64 << 20;
/// sled's page cache of `node/`, in bytes.
const NODE_CACHE: u64 = 16 << 20;

/// Bounds and times of the store. Every default is a documented constant.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a record lives after its last announcement (PRV-5). Counted in whole seconds, at least one.
    pub ttl: Duration,
    /// How long a provider's addresses are served after its newest announcement (PRV-6).
    pub address_ttl: Duration,
    /// How long a step of the wall clock must last before garbage collection believes it.
    pub clock_grace: Duration,
    /// The position of this node in the keyspace: at [`Settings::max_records`] and at [`Settings::max_values`] what is
    /// farthest from it goes first.
    pub position: [u8; 32],
    /// Records in the index: at 40 bytes each the default is 4 GB.
    pub max_records: usize,
    /// Records of one provider.
    pub max_records_per_provider: usize,
    /// Providers of one key.
    pub max_providers_per_key: usize,
    /// Peers in the address book: at some 500 bytes each the default is 1 GB.
    pub max_peers: usize,
    /// Own CIDs: at some 150 bytes each the default is 1.5 GB.
    pub max_provided: usize,
    /// How long a value is served after its last PUT_VALUE (VAL-5). Counted in whole seconds, at least one.
    pub values_ttl: Duration,
    /// Values held.
    pub max_values: usize,
    /// Bytes of their keys and values; some 400 bytes of memory for each value come to that.
    pub max_values_bytes: usize,
    /// Bytes kept free on the disk: announcements are refused below. 0: none.
    pub reserve: u64,
    /// Bytes of disk that the whole data directory may take: new records and values are refused beyond, refreshes
    /// are not. 0: as many as there are.
    pub max_disk: u64,
}

/// Own CIDs, their export (some 40 MB for a million) and garbage collection go on below it.
const RESERVE: u64 = 64 << 20;

impl Default for Settings {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(12 * 3600),
            address_ttl: Duration::from_secs(24 * 3600),
            clock_grace: Duration::from_secs(600),
            position: [0; 32],
            max_records: 100_000_000,
            max_records_per_provider: 25_000_000,
            max_providers_per_key: 10_000,
            max_peers: 2_000_000,
            max_provided: 10_000_000,
            values_ttl: Duration::from_secs(48 * 3600),
            max_values: 100_000,
            max_values_bytes: 64 << 20,
            reserve: RESERVE,
            max_disk: 0,
        }
    }
}

/// Why the store cannot do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory holds neither database.
    #[error("no dhtstore database in {0}")]
    NoDatabase(PathBuf),
    /// Another process has the directory.
    #[error("the data directory {0} is in use by another process")]
    Locked(PathBuf),
    /// A restore into the directory was cut off.
    #[error(
        "a restore into {0} was cut off: run `dhtstore restore` again with the same file; to do without it, move that directory away"
    )]
    Unfinished(PathBuf),
    /// Where something is to be restored there is something already.
    #[error(
        "{dir} is not empty (there is {found}), and a restore overwrites nothing: move it away first, or name another one with --data-dir"
    )]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// What is in it.
        found: String,
    },
    /// The file system refused.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// A verb.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// sled refused, or holds what cannot be read.
    #[error("database: {0}")]
    Database(String),
    /// It cannot be written since an error of the disk, and has no handle while it is opened anew.
    #[error("{0} cannot be written at present; see to the disk, it is opened anew by itself")]
    Degraded(PathBuf),
    /// The schema is of a later version.
    #[error(
        "the database was written by a newer dhtstore (schema {found}, this one knows {known}); install that version or a newer one"
    )]
    FromTheFuture {
        /// In the database.
        found: u32,
        /// Newest that this version knows.
        known: u32,
    },
    /// A bound of [`Settings`] is reached.
    #[error("limit of {limit} {what} reached")]
    Full {
        /// Of what there are as many as may be.
        what: &'static str,
        /// How many.
        limit: usize,
    },
    /// A filter of a dump is no CID or peer id.
    #[error("{what} {text:?} cannot be read: {reason}")]
    BadFilter {
        /// `CID` or `peer id`.
        what: &'static str,
        /// As given.
        text: String,
        /// Why not.
        reason: String,
    },
}

/// Both databases of a data directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    /// What others announced to us.
    pub records: records::Records,
    /// Values that others put.
    pub values: values::Values,
    /// Our own CIDs.
    pub provided: provided::Provided,
    /// Saved routing tables.
    pub routing: routing::RoutingState,
    /// When each scheduled job last ran.
    pub jobs: jobs::JobLog,
    opened: Arc<OpenedStore>,
}

/// What is known since the store was opened.
#[derive(Debug)]
struct OpenedStore {
    dir: PathBuf,
    notes: Vec<String>,
    schema: u32,
    node: NodeDb,
    bounds: limits::Bounds,
    /// Not while a directory is only read.
    supervisor: Option<supervisor::Supervisor>,
}

/// What an open may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    /// Anything.
    Serve,
    /// Recover, then read: for `dump`.
    Read,
}

impl Store {
    /// Opens or creates both databases below `dir`, whose lock the caller holds; recovers from damage. Blocking.
    /// Replay of the log goes on in threads of its own after this has returned.
    ///
    /// # Errors
    /// [`StoreError::FromTheFuture`]; [`StoreError::Io`] and [`StoreError::Database`] when the disk or rights stand in
    /// the way. Damage is no error: [`Stat::notes`] tells what was done about it.
    pub fn open(dir: &data_dir::Lock, settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        Self::open_for(Purpose::Serve, dir.path(), settings, clock)
    }

    fn open_for(purpose: Purpose, dir: &Path, settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let now = clock.wall();
        let (node, lossy, mut notes) = open_node(dir, now)?;
        let floor = node.meta.floor();
        let opened = records_place(dir, now).open(&records_contents(now, floor, settings.ttl))?;
        let recovered = !opened.notes.is_empty();
        notes.extend(opened.notes);
        let log = Log::open(opened.db, dir.join(RECORDS), dir.join(LOG))?;
        let last_seen = floor.map(|f| f.last_seen).max(log.newest().map(chunk_time)).map(UnixTime);
        let credible = log.newest_until(now)?.map(chunk_time).map(UnixTime);
        let time = records::time::Timekeeper::open(clock.clone(), last_seen, credible, settings.clock_grace);
        let read_only = purpose == Purpose::Read;
        let time = if read_only { time.without_doubt() } else { time };
        let meta = Some(node.meta.clone()).filter(|_| !read_only);
        let bounds = if read_only { (0, 0) } else { (settings.reserve, settings.max_disk) };
        let disk = disk::Disk::new(dir, bounds.0, bounds.1);
        if opened.lossy && !read_only {
            lower_floor(&node, &log, time.now().log)?;
        }
        if !read_only && settings.position != [0; 32] && node.meta.position() != Some(settings.position) {
            node.meta.set_position(settings.position)?;
        }
        let routing = routing::RoutingState::open(node.clone())?;
        let exports = dir.join("exports");
        let before = records::Before { floor, recovered, exports: exports.clone() };
        let opening = provided::Opening { exports, limit: settings.max_provided, lossy, read_only };
        let (provided, restored) = provided::Provided::open(node.clone(), routing.clone(), clock.clone(), opening)?;
        notes.extend(restored);
        migrate(&node, &log, &provided, read_only)?;
        let records = records::Records::open(log, &settings, time, meta, disk, before)?;
        let values = values::Values::open(records.shared.clone(), &settings)?;
        notes.extend(values.notes().iter().cloned());
        for note in &notes {
            tracing::warn!("{note}");
        }
        let schema = node.meta.schema().unwrap_or(SCHEMA);
        let jobs = jobs::JobLog::open(node.clone())?;
        let parts = supervisor::Parts {
            dir: dir.to_owned(),
            ttl: settings.ttl,
            clock,
            records: records.shared.clone(),
            values: values.clone(),
            node: node.clone(),
            provided: provided.clone(),
            routing: routing.clone(),
            jobs: jobs.clone(),
        };
        let supervisor = if read_only { None } else { Some(supervisor::Supervisor::start(parts)?) };
        let bounds = limits::Bounds {
            records: settings.max_records as u64,
            disk_bytes: settings.max_disk,
            reserve_bytes: settings.reserve,
        };
        let opened = OpenedStore { dir: dir.to_owned(), notes, schema, node, bounds, supervisor };
        Ok(Self { records, values, provided, routing, jobs, opened: Arc::new(opened) })
    }

    /// Takes `peer` for the one that announcements of own CIDs name. If it was another before, all own CIDs are due at once:
    /// their records name a peer that is gone. Returns the other and how many own CIDs there are. Blocking.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn announce_as(&self, peer: &PeerId) -> Result<Option<(PeerId, usize)>, StoreError> {
        let meta = &self.opened.node.meta;
        let before = meta.peer();
        if before.as_deref() == Some(peer.to_bytes().as_slice()) {
            return Ok(None);
        }
        let before = before.and_then(|bytes| PeerId::from_bytes(&bytes).ok());
        let own = if before.is_some() { self.provided.forget_announcements()? } else { 0 };
        // Only now: a kill in between forgets them once more.
        meta.set_peer(&peer.to_bytes())?;
        self.opened.node.flush()?;
        Ok(before.map(|before| (before, own)))
    }

    /// The highest sequence number of each IPNS name that an identity of this node has ever published.
    pub fn sequences(&self) -> BTreeMap<PeerId, u64> {
        meta::peers_of(self.opened.node.meta.sequences())
    }

    /// Keeps a sequence number of an own IPNS name for ever, if it is the highest: a record that once was better must not
    /// win again when a later one has expired. On disk when this returns. Blocking.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn raise_sequence(&self, peer: &PeerId, sequence: u64) -> Result<(), StoreError> {
        self.opened.node.meta.raise_sequence(&peer.to_bytes(), sequence)
    }

    /// Everything to disk, fsynced. Nothing is accepted afterwards.
    ///
    /// # Errors
    /// The first of what failed; the rest is tried all the same.
    pub async fn close(&self) -> Result<(), StoreError> {
        let store = self.clone();
        blocking(move || store.close_blocking()).await
    }

    /// [`Store::close`] for threads.
    fn close_blocking(&self) -> Result<(), StoreError> {
        let records = self.records.close();
        let provided = self.provided.flush(true);
        // Until here it wakes flushes that sled left waiting.
        if let Some(supervisor) = &self.opened.supervisor {
            supervisor.end();
        }
        records.and(provided)
    }

    /// Everything accepted so far to disk, fsynced, with an export of own CIDs and routing tables when one is due.
    ///
    /// # Errors
    /// The first of what failed; the rest is tried all the same.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let store = self.clone();
        blocking(move || {
            let records = store.records.flush();
            let provided = store.provided.flush(false);
            records.and(provided)
        })
        .await
    }
}

/// Whether `path` is a data directory at all.
pub fn is_data_dir(path: &Path) -> bool {
    path.join("node").is_dir() || path.join("records").is_dir()
}

fn node_place(dir: &Path, now: UnixTime) -> Place<'_> {
    Place { parent: dir, name: NODE, cache: NODE_CACHE, now }
}

/// What `node/` holds, compared with what it should.
fn node_contents(dir: &Path) -> impl Fn(&sled::Db) -> Contents {
    // The schema is written with the first open; a kill during that leaves none, and no exports either.
    let promised = dir.join("exports").is_dir();
    move |db| match schema_of(db) {
        Ok(None) if promised => Contents::Nothing("it has no schema version".into()),
        Err(error) => Contents::Nothing(error.to_string()),
        _ => Contents::Complete,
    }
}

fn open_node(dir: &Path, now: UnixTime) -> Result<(NodeDb, bool, Vec<String>), StoreError> {
    let Opened { db, notes, lossy } = node_place(dir, now).open(&node_contents(dir))?;
    let node = NodeDb::new(db, dir.join(NODE))?;
    // A directory without node/ may have exports/ all the same.
    let lossy = lossy || !notes.is_empty() || node.meta.schema().is_none();
    match node.meta.schema() {
        Some(found) if found > SCHEMA => Err(StoreError::FromTheFuture { found, known: SCHEMA }),
        _ => Ok((node, lossy, notes)),
    }
}

/// What is lost is not to be missed again by the next open, which would set aside what came back meanwhile.
fn lower_floor(node: &NodeDb, log: &Log, last_seen: u32) -> Result<(), StoreError> {
    node.meta.set_floor(&Floor { chunks: None, oldest: log.oldest(), newest: log.newest(), last_seen })?;
    node.flush()
}

/// Takes the steps that the databases need, once what is ours is exported.
fn migrate(node: &NodeDb, log: &Log, provided: &provided::Provided, read_only: bool) -> Result<(), StoreError> {
    let found = node.meta.schema();
    if found == Some(SCHEMA) {
        return Ok(());
    }
    if let Some(found) = found.filter(|_| !read_only) {
        tracing::info!(from = found, to = SCHEMA, "writing the databases anew, once own CIDs are exported");
        provided.export()?;
    }
    // A version that was lost may have been the first.
    for step in migrate::needed(found.unwrap_or(1)) {
        let done = step.take(log)?;
        if found.is_some() {
            tracing::info!("{done}");
        }
    }
    node.meta.set_schema(SCHEMA)?;
    node.flush()
}

fn records_place(dir: &Path, now: UnixTime) -> Place<'_> {
    Place { parent: dir, name: RECORDS, cache: RECORDS_CACHE, now }
}

/// What `records/` holds, compared with what it should.
fn records_contents(now: UnixTime, floor: Option<Floor>, ttl: Duration) -> impl Fn(&sled::Db) -> Contents {
    // What may have expired may have been collected since the floor was written.
    let expected = floor.and_then(|f| f.newest).filter(|key| now.since(UnixTime(chunk_time(*key))) < ttl);
    move |db| {
        let Some(expected) = expected else { return Contents::Complete };
        let time = |key| UnixTime(chunk_time(key));
        match newest_chunk(db) {
            Ok(Some(newest)) if newest >= expected => Contents::Complete,
            Ok(Some(newest)) => {
                Contents::Less(format!("the log ends at {}, and went to {} before", time(newest), time(expected)))
            }
            Ok(None) => Contents::Nothing(format!("the log is empty, and went to {} before", time(expected))),
            Err(error) => Contents::Nothing(error.to_string()),
        }
    }
}

/// Runs `call` on a thread that may wait for the disk.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(call).await {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => {
            Err(StoreError::Database(format!("panicked: {}", engine::panic_text(error.into_panic().as_ref()))))
        }
        Err(_) => Err(StoreError::Database("the process is ending".into())),
    }
}
