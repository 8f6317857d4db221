//! An embedded store for the records of an IPFS DHT server: provider records, values, own CIDs and routing tables. This
//! is the only crate that names sled and bincode.
//!
//! A data directory holds two databases, so that damage to the large one, which changes all the time, never touches the
//! small one:
//! - `records/` holds provider records and values that other peers announced. The bodies of its log are in `log/`. Its
//!   content is soft state, which publishers refresh;
//! - `node/` holds what belongs to this node: own CIDs, routing tables and the last runs of jobs. `exports/` holds own
//!   CIDs and routing tables a second time, outside of sled.
//!
//! An index in memory answers every look-up of provider records without the disk.
//!
//! Begin with these types:
//! - [`data_dir::Lock`]: holds a data directory, so that one process uses it at a time;
//! - [`Settings`]: limits and times, with their defaults;
//! - [`Store`]: the open store. Its fields are the stores of each kind of record; [`Store::stores`] gives them to a
//!   server as the traits of `dhtstore-records`.
//!
//! ```
//! use dhtstore_host::clock::SystemClock;
//! use dhtstore_kad::{Dht, PeerInfo};
//! use dhtstore_store::{Settings, Store, data_dir::Lock};
//! use libp2p_identity::PeerId;
//!
//! # #[tokio::main(flavor = "multi_thread", worker_threads = 1)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! let lock = Lock::acquire(dir.path())?;
//! let store = Store::open(&lock, Settings::default(), SystemClock::new())?;
//! let provider = PeerInfo {
//!     id: PeerId::from_bytes(&[0x12, 2, 1, 2])?,
//!     addrs: vec!["/ip4/192.0.2.1/tcp/4001".parse()?],
//! };
//! store.records.add(b"a multihash", &provider, Dht::Wan).await?;
//! let found = store.records.providers(b"a multihash", 20, 0).await;
//! assert_eq!(found[0].peer, provider.id);
//! store.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! `examples/keep.rs` also reopens the store. [`check`] verifies a data directory, [`dump`] and [`load`] move records
//! between stores, and [`migration`] brings an older directory to this version.

pub mod ballast;
mod blocking;
pub mod check;
mod codec;
pub mod compact;
pub mod data_dir;
mod database;
mod databases;
mod disk;
pub mod dump;
mod engine;
mod error;
mod filesystem;
pub mod footprint;
mod frame_writer;
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
pub mod metrics;
pub mod migration;
pub mod provided;
pub mod records;
mod recovery;
pub mod routing;
mod schema;
mod seam;
mod settings;
mod sled_files;
mod stat;
mod supervisor;
pub mod values;

use blocking::blocking;
use clock::{Clock, UnixTime};
pub use data_dir::is_data_dir;
use data_dir::names::{EXPORTS, LOG, RECORDS};
use databases::{open_node, records_contents, records_dir};
use dhtstore_host::{clock, vital};
use dhtstore_kad as kad;
pub use error::StoreError;
use libp2p_identity::PeerId;
use meta::{Floor, NodeDb, SCHEMA};
use records::log::{Log, chunk_time};
pub use settings::Settings;
pub use stat::{Stat, stat_stopped};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The store in a data directory: two databases, a log and an index. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    /// Provider records that other peers announced.
    pub records: records::Records,
    /// Values that other peers put.
    pub values: values::Values,
    /// The CIDs that this node keeps announced.
    pub provided: provided::Provided,
    /// Saved routing tables.
    pub routing: routing::RoutingState,
    /// The last run of each scheduled job.
    pub jobs: jobs::JobLog,
    opened: Arc<OpenedStore>,
}

/// State that is set when the store is opened.
#[derive(Debug)]
struct OpenedStore {
    dir: PathBuf,
    notes: Vec<String>,
    schema: u32,
    node: NodeDb,
    bounds: limits::Bounds,
    /// `None` while a directory is only read.
    supervisor: Option<supervisor::Supervisor>,
}

/// The purpose for which a store is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    /// Read and write.
    Serve,
    /// Recover, then read only: for `dump`.
    Read,
}

impl Store {
    /// Opens or creates both databases in `dir`, whose lock the caller holds, and recovers them from damage. Blocking.
    /// Replay of the log goes on in other threads after this has returned.
    ///
    /// # Errors
    /// [`StoreError::FromTheFuture`]; [`StoreError::Io`] and [`StoreError::Database`] if the disk or rights prevent it.
    /// Damage is not an error: [`Stat::notes`] says what was done about it.
    pub fn open(dir: &data_dir::Lock, settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        Self::open_for(Purpose::Serve, dir.path(), settings, clock)
    }

