//! A sled database that can be opened anew while others use it.
//!
//! sled 0.34 keeps the first IO error of a write and fails every write from then on, until the database is opened anew;
//! an error of its background fsync it only prints. So whoever works with a tree asks here for each call, nobody keeps a
//! handle, and a flush is sled's followed by a sync of our own (`store/sled_files.rs`). After an error the database is *degraded*: nothing is
//! accepted, memory is served, and the supervisor takes it from there.

use super::{
    StoreError,
    engine::{Numbered, Rows, guard},
    health::Health,
    sled_files::SledFiles,
};
use arc_swap::ArcSwapOption;
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

/// Calls under way end within this, or the database is not opened anew this time.
const CALLS_END: Duration = Duration::from_secs(10);
/// Between two writes that wake a flush of a handle that is to end.
const WAKE_EVERY: Duration = Duration::from_millis(500);
/// The row that [`Database::wake`] writes, in the first tree.
const WAKE: &str = "wake";
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// See the module. It has `TREES` trees, known by their place among the names.
#[derive(Debug)]
pub struct Database<const TREES: usize> {
    /// How it is doing.
    pub health: Health,
    dir: PathBuf,
    names: [&'static str; TREES],
    /// `None` between two opens.
    open: ArcSwapOption<Open<TREES>>,
    /// Flushes that have begun, and those that have ended: see [`Database::wake`].
    begun: AtomicU64,
    ended: AtomicU64,
}

#[derive(Debug)]
struct Open<const TREES: usize> {
    trees: [sled::Tree; TREES],
    db: sled::Db,
    files: SledFiles,
}

impl<const TREES: usize> Open<TREES> {
    fn new(db: sled::Db, dir: &Path, names: [&str; TREES]) -> Result<Self, StoreError> {
        let trees = names.map(|name| guard(|| db.open_tree(name)));
        let mut failed = None;
        let trees = trees.map(|tree| tree.map_err(|error| failed = Some(error)).ok());
        let files = SledFiles::open(dir)?;
        if let Some(error) = failed {
            return Err(error);
        }
        // None is missing: an error would have been kept.
        let trees = trees.map(|tree| tree.unwrap_or_else(|| (*db).clone()));
        Ok(Self { trees, db, files })
    }
}

impl<const TREES: usize> Database<TREES> {
    /// The database `db`, which lies in `dir`.
    ///
    /// # Errors
    /// [`StoreError::Database`] if a tree cannot be opened.
    pub fn new(db: sled::Db, dir: PathBuf, names: [&'static str; TREES]) -> Result<Self, StoreError> {
        let open = Open::new(db, &dir, names)?;
        Ok(Self {
            health: Health::default(),
            open: ArcSwapOption::from_pointee(open),
            names,
            dir,
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        })
    }

    /// Reads from a tree. A failure is one of the place that was read.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Degraded`] while the database is opened anew.
    pub fn read<T>(&self, tree: usize, call: impl FnOnce(&sled::Tree) -> sled::Result<T>) -> Result<T, StoreError> {
        let open = self.open()?;
        guard(|| call(&open.trees[tree]))
    }

    /// Writes to a tree. After a failure the database is degraded.
    ///
    /// # Errors
    /// As [`Database::read`].
    pub fn write<T>(&self, tree: usize, call: impl FnOnce(&sled::Tree) -> sled::Result<T>) -> Result<T, StoreError> {
        self.read(tree, call).inspect_err(|error| self.fault(error))
    }

    /// Everything written before to disk, fsynced. After a failure the database is degraded.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Io`], [`StoreError::Degraded`].
    pub fn flush(&self) -> Result<(), StoreError> {
        self.flush_with(|open| open.files.sync())
    }

    /// Everything written before to the file, in order. After a power cut later rows are never there without earlier ones,
    /// but the last of both may be missing. After a failure the database is degraded.
    ///
    /// # Errors
    /// As [`Database::read`].
    pub fn write_out(&self) -> Result<(), StoreError> {
        self.flush_with(|_| Ok(()))
    }

    fn flush_with(&self, sync: impl FnOnce(&Open<TREES>) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let open = self.open()?;
        self.begun.fetch_add(1, Ordering::AcqRel);
        let outcome = guard(|| open.db.flush());
        self.ended.fetch_add(1, Ordering::AcqRel);
        outcome.and_then(|_| sync(&open)).inspect_err(|error| self.fault(error))
    }

    /// A write has failed: nothing is accepted until the database was opened anew.
    pub fn fault(&self, error: &StoreError) {
        self.health.fault(&self.dir, error);
    }

    /// It was opened anew, and has everything that was accepted.
    pub fn set_reopened(&self) {
        self.health.set_reopened(&self.dir);
    }

    /// Bytes of its files; 0 if they cannot be told.
    pub fn bytes(&self) -> u64 {
        self.open().and_then(|open| guard(|| open.db.size_on_disk())).unwrap_or(0)
    }

    /// For the supervisor, again and again: sled may leave a flush waiting after an error that it met elsewhere; any
    /// write wakes it. `seen` is what this returned before.
    pub fn wake(&self, seen: u64) -> u64 {
        let ended = self.ended.load(Ordering::Acquire);
        if self.begun.load(Ordering::Acquire) > ended && seen == ended {
            let _ = self.write(0, |tree| tree.insert(WAKE, &[]));
        }
        ended
    }

    /// Drops the handle and takes another, once all calls under way have ended.
    ///
    /// # Errors
    /// Those of `open`: then there is none, and this is to be called again. [`StoreError::Database`] if calls do not
    /// end, or sled does not.
    pub fn replace(&self, open: impl FnOnce() -> Result<sled::Db, StoreError>) -> Result<(), StoreError> {
        if let Some(old) = self.open.swap(None) {
            self.drop_when_idle(old)?;
        }
        self.forget_what_was_not_written();
        let db = open()?;
        self.open.store(Some(Arc::new(Open::new(db, &self.dir, self.names)?)));
        Ok(())
    }

    /// Of pages that it failed to write the kernel keeps the content and forgets that the disk has another: what is
    /// read from here on is what the disk has.
    fn forget_what_was_not_written(&self) {
        if let Ok(file) = File::open(self.dir.join("db"))
            && let Err(error) = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
        {
            tracing::debug!(%error, "the kernel may not know what is on the disk");
        }
    }

    fn drop_when_idle(&self, mut old: Arc<Open<TREES>>) -> Result<(), StoreError> {
        let mut waited = Duration::ZERO;
        let old = loop {
            old = match Arc::try_unwrap(old) {
                Ok(old) => break old,
                Err(shared) => shared,
            };
            if waited >= CALLS_END {
                self.open.store(Some(old));
                return Err(StoreError::Database("calls into sled do not end".into()));
            }
            thread::sleep(LOOK_EVERY);
            waited += LOOK_EVERY;
        };
        let_go(old)
    }

    fn open(&self) -> Result<Arc<Open<TREES>>, StoreError> {
        self.open.load_full().ok_or_else(|| StoreError::Degraded(self.dir.clone()))
    }
}

impl<const TREES: usize> Drop for Database<TREES> {
    fn drop(&mut self) {
        let Some(Ok(open)) = self.open.swap(None).map(Arc::try_unwrap) else { return };
        if let Err(error) = let_go(open) {
            tracing::error!(%error, "{} is left open", self.dir.display());
        }
    }
}

/// Ends a handle. sled flushes when it is dropped, and after an error of the disk waits for ever then, unless another
/// write comes by. So it is flushed before, in a thread, and written to until that has ended: with or without an error,
/// nothing waits afterwards.
fn let_go<const TREES: usize>(open: Open<TREES>) -> Result<(), StoreError> {
    let waker = open.trees[0].clone();
    let (flushed, has_flushed) = mpsc::sync_channel(1);
    let (give_waker, take_waker) = mpsc::sync_channel::<sled::Tree>(1);
    let (done, is_done) = mpsc::sync_channel(1);
    let end = move || {
        // It is known to have failed, or there is nothing more to do about it.
        let _ = guard(|| open.db.flush());
        let _ = flushed.send(());
        let waker = take_waker.recv();
        drop(open);
        drop(waker);
        let _ = done.send(());
    };
    thread::Builder::new()
        .name("sled-drop".into())
        .spawn(end)
        .map_err(|e| StoreError::Database(format!("cannot start a thread: {e}")))?;
    let stuck = || StoreError::Database("sled does not let go of its file".into());
    let mut waited = Duration::ZERO;
    while has_flushed.recv_timeout(WAKE_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
        waited += WAKE_EVERY;
        if waited >= CALLS_END {
            return Err(stuck());
        }
        let _ = guard(|| waker.insert(WAKE, &[]));
    }
    let _ = give_waker.send(waker);
    match is_done.recv_timeout(CALLS_END) {
        // It panicked, which the panic hook has told: the handle is gone all the same.
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => Ok(()),
        Err(mpsc::RecvTimeoutError::Timeout) => Err(stuck()),
    }
}

/// A tree of numbered rows ([`Numbered`]) of a database, for walks that may outlast a handle.
#[derive(Debug)]
pub struct NumberedIn<'a, const WIDTH: usize, const TREES: usize> {
    /// Where it is.
    pub database: &'a Database<TREES>,
    /// Which tree.
    pub tree: usize,
}

impl<const WIDTH: usize, const TREES: usize> Rows for NumberedIn<'_, WIDTH, TREES> {
    type Value = sled::IVec;

