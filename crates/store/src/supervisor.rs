//! The thread that supervises the disk. It measures free space, warns when little is left, and reopens a database after
//! its disk has failed.
//!
//! A degraded database accepts nothing; reads are answered from memory. Every second the disk is probed: more than the
//! reserve must be free, and a small file must be written, fsynced and removed. Then the handle is dropped, and the
//! database is reopened and compared with its floor, as at a start. Data that was accepted, but is not known to be on
//! disk, is written and flushed. Then announcements are accepted again. After a failure the time to the next attempt
//! doubles, up to a limit.

use super::{
    SCHEMA, StoreError,
    database::Database,
    databases::{node_contents, node_dir, records_contents, records_dir},
    engine::panic_text,
    error::Cause,
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

/// Time between two looks at the disk.
const TICK: Duration = Duration::from_secs(1);
/// Number of looks between two measurements of the data directory.
const MEASURE_EVERY: u64 = 2;
/// Maximum number of looks between two attempts to reopen a database. The number begins at one and doubles after each
/// attempt.
const MOST_TICKS: u64 = 60;
/// Number of attempts that must find damage before the database is recovered as at a start, which sets the damaged one
/// aside. These attempts take half a minute. Errors of the disk never count as damage.
const BELIEVED: u32 = 5;
/// Number of looks without a failure after which a reopened database counts as whole.
const CALM_TICKS: u64 = 60;
/// The file that probes the disk, in the data directory, and its size in bytes.
const PROBE: &str = "probe";
const PROBE_BYTES: usize = 4096;

/// What the thread supervises.
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

/// The thread. It ends when this is dropped.
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
    /// Starts the thread.
    ///
    /// # Errors
    /// [`StoreError::Database`] if the thread cannot be started.
    pub fn start(supervised: Supervised) -> Result<Self, StoreError> {
        let stop = Arc::new(Stop::default());
        let told = stop.clone();
        let thread = thread::Builder::new()
            .name("disk".into())
            .spawn(move || {
                // Nothing is flushed without this thread, so it starts again after a panic.
                while let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&supervised, &told))) {
                    tracing::error!(
                        panic = panic_text(panic.as_ref()),
                        "the thread that supervises the disk panicked; it starts again"
                    );
                    thread::sleep(TICK);
                }
            })
            .map_err(|e| StoreError::database("cannot start the thread that looks after the disk", e))?;
        Ok(Self { stop, thread: Mutex::new(Some(thread)) })
    }

    /// Ends the thread.
    pub fn end(&self) {
        *self.stop.stop.lock() = true;
        self.stop.told.notify_all();
        if let Some(thread) = self.thread.lock().take() {
            // The panic hook has logged what it panicked with.
            let _ = thread.join();
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.end();
    }
}

/// When to try again to reopen a database.
#[derive(Debug, Default)]
struct Patience {
    /// Attempts since the database last worked.
    tries: u32,
    /// Those of these attempts that found damage.
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
                "nine tenths of records.max are in use; at the limit the records farthest from this node are dropped"
            );
        }
        // `node/` first: it holds the floor of `records/`.
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
        let outcome = outcome.unwrap_or_else(|panic| Err(StoreError::Database(panic_text(panic.as_ref()).into())));
        self.next = tick.saturating_add((1 << self.tries.min(16)).min(MOST_TICKS));
        self.tries = self.tries.saturating_add(1);
        match outcome {
            Ok(Reopened::Whole) => {
                self.well_since = tick;
                database.set_reopened();
                // Only `records/` has a queue.
                if !supervised.records.health().is_degraded() {
                    supervised.records.pending.resume();
                }
            }
            Ok(Reopened::Damaged(why)) => {
                self.damaged += 1;
                tracing::error!(%why, "cannot reopen a database: it is damaged");
            }
            Err(error) => tracing::warn!(%error, "cannot reopen a database yet; dhtstore tries again"),
        }
    }
}

/// Result of an attempt to reopen a database.
#[derive(Debug)]
enum Reopened {
    /// It holds everything that was accepted.
    Whole,
    /// It is damaged, and was left as it is.
    Damaged(Cause),
}

impl Supervised {
    /// Returns whether the file system of the data directory takes and keeps a small file.
    fn disk_works(&self) -> bool {
        self.records.disk.look();
        if self.records.disk.is_short() {
            return false;
        }
        let outcome = probe(&self.dir.join(PROBE));
        if let Err(error) = &outcome {
            tracing::debug!(%error, "the disk still fails");
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

    /// Reopens a database. Returns whether it holds less than before. The inner error is damage that has not been found
    /// often enough to act on it.
    fn reopen<const N: usize>(
        &self,
        database: &Database<N>,
        dir: &DatabaseDir<'_>,
        contents: &dyn Fn(&sled::Db) -> Contents,
        believed: bool,
    ) -> Result<Result<bool, Cause>, StoreError> {
        let (mut notes, mut damage) = (Vec::new(), None);
        let outcome = database.replace(|| match believed {
            true => {
                let opened = dir.open(contents)?;
                notes = opened.notes;
                Ok(opened.db)
            }
            false => dir.open_again(contents)?.map_err(|why| {
                damage = Some(why);
                StoreError::Database("it is damaged".into())
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
