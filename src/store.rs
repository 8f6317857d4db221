//! The disk, and the index in memory in front of it. Only this module names sled and bincode.
//!
//! Two databases, so that damage to the large and churning one never touches the small one: `records/` holds what
//! others announced (soft state, refreshed by its publishers) with the bodies of its log in `log/`, `node/` what is ours. `exports/` holds own CIDs,
//! routing tables and the log of provider records once more, outside of sled.

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
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod growth;
mod health;
pub mod jobs;
pub mod load;
mod memory;
mod meta;
mod migrate;
pub mod migration;
pub mod provided;
pub mod records;
mod recovery;
pub mod routing;
mod supervisor;
pub mod values;

use crate::clock::{Clock, UnixTime};
use meta::{Floor, NodeDb, SCHEMA, schema_of};
use records::log::{Log, chunk_time, newest_chunk};
use recovery::{Contents, Opened, Place};
use std::{
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
    bounds: growth::Bounds,
    samples: Arc<growth::Samples>,
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
        let time = records::time::Timekeeper::open(clock.clone(), last_seen, settings.clock_grace);
        let read_only = purpose == Purpose::Read;
        let meta = Some(node.meta.clone()).filter(|_| !read_only);
        let bounds = if read_only { (0, 0) } else { (settings.reserve, settings.max_disk) };
        let disk = disk::Disk::new(dir, bounds.0, bounds.1);
        if opened.lossy && !read_only {
            lower_floor(&node, &log, time.now().log)?;
        }
        notes.extend(new_position(&node, settings.position, read_only)?);
        let routing = routing::RoutingState::open(node.clone())?;
        let exports = dir.join("exports");
        let segments = records::export::Exports::open(exports.clone(), floor, recovered, time.now().log);
        let opening = provided::Opening { exports, limit: settings.max_provided, lossy, read_only };
        let (provided, restored) = provided::Provided::open(node.clone(), routing.clone(), clock.clone(), opening)?;
        notes.extend(restored);
        migrate(&node, &log, &provided, read_only)?;
        let records = records::Records::open(log, &settings, time, meta, disk, segments)?;
        let values = values::Values::open(records.shared.clone(), &settings)?;
        notes.extend(values.notes().iter().cloned());
        for note in &notes {
            tracing::warn!("{note}");
        }
        let schema = node.meta.schema().unwrap_or(SCHEMA);
        let jobs = jobs::JobLog::open(node.clone())?;
        let samples = Arc::new(growth::Samples::default());
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
            samples: samples.clone(),
        };
        let supervisor = if read_only { None } else { Some(supervisor::Supervisor::start(parts)?) };
        let bounds = growth::Bounds {
            records: settings.max_records as u64,
            disk_bytes: settings.max_disk,
            reserve_bytes: settings.reserve,
        };
        let opened = OpenedStore { dir: dir.to_owned(), notes, schema, node, bounds, samples, supervisor };
        Ok(Self { records, values, provided, routing, jobs, opened: Arc::new(opened) })
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

    /// Counts, bounds, bytes on disk, floor, recovery notes: what `stat` and `dump meta` show.
    pub fn stat(&self) -> Stat {
        let shared = &self.records.shared;
        let mut counters = shared.counters();
        let node = &self.opened.node.database.health;
        counters.insert("node_database_failures".to_owned(), node.failures());
        counters.insert("node_database_reopened".to_owned(), node.reopened());
        counters.extend(self.values.counters());
        let (values, values_bytes) = self.values.size();
        let gc_paused = match shared.replay.is_done() {
            true => shared.time.unconfirmed(),
            false => Some("the log is being replayed".to_owned()),
        };
        let mut stat = Stat {
            schema: self.opened.schema,
            records: shared.index.len() as u64,
            keys: shared.index.keys() as u64,
            peers: shared.book.len() as u64,
            provided: self.provided.len() as u64,
            values: values as u64,
            values_bytes: values_bytes as u64,
            log_chunks: shared.log.count(),
            oldest: shared.log.oldest().map(chunk_time),
            newest: shared.log.newest().map(chunk_time),
            records_bytes_on_disk: [RECORDS, LOG]
                .iter()
                .map(|part| data_dir::bytes_below(&self.opened.dir.join(part)))
                .sum(),
            node_bytes_on_disk: data_dir::bytes_below(&self.opened.dir.join("node")),
            bytes_on_disk: shared.disk.used(),
            disk_free: shared.disk.free(),
            exports_bytes_on_disk: data_dir::bytes_below(&self.opened.dir.join("exports")),
            exported_to: shared.exports.exported_to(),
            replayed: shared.replay.progress(),
            gc_paused,
            notes: self.opened.notes.iter().cloned().chain(shared.notes()).chain(node.note(NODE)).collect(),
            counters,
            log_entries: footprint::entries(shared),
            oldest_age_s: None,
            log_entries_per_s: None,
            per_record: footprint::Footprint::default(),
            growth: self.opened.samples.growth(),
            limits: Vec::new(),
        };
        self.foresee(&mut stat, &footprint::figures(shared));
        stat
    }

    /// What follows from the figures of `stat` and these.
    fn foresee(&self, stat: &mut Stat, figures: &growth::Figures) {
        let shared = &self.records.shared;
        let per_record = |n: u64| (stat.records > 0).then(|| n as f64 / stat.records as f64);
        stat.per_record = footprint::Footprint {
            disk_bytes: per_record(stat.records_bytes_on_disk),
            export_bytes: per_record(stat.exports_bytes_on_disk),
            index_bytes: per_record(self.records.index_bytes() as u64),
            memory_bytes: figures.memory_bytes.and_then(per_record),
            log_copies: stat.log_entries.and_then(per_record),
        };
        let age = |time: u32| u64::from(shared.time.now().log.saturating_sub(time));
        stat.oldest_age_s = stat.oldest.map(age);
        let span = stat.newest.zip(stat.oldest).map(|(newest, oldest)| newest.saturating_sub(oldest));
        let span = span.filter(|seconds| *seconds > 0).map(f64::from);
        stat.log_entries_per_s = stat.log_entries.zip(span).map(|(entries, span)| entries as f64 / span);
        let ages = growth::Ages { ttl_s: shared.ttl_s.into(), oldest_s: stat.oldest_age_s.unwrap_or(0) };
        let growth = self.opened.samples.of_the_hour();
        stat.limits = growth::foresee(figures, &self.opened.bounds, growth.as_ref(), ages);
    }
}

