//! Opens a sled database that may be damaged.
//!
//! sled 0.34 was seen to do the following (figures in docs/decisions/sled.md). After a kill that left a
//! `snap.*.generating`, it refuses an intact database. A flipped bit makes it panic in open. On a damaged database,
//! after `snap.*` was deleted, a second attempt may open it *with no rows and no error, cutting the file*. So:
//! - `snap.*.generating` is removed first;
//! - sled runs in a thread whose panic is caught;
//! - a database that failed to open is never opened again. A copy without `snap.*` is tried. If it opens, it takes the
//!   place of the original; otherwise an empty database does. The original is kept as `<name>.damaged-<time>`;
//! - an open database is compared with what it should hold.

use super::{
    StoreError,
    engine::{guard, panic_text},
    error::Cause,
    filesystem::{copy_dir, io_error, is_there, sync_dir},
};
use crate::clock::UnixTime;
use std::{fs, io, path::Path, path::PathBuf, thread, time::Duration};

/// Damaged originals that are kept of each database. They are for a person to inspect, and may be large.
const KEEP_DAMAGED: usize = 2;
/// Number of attempts to open a database that is still locked, and the time between two. The lock ends soon: only
/// threads of sled can hold it, for a moment after the database is dropped. No other process uses the data directory.
const TRIES: u32 = 40;
const TRY_AGAIN: Duration = Duration::from_millis(50);
/// Maximum time that sled delays writes, in milliseconds. It is sled's default, named here because it bounds the loss
/// of records.
const FLUSH_EVERY_MS: u64 = 500;

/// What a database holds, compared with what it should hold.
#[derive(Debug)]
pub enum Contents {
    /// Everything that it should hold.
    Complete,
    /// Less than it should hold: what is missing.
    Less(Cause),
    /// Nothing, though it should hold something.
    Nothing(Cause),
}

impl Contents {
    fn is_complete(&self) -> bool {
        matches!(self, Self::Complete)
    }
}

/// An open database, and what recovery did to it.
#[derive(Debug)]
pub struct Opened {
    /// The database.
    pub db: sled::Db,
    /// Notes for the operator on what recovery did.
    pub notes: Vec<String>,
    /// True if it holds less than it should.
    pub lossy: bool,
}

/// One database of a data directory.
#[derive(Debug)]
pub struct DatabaseDir<'a> {
    /// The data directory.
    pub parent: &'a Path,
    /// `records` or `node`.
    pub name: &'static str,
    /// sled's page cache, in bytes.
    pub cache: u64,
    /// Time for the names of databases that are set aside.
    pub now: UnixTime,
}

/// Why sled did not open a database.
#[derive(Debug)]
enum Failure {
    /// The disk, rights or a lock prevent the open; the database may be intact.
    Environment(StoreError),
    /// The disk returned an error. The database may be intact, or may be lost.
    Disk(io::Error),
    Damage(Cause),
}

