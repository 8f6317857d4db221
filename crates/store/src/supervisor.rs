//! The thread that looks after the disk: it measures it, warns when space runs out, and opens a database again after its disk
//! has failed.
//!
//! A degraded database accepts nothing, and memory is served. Every second the disk is probed: there must be more free
//! than the reserve, and a small file must be written, fsynced and removed. Then the handle is dropped, the database is
//! opened anew where it is and compared with its floor as at a start, what was accepted but is not known to be on disk
//! is written, flushed, and announcements are taken again. What fails is tried again, less and less often.

use super::{
    SCHEMA, StoreError,
    database::Database,
    databases::{node_contents, node_dir, records_contents, records_dir},
    engine::panic_text,
    filesystem::io_error,
    jobs::JobLog,
    meta::NodeDb,
    provided::Provided,
    records::{RecordsState, rewrite},
    recovery::{Contents, DatabaseDir},
    routing::RoutingState,
    values::Values,
};
use crate::clock::Clock;
use parking_lot::{Condvar, Mutex};
use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

/// Between two looks.
const TICK: Duration = Duration::from_secs(1);
/// The data directory is measured every so many looks.
const MEASURE_EVERY: u64 = 2;
/// Looks between two tries to open a database anew: one at first, twice as many each time, at most so many.
const MOST_TICKS: u64 = 60;
/// Tries that find damage before it is believed, and recovered from as at a start (the database is set aside): half a
/// minute. Errors of the disk are never taken for damage.
const BELIEVED: u32 = 5;
/// A database that worked for so many looks after it was opened anew is whole.
const CALM_TICKS: u64 = 60;
/// The file by which the disk is probed, in the data directory, and its bytes.
const PROBE: &str = "probe";
const PROBE_BYTES: usize = 4096;

/// What it looks after.
#[derive(Debug)]
pub struct Supervised {
    pub dir: PathBuf,
    pub ttl: Duration,
    pub clock: Arc<dyn Clock>,
    pub records: Arc<RecordsState>,
    pub values: Values,
    pub node: NodeDb,
    pub provided: Provided,
    pub routing: RoutingState,
    pub jobs: JobLog,
}

/// The thread; it ends with this.
#[derive(Debug)]
pub struct Supervisor {
    stop: Arc<Stop>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Stop {
    stop: Mutex<bool>,
    told: Condvar,
}

impl Supervisor {
    /// Starts it.
    ///
    /// # Errors
    /// [`StoreError::Database`] if there is no thread.
    pub fn start(supervised: Supervised) -> Result<Self, StoreError> {
        let stop = Arc::new(Stop::default());
        let told = stop.clone();
        let thread = thread::Builder::new()
            .name("disk".into())
            .spawn(move || {
                // Without it nothing is flushed: after a panic it begins again.
                while let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&supervised, &told))) {
                    tracing::error!(
                        panic = panic_text(panic.as_ref()),
                        "the thread that looks after the disk panicked"
                    );
                    thread::sleep(TICK);
                }
            })
            .map_err(|e| StoreError::Database(format!("cannot start the thread that looks after the disk: {e}")))?;
        Ok(Self { stop, thread: Mutex::new(Some(thread)) })
    }

    /// Ends it.
    pub fn end(&self) {
        *self.stop.stop.lock() = true;
        self.stop.told.notify_all();
        if let Some(thread) = self.thread.lock().take() {
            // What it panicked with has been logged by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.end();
    }
}

/// When a database is tried again.
#[derive(Debug, Default)]
struct Patience {
    /// Tries since it was well.
    tries: u32,
    /// ... of which found damage.
    damaged: u32,
    next: u64,
    well_since: u64,
    flushes: u64,
}

fn run(supervised: &Supervised, stop: &Stop) {
    let (mut records, mut node) = (Patience::default(), Patience::default());
    let mut crowded = false;
    let mut tick = 0;
    loop {
        tick += 1;
        let stopped = {
            let mut stopped = stop.stop.lock();
            stop.told.wait_while_for(&mut stopped, |stopped| !*stopped, TICK);
            *stopped
        };
        if stopped {
            return;
        }
        supervised.records.disk.look();
        if tick % MEASURE_EVERY == 0 {
            supervised.records.disk.measure();
        }
        let was_crowded = std::mem::replace(&mut crowded, supervised.records.is_crowded());
        if crowded && !was_crowded {
            tracing::warn!(
                records = supervised.records.index.len(),
                "nine tenths of records.max: soon the farthest are dropped"
            );
        }
        // node/ first: it has the floor of the other.
        node.look(tick, supervised, &supervised.node.database, Supervised::reopen_node);
        records.look(tick, supervised, &supervised.records.log.database, Supervised::reopen_records);
    }
}