/// [`Store::stat`] of a stopped node's directory, which stays byte for byte as it is: opens a copy, and replays its log.
/// There is no growth, nor memory of the node.
///
/// # Errors
/// As [`dump::stopped`].
pub fn stat_stopped(dir: &Path, settings: Settings, now: UnixTime) -> Result<Stat, StoreError> {
    if !is_data_dir(dir) {
        return Err(StoreError::NoDatabase(dir.to_owned()));
    }
    let copy = data_dir::copy_for_reading(dir, None)?;
    let store = Store::open_for(Purpose::Read, copy.path(), settings, crate::clock::ManualClock::at(now))?;
    store.records.wait_replayed();
    let mut stat = store.stat();
    // The copy may be on another disk.
    let disk = disk::Disk::new(dir, 0, 0);
    (stat.bytes_on_disk, stat.disk_free) = (disk.used(), disk.free());
    let figures = growth::Figures {
        records: stat.records,
        disk_bytes: disk.used(),
        disk_free_bytes: disk.free(),
        memory_bytes: None,
        memory_room_bytes: None,
    };
    store.foresee(&mut stat, &figures);
    Ok(stat)
}

/// Figures of the store.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Stat {
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
    /// The newest record in `exports/`, Unix seconds.
    #[serde(default)]
    pub exported_to: Option<u32>,
    /// 0.0 to 1.0; 1.0 when the log is replayed.
    pub replayed: f64,
    /// Why GC waits, if it does.
    pub gc_paused: Option<String>,
    /// What recovery found and did when the store was opened, and what could not be read since.
    pub notes: Vec<String>,
    /// Refusals and other events by name since start.
    pub counters: std::collections::BTreeMap<String, u64>,
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
    pub per_record: footprint::Footprint,
    /// Over ten minutes, an hour and a day, as far as the process has run so long.
    #[serde(default)]
    pub growth: Vec<growth::Growth>,
    /// When limits are reached, the nearest first.
    #[serde(default)]
    pub limits: Vec<growth::Limit>,
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

/// A lost `identity.key` is made anew without a word: the databases remember whose they are. Zeros: nobody asks.
fn new_position(node: &NodeDb, position: [u8; 32], read_only: bool) -> Result<Option<String>, StoreError> {
    let before = node.meta.position();
    if read_only || position == [0; 32] || before == Some(position) {
        return Ok(None);
    }
    node.meta.set_position(position)?;
    Ok(before.map(|_| {
        "the node has another peer id than before: if identity.key was lost, stop and restore it from a backup".into()
    }))
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