impl DatabaseDir<'_> {
    /// Opens or creates the database, and recovers it from damage.
    ///
    /// # Errors
    /// [`StoreError::Io`] and [`StoreError::Database`] if the disk, rights or a lock prevent the open. Damage is not an
    /// error.
    pub fn open(&self, contents: &dyn Fn(&sled::Db) -> Contents) -> Result<Opened, StoreError> {
        let dir = self.dir();
        let copy = self.copy_dir();
        // A crash between the two renames of `replace`; the copy is intact.
        if !is_there(&dir)? && is_there(&copy)? {
            rename(&copy, &dir)?;
        }
        remove_all(&copy)?;
        if !is_there(&dir)? {
            return self.open_fresh(contents);
        }
        remove_unfinished_snapshots(&dir)?;
        match self.try_open(&dir) {
            Err(Failure::Environment(e)) => Err(e),
            Err(failure @ (Failure::Damage(_) | Failure::Disk(_))) => {
                self.recover(&failure.into_error().to_string(), contents)
            }
            Ok(db) => match check(&db, contents) {
                Contents::Complete => Ok(Opened { db, notes: Vec::new(), lossy: false }),
                less => self.recover_opened(db, less, contents),
            },
        }
    }

    /// Opens a database that was open before its disk failed. Changes nothing if it is damaged or incomplete: what
    /// cannot be read now may be readable soon. The inner error is damage, found without an error of the disk.
    ///
    /// # Errors
    /// As for [`DatabaseDir::open`], and all errors of the disk.
    pub fn open_again(&self, contents: &dyn Fn(&sled::Db) -> Contents) -> Result<Result<sled::Db, Cause>, StoreError> {
        let dir = self.dir();
        // Checked first, since sled would create a missing database.
        fs::metadata(dir.join("db")).map_err(|e| io_error("open", &dir, e))?;
        remove_unfinished_snapshots(&dir)?;
        match self.try_open(&dir) {
            Ok(db) => match check(&db, contents) {
                Contents::Complete => Ok(Ok(db)),
                Contents::Less(why) | Contents::Nothing(why) => Ok(Err(why)),
            },
            Err(Failure::Environment(error)) => Err(error),
            Err(Failure::Disk(error)) => Err(io_error("open", &dir, error)),
            Err(Failure::Damage(why)) => Ok(Err(why)),
        }
    }

    fn open_fresh(&self, contents: &dyn Fn(&sled::Db) -> Contents) -> Result<Opened, StoreError> {
        let db = self.try_open(&self.dir()).map_err(Failure::into_error)?;
        let mut notes = Vec::new();
        if !check(&db, contents).is_complete() {
            notes.push(format!("{}/ is missing, though it was there before; it starts empty", self.name));
        }
        Ok(Opened { db, lossy: !notes.is_empty(), notes })
    }

    /// Recovers a database that sled cannot open.
    fn recover(&self, why: &str, contents: &dyn Fn(&sled::Db) -> Contents) -> Result<Opened, StoreError> {
        tracing::error!(database = self.name, why, "the database is damaged; trying a copy of it");
        let found = self.try_copy(contents);
        match found {
            Ok((db, found @ (Contents::Complete | Contents::Less(_)))) => {
                drop(db);
                let aside = self.replace()?;
                let lost = match &found {
                    Contents::Less(lost) => format!("; {lost}"),
                    _ => "; it holds everything".to_owned(),
                };
                let note = format!(
                    "{}/ was damaged ({why}) and opened as a copy without its snapshot{lost}; the original is kept as \
                    {}",
                    self.name, aside
                );
                self.reopen(note, !found.is_complete())
            }
            Ok((db, Contents::Nothing(_))) => {
                drop(db);
                self.start_empty(why, "a copy of it opens empty")
            }
            Err(second) => self.start_empty(why, &format!("so is a copy of it: {second}")),
        }
    }

    /// Recovers a database that sled opened, but with rows missing. sled has written to it by now, so the original
    /// cannot be restored. The snapshot may be the cause, so a copy without it is tried.
    fn recover_opened(
        &self,
        db: sled::Db,
        found: Contents,
        contents: &dyn Fn(&sled::Db) -> Contents,
    ) -> Result<Opened, StoreError> {
        drop(db);
        let (Contents::Less(why) | Contents::Nothing(why)) = &found else {
            return self.reopen(String::new(), false);
        };
        tracing::error!(database = self.name, %why, "the database holds less than it did; trying a copy of it");
        match self.try_copy(contents) {
            Ok((copy, Contents::Complete)) => {
                drop(copy);
                let aside = self.replace()?;
                let note = format!(
                    "{}/ opened with less than it held ({why}); a copy without its snapshot holds everything; the \
                    original is kept as {}",
                    self.name, aside
                );
                self.reopen(note, false)
            }
            _ if matches!(found, Contents::Less(_)) => {
                remove_all(&self.copy_dir())?;
                self.reopen(format!("{}/ holds less than it did: {why}", self.name), true)
            }
            _ => self.start_empty(&why.to_string(), "so does a copy of it"),
        }
    }

    /// Opens a copy without `snap.*`, and without `conf`, which sled makes again from our settings, which never change.
    fn try_copy(&self, contents: &dyn Fn(&sled::Db) -> Contents) -> Result<(sled::Db, Contents), StoreError> {
        let copy = self.copy_dir();
        copy_dir(&self.dir(), &copy, &|name| !name.starts_with("snap.") && name != "conf")?;
        let db = self.try_open(&copy).map_err(Failure::into_error)?;
        let found = check(&db, contents);
        Ok((db, found))
    }

    /// Puts the copy in place of the original. Returns the name under which the original is kept.
    fn replace(&self) -> Result<String, StoreError> {
        let aside = self.set_aside()?;
        rename(&self.copy_dir(), &self.dir())?;
        sync_dir(self.parent)?;
        Ok(aside)
    }

    fn start_empty(&self, why: &str, and: &str) -> Result<Opened, StoreError> {
        remove_all(&self.copy_dir())?;
        let aside = self.set_aside()?;
        sync_dir(self.parent)?;
        let note =
            format!("{}/ is damaged beyond repair ({why}; {and}); it is kept as {} and starts empty", self.name, aside);
        self.reopen(note, true)
    }

    fn reopen(&self, note: String, lossy: bool) -> Result<Opened, StoreError> {
        let notes: Vec<String> = Some(note).filter(|note| !note.is_empty()).into_iter().collect();
        for note in &notes {
            tracing::error!("{note}");
        }
        let db = self.try_open(&self.dir()).map_err(Failure::into_error)?;
        Ok(Opened { db, notes, lossy })
    }

    /// Renames the original. Of those set aside before, only the newest stay.
    fn set_aside(&self) -> Result<String, StoreError> {
        let prefix = format!("{}.damaged-", self.name);
        let mut earlier: Vec<PathBuf> = fs::read_dir(self.parent)
            .map_err(|e| io_error("read", self.parent, e))?
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .map(|entry| entry.path())
            .collect();
        earlier.sort();
        for old in earlier.iter().rev().skip(KEEP_DAMAGED - 1) {
            remove_all(old)?;
        }
        let mut aside = self.parent.join(format!("{prefix}{:010}", self.now.0));
        // The name is taken if this happens twice in one second, or if the clock was set back.
        let mut n = 1;
        while is_there(&aside)? {
            aside = self.parent.join(format!("{prefix}{:010}-{n}", self.now.0));
            n += 1;
        }
        rename(&self.dir(), &aside)?;
        Ok(aside.file_name().unwrap_or_default().to_string_lossy().into_owned())
    }

    /// Opens a directory that may still be locked for a moment.
    fn try_open(&self, dir: &Path) -> Result<sled::Db, Failure> {
        let mut tries = 1;
        loop {
            match self.try_open_once(dir) {
                Err(Failure::Environment(StoreError::Locked(_))) if tries < TRIES => {
                    tries += 1;
                    thread::sleep(TRY_AGAIN);
                }
                outcome => return outcome,
            }
        }
    }

    /// Calls sled's open, in a thread of its own.
    fn try_open_once(&self, dir: &Path) -> Result<sled::Db, Failure> {
        let config = sled::Config::new().path(dir).cache_capacity(self.cache).flush_every_ms(Some(FLUSH_EVERY_MS));
        let opened = thread::Builder::new()
            .name("sled-open".into())
            .spawn(move || config.open())
            .map_err(|e| Failure::Environment(StoreError::database("cannot start a thread", e)))?
            .join();
        match opened {
            Ok(Ok(db)) => Ok(db),
            Ok(Err(error)) => Err(classify(dir, error)),
            Err(panic) => Err(Failure::Damage(format!("sled panicked: {}", panic_text(panic.as_ref())).into())),
        }
    }

    fn dir(&self) -> PathBuf {
        self.parent.join(self.name)
    }

    fn copy_dir(&self) -> PathBuf {
        self.parent.join(format!("{}.recovering", self.name))
    }
}