    fn open_for(purpose: Purpose, dir: &Path, settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let now = clock.wall();
        let (node, lossy, mut notes) = open_node(dir, now)?;
        let floor = node.meta.floor();
        let opened = records_dir(dir, now).open(&records_contents(now, floor, settings.ttl))?;
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
        let exports = dir.join(EXPORTS);
        let before = records::Before { floor, recovered, exports: exports.clone() };
        let opening = provided::Opening { exports, limit: settings.max_provided, lossy, read_only };
        let (provided, restored) = provided::Provided::open(node.clone(), routing.clone(), clock.clone(), opening)?;
        notes.extend(restored);
        migrate(&node, &log, &provided, read_only)?;
        let records = records::Records::open(log, &settings, time, meta, disk, before)?;
        let values = values::Values::open(records.state.clone(), &settings)?;
        notes.extend(values.notes().iter().cloned());
        for note in &notes {
            tracing::warn!("{note}");
        }
        let schema = node.meta.schema().unwrap_or(SCHEMA);
        let jobs = jobs::JobLog::open(node.clone())?;
        let supervised = supervisor::Supervised {
            dir: dir.to_owned(),
            ttl: settings.ttl,
            clock,
            records: records.state.clone(),
            values: values.clone(),
            node: node.clone(),
            provided: provided.clone(),
            routing: routing.clone(),
            jobs: jobs.clone(),
        };
        let supervisor = if read_only { None } else { Some(supervisor::Supervisor::start(supervised)?) };
        let bounds = limits::Bounds {
            records: settings.max_records as u64,
            disk_bytes: settings.max_disk,
            reserve_bytes: settings.reserve,
        };
        let opened = OpenedStore { dir: dir.to_owned(), notes, schema, node, bounds, supervisor };
        Ok(Self { records, values, provided, routing, jobs, opened: Arc::new(opened) })
    }

    /// Sets the peer id that announcements of own CIDs name. If it was another one before, all own CIDs are due at
    /// once, since their records name a peer id that is no longer used. Returns the old peer id and the number of own
    /// CIDs. Blocking.
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
        // The peer id is set last: if a kill comes before that, the next start repeats the step above.
        meta.set_peer(&peer.to_bytes())?;
        self.opened.node.flush()?;
        Ok(before.map(|before| (before, own)))
    }

    /// Returns the highest sequence number of each IPNS name that an identity of this node has published.
    pub fn sequences(&self) -> BTreeMap<PeerId, u64> {
        meta::peers_of(self.opened.node.meta.sequences())
    }

    /// Keeps a sequence number of an own IPNS name for good, if it is the highest: an older record must not win again
    /// when a newer one has expired. On disk when this returns. Blocking.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn raise_sequence(&self, peer: &PeerId, sequence: u64) -> Result<(), StoreError> {
        self.opened.node.meta.raise_sequence(&peer.to_bytes(), sequence)
    }

    /// Writes everything to disk and fsyncs it. The store accepts nothing afterwards.
    ///
    /// # Errors
    /// The first error; the other parts are still closed.
    pub async fn close(&self) -> Result<(), StoreError> {
        let store = self.clone();
        blocking(move || store.close_blocking()).await
    }

    /// Closes the store like [`Store::close`], for threads.
    fn close_blocking(&self) -> Result<(), StoreError> {
        let records = self.records.close();
        let provided = self.provided.flush(true);
        // The supervisor ends only now, because the flushes above may need it: it wakes those that sled left waiting.
        if let Some(supervisor) = &self.opened.supervisor {
            supervisor.end();
        }
        records.and(provided)
    }

    /// Writes everything accepted so far to disk and fsyncs it. Exports own CIDs and routing tables when an export is
    /// due.
    ///
    /// # Errors
    /// The first error; the other parts are still flushed.
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

/// Lowers the floor to what survived, so that the next open does not report the same loss again.
fn lower_floor(node: &NodeDb, log: &Log, last_seen: u32) -> Result<(), StoreError> {
    node.meta.set_floor(&Floor { chunks: None, oldest: log.oldest(), newest: log.newest(), last_seen })?;
    node.flush()
}

/// Takes the migration steps that the databases need, after an export of own CIDs and routing tables.
fn migrate(node: &NodeDb, log: &Log, provided: &provided::Provided, read_only: bool) -> Result<(), StoreError> {
    let found = node.meta.schema();
    if found == Some(SCHEMA) {
        return Ok(());
    }
    if let Some(found) = found.filter(|_| !read_only) {
        tracing::info!(from = found, to = SCHEMA, "exporting own CIDs, then migrating the databases");
        provided.export()?;
    }
    // The version may be lost; then every step is taken.
    for step in schema::needed(found.unwrap_or(1)) {
        let done = step.take(log)?;
        if found.is_some() {
            tracing::info!("{done}");
        }
    }
    node.meta.set_schema(SCHEMA)?;
    node.flush()
}
