//! A sled database that can be reopened while others use it.
//!
//! sled 0.34 keeps the first IO error of a write, and fails every write from then on until the database is reopened. It
//! prints errors of its background fsync and returns them to no caller. So code that works with a tree asks this type
//! for each call and keeps no handle. A flush runs sled's own flush and then a sync of ours (`sled_files.rs`). After an
//! error the database is *degraded*: it accepts no writes, data in memory is still served, and the supervisor reopens
//! it.

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

/// Time allowed for calls under way to end; after it, the attempt to reopen the database fails.
const CALLS_END: Duration = Duration::from_secs(10);
/// Time between two writes that wake the flush of a handle that is being closed.
const WAKE_EVERY: Duration = Duration::from_millis(500);
/// Key of the row that [`Database::wake`] writes, in the first tree.
const WAKE: &str = "wake";
/// Time between two checks whether calls under way have ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A database of `TREES` trees, addressed by the index of their names. See the module.
#[derive(Debug)]
pub struct Database<const TREES: usize> {
    /// Whether the database takes writes, and how often it failed.
    pub health: Health,
    dir: PathBuf,
    names: [&'static str; TREES],
    /// `None` while the database is being reopened.
    open: ArcSwapOption<Open<TREES>>,
    /// Number of flushes that have begun, and of those that have ended: see [`Database::wake`].
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
        // All are present: an error would have been returned above.
        let trees = trees.map(|tree| tree.unwrap_or_else(|| (*db).clone()));
        Ok(Self { trees, db, files })
    }
}

impl<const TREES: usize> Database<TREES> {
    /// Wraps the database `db`, whose files are in `dir`.
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

    /// Reads from a tree. A failure concerns only the place that was read.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Degraded`] while the database is being reopened.
    pub fn read<T>(&self, tree: usize, call: impl FnOnce(&sled::Tree) -> sled::Result<T>) -> Result<T, StoreError> {
        let open = self.open()?;
        guard(|| call(&open.trees[tree]))
    }

    /// Writes to a tree. A failure degrades the database.
    ///
    /// # Errors
    /// As [`Database::read`].
    pub fn write<T>(&self, tree: usize, call: impl FnOnce(&sled::Tree) -> sled::Result<T>) -> Result<T, StoreError> {
        self.read(tree, call).inspect_err(|error| self.fault(error))
    }

    /// Writes everything to disk and fsyncs it. A failure degrades the database.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Io`], [`StoreError::Degraded`].
    pub fn flush(&self) -> Result<(), StoreError> {
        self.flush_with(|open| open.files.sync())
    }

    /// Writes everything to the file, in order. After a power cut the last rows may be missing, but if a row is
    /// missing, all later ones are missing too. A failure degrades the database.
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

    /// Marks the database as degraded after a failed write: it accepts nothing until it is reopened.
    pub fn fault(&self, error: &StoreError) {
        self.health.fault(&self.dir, error);
    }

    /// Marks the database as working again: it is reopened, and holds everything that was accepted.
    pub fn set_reopened(&self) {
        self.health.set_reopened(&self.dir);
    }

    /// Returns the size of its files in bytes; 0 if it is unknown.
    pub fn bytes(&self) -> u64 {
        self.open().and_then(|open| guard(|| open.db.size_on_disk())).unwrap_or(0)
    }

    /// Wakes a flush that sled left waiting after an error elsewhere: any write wakes it. The supervisor calls this
    /// again and again; `seen` is what it returned before.
    pub fn wake(&self, seen: u64) -> u64 {
        let ended = self.ended.load(Ordering::Acquire);
        if self.begun.load(Ordering::Acquire) > ended && seen == ended {
            let _ = self.write(0, |tree| tree.insert(WAKE, &[]));
        }
        ended
    }

    /// Drops the handle once all calls under way have ended, and opens another.
    ///
    /// # Errors
    /// The errors of `open`; the database has no handle then, and the caller must call this again.
    /// [`StoreError::Database`] if calls under way, or sled itself, do not end.
    pub fn replace(&self, open: impl FnOnce() -> Result<sled::Db, StoreError>) -> Result<(), StoreError> {
        if let Some(old) = self.open.swap(None) {
            self.drop_when_idle(old)?;
        }
        self.forget_what_was_not_written();
        let db = open()?;
        self.open.store(Some(Arc::new(Open::new(db, &self.dir, self.names)?)));
        Ok(())
    }

    /// Drops the kernel's cache of the file, so that later reads return what is on the disk. If the kernel fails to
    /// write pages, it keeps them in its cache as if they were on the disk.
    fn forget_what_was_not_written(&self) {
        if let Ok(file) = File::open(self.dir.join("db"))
            && let Err(error) = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
        {
            tracing::debug!(%error, "cannot drop the kernel's cache of the database; reads may return what the disk \
                does not hold");
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
                return Err(StoreError::Database("calls into sled did not end in time".into()));
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
            tracing::error!(%error, "cannot close {}; its handle stays open until the process ends", self.dir.display());
        }
    }
}

/// Closes a handle. When dropped, sled flushes; after a disk error that flush waits for ever unless another write
/// comes. So the handle is flushed first, in a thread, with writes to wake it until the flush has ended. After that,
/// dropping it does not wait.
fn let_go<const TREES: usize>(open: Open<TREES>) -> Result<(), StoreError> {
    let waker = open.trees[0].clone();
    let (flushed, has_flushed) = mpsc::sync_channel(1);
    let (give_waker, take_waker) = mpsc::sync_channel::<sled::Tree>(1);
    let (done, is_done) = mpsc::sync_channel(1);
    let end = move || {
        // The error is known already, or nothing more can be done about it.
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
        .map_err(|e| StoreError::database("cannot start a thread", e))?;
    let stuck = || StoreError::Database("sled did not close its file in time".into());
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
        // Disconnected: the thread panicked, which the panic hook has logged, and the handle is closed.
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => Ok(()),
        Err(mpsc::RecvTimeoutError::Timeout) => Err(stuck()),
    }
}

/// A tree of numbered rows ([`Numbered`]) of a database, for walks that may outlast a handle.
#[derive(Debug)]
pub struct NumberedIn<'a, const WIDTH: usize, const TREES: usize> {
    /// The database.
    pub database: &'a Database<TREES>,
    /// Index of the tree.
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