    fn first(&self, from: u64, to: u64) -> Result<Option<(u64, sled::IVec)>, StoreError> {
        Numbered::<WIDTH>(self.database.read(self.tree, |tree| Ok(tree.clone()))?).first(from, to)
    }

    fn last(&self, from: u64, to: u64) -> Result<Option<(u64, sled::IVec)>, StoreError> {
        Numbered::<WIDTH>(self.database.read(self.tree, |tree| Ok(tree.clone()))?).last(from, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn database(dir: &Path) -> Database<2> {
        Database::new(sled::open(dir).unwrap(), dir.to_owned(), ["one", "two"]).unwrap()
    }

    #[test]
    fn a_database_is_replaced_under_its_users() {
        let tmp = tempfile::tempdir().unwrap();
        let database = database(tmp.path());
        database.write(1, |tree| tree.insert("a", "1")).unwrap();
        database.flush().unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let readers = [0, 1].map(|_| {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        match database.read(1, |tree| tree.get("a")) {
                            Ok(row) => assert_eq!(row.unwrap(), "1"),
                            Err(error) => assert!(matches!(error, StoreError::Degraded(_)), "{error}"),
                        }
                    }
                })
            });
            for _ in 0..5 {
                database.replace(|| Ok(sled::open(tmp.path()).unwrap())).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
            readers.into_iter().for_each(|reader| reader.join().unwrap());
        });
        assert_eq!(database.read(1, |tree| tree.get("a")).unwrap().unwrap(), "1");
    }

    #[test]
    fn a_failed_write_degrades_it_and_a_failed_open_leaves_it_so() {
        let tmp = tempfile::tempdir().unwrap();
        let database = database(tmp.path());
        assert!(database.read::<()>(0, |_| Err(sled::Error::ReportableBug("read".into()))).is_err());
        assert!(!database.health.is_degraded(), "a place that cannot be read is walked around");
        assert!(database.write::<()>(0, |_| panic!("page 7")).is_err());
        assert!(database.health.note("records").unwrap().contains("page 7"));
        assert!(database.replace(|| Err(StoreError::Database("still".into()))).is_err());
        assert!(matches!(database.flush(), Err(StoreError::Degraded(_))));
        database.replace(|| Ok(sled::open(tmp.path()).unwrap())).unwrap();
        database.set_reopened();
        database.flush().unwrap();
        assert_eq!((database.health.note("records"), database.health.reopened()), (None, 1));
    }
}