impl Patience {
    fn look<const N: usize>(
        &mut self,
        tick: u64,
        supervised: &Supervised,
        database: &Database<N>,
        reopen: fn(&Supervised, believed: bool) -> Result<Reopened, StoreError>,
    ) {
        if !database.health.is_degraded() {
            self.flushes = database.wake(self.flushes);
            if tick.saturating_sub(self.well_since) >= CALM_TICKS {
                (self.tries, self.damaged) = (0, 0);
            }
            return;
        }
        if tick < self.next || !supervised.disk_works() {
            return;
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| reopen(supervised, self.damaged >= BELIEVED)));
        let outcome = outcome.unwrap_or_else(|panic| Err(StoreError::Database(panic_text(panic.as_ref()))));
        self.next = tick.saturating_add((1 << self.tries.min(16)).min(MOST_TICKS));
        self.tries = self.tries.saturating_add(1);
        match outcome {
            Ok(Reopened::Whole) => {
                self.well_since = tick;
                database.set_reopened();
                // Of records/; the other has no queue.
                if !supervised.records.health().is_degraded() {
                    supervised.records.pending.resume();
                }
            }
            Ok(Reopened::Damaged(why)) => {
                self.damaged += 1;
                tracing::error!(why, "a database cannot be opened anew: it is damaged");
            }
            Err(error) => tracing::warn!(%error, "a database cannot be opened anew yet"),
        }
    }
}

/// What became of a try.
#[derive(Debug)]
enum Reopened {
    /// It has everything that was accepted.
    Whole,
    /// Why it was left as it is.
    Damaged(String),
}

impl Supervised {
    /// Whether the file system of the data directory takes and keeps a small file.
    fn disk_works(&self) -> bool {
        self.records.disk.look();
        if self.records.disk.is_short() {
            return false;
        }
        let outcome = probe(&self.dir.join(PROBE));
        if let Err(error) = &outcome {
            tracing::debug!(%error, "the disk does not work yet");
        }
        outcome.is_ok()
    }

    fn reopen_records(&self, believed: bool) -> Result<Reopened, StoreError> {
        let now = self.clock.wall();
        let contents = records_contents(now, self.node.meta.floor(), self.ttl);
        let database = &self.records.log.database;
        let lossy = match self.reopen(database, &records_dir(&self.dir, now), &contents, believed)? {
            Ok(lossy) => lossy,
            Err(why) => return Ok(Reopened::Damaged(why)),
        };
        rewrite::run(&self.records, lossy)?;
        self.values.write_anew()?;
        self.records.flush_log()?;
        Ok(Reopened::Whole)
    }

    fn reopen_node(&self, believed: bool) -> Result<Reopened, StoreError> {
        let dir = node_dir(&self.dir, self.clock.wall());
        let lossy = match self.reopen(&self.node.database, &dir, &node_contents(&self.dir), believed)? {
            Ok(lossy) => lossy,
            Err(why) => return Ok(Reopened::Damaged(why)),
        };
        self.node.meta.set_schema(SCHEMA)?;
        self.routing.write_anew()?;
        self.jobs.write_anew()?;
        self.provided.write_anew(lossy)?;
        Ok(Reopened::Whole)
    }

    /// Opens it anew; whether less was found than there was. The inner error is damage that is not believed yet.
    fn reopen<const N: usize>(
        &self,
        database: &Database<N>,
        dir: &DatabaseDir<'_>,
        contents: &dyn Fn(&sled::Db) -> Contents,
        believed: bool,
    ) -> Result<Result<bool, String>, StoreError> {
        let (mut notes, mut damage) = (Vec::new(), None);
        let outcome = database.replace(|| match believed {
            true => {
                let opened = dir.open(contents)?;
                notes = opened.notes;
                Ok(opened.db)
            }
            false => dir.open_again(contents)?.map_err(|why| {
                damage = Some(why.clone());
                StoreError::Database(why)
            }),
        });
        if let Some(why) = damage {
            return Ok(Err(why));
        }
        outcome?;
        let lossy = !notes.is_empty();
        notes.into_iter().for_each(|note| self.records.damaged(note));
        Ok(Ok(lossy))
    }
}

fn probe(path: &Path) -> Result<(), StoreError> {
    let written =
        OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path).and_then(|mut file| {
            file.write_all(&[0; PROBE_BYTES])?;
            file.sync_all()
        });
    let removed = fs::remove_file(path);
    written.and(removed).map_err(|e| io_error("write", path, e))
}