impl Failure {
    fn into_error(self) -> StoreError {
        match self {
            Failure::Environment(error) => error,
            Failure::Disk(error) => StoreError::Database(sled::Error::Io(error).into()),
            Failure::Damage(why) => StoreError::Database(why),
        }
    }
}

/// Returns what an error of sled's open means. A full disk, for example, does not mean damage.
fn classify(dir: &Path, error: sled::Error) -> Failure {
    use io::ErrorKind::{
        Interrupted, NotFound, OutOfMemory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
        WouldBlock,
    };
    match error {
        sled::Error::Io(e) if e.to_string().contains("could not acquire lock") => {
            Failure::Environment(StoreError::Locked(dir.to_owned()))
        }
        sled::Error::Io(e)
            if matches!(
                e.kind(),
                PermissionDenied
                    | StorageFull
                    | ReadOnlyFilesystem
                    | QuotaExceeded
                    | WouldBlock
                    | OutOfMemory
                    | Interrupted
                    | NotFound
            ) =>
        {
            Failure::Environment(io_error("open", dir, e))
        }
        sled::Error::Io(e) => Failure::Disk(e),
        // Includes `Unsupported`: a damaged `conf` reads like one of another version of sled.
        other => Failure::Damage(other.into()),
    }
}

/// Returns what a database holds. One that cannot be read at all holds nothing.
fn check(db: &sled::Db, contents: &dyn Fn(&sled::Db) -> Contents) -> Contents {
    guard(|| Ok(contents(db))).unwrap_or_else(|e| Contents::Nothing(e.into()))
}

/// Removes snapshots that a kill left unfinished: sled refuses a database with one, though it is intact.
fn remove_unfinished_snapshots(dir: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(dir).map_err(|e| io_error("read", dir, e))?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path()).map_err(|e| io_error("remove", &entry.path(), e))?;
            tracing::info!(file = %entry.path().display(), "removed a snapshot that a kill left unfinished");
        }
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(|e| io_error("rename", from, e))
}

fn remove_all(dir: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", dir, e)),
        _ => Ok(()),
    }
}
