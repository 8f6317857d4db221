//! Opening a sled database that may be damaged.
//!
//! What was seen of sled 0.34 (figures in docs/decisions/sled.md): a `snap.*.generating` left by a kill makes it
//! refuse an intact database; a flipped bit makes it panic in open; and on a damaged database, deleting `snap.*` and
//! trying again may open it *with no rows and no error, cutting the file*. So:
//! - `snap.*.generating` goes first;
//! - sled runs in a thread whose panic is caught;
//! - what failed once is never tried again: a copy without `snap.*` is. If it opens, it takes the place of the
//!   original, which is kept aside as `<name>.damaged-<time>`; if not, an empty database does;
//! - and what opens is compared with what it should hold.

use super::{
    StoreError,
    engine::{guard, panic_text},
    filesystem::{copy_dir, io_error, is_there, sync_dir},
};
use crate::clock::UnixTime;
use std::{fs, io, path::Path, path::PathBuf, thread, time::Duration};

/// Damaged originals kept of each database: they are for a person to look at, and may be large.
const KEEP_DAMAGED: usize = 2;
/// How often a database that is still held is tried again, and how long after: threads of sled may keep one that was
/// dropped for a moment, and nobody else has the data directory.
const TRIES: u32 = 40;
const TRY_AGAIN: Duration = Duration::from_millis(50);
/// sled writes behind by at most this, in milliseconds; its default, named because records may be lost for so long.
const FLUSH_EVERY_MS: u64 = 500;

/// What a database holds, compared with what it should.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Contents {
    /// All that was promised.
    Complete,
    /// Less, but something; what is missing.
    Less(String),
    /// Nothing, though something was promised.
    Nothing(String),
}

/// An open database, and what had to be done to it.
#[derive(Debug)]
pub struct Opened {
    /// The database.
    pub db: sled::Db,
    /// Loud, in plain words.
    pub notes: Vec<String>,
    /// It does not hold what it should.
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
    /// For the names of what is set aside.
    pub now: UnixTime,
}

/// Why sled did not open a database.
#[derive(Debug)]
enum Failure {
    /// The disk, rights, a lock: the database may be whole.
    Environment(StoreError),
    /// It cannot be read here and now, or not any more.
    Disk(io::Error),
    Damage(String),
}

impl DatabaseDir<'_> {
    /// Opens or creates the database; recovers it from damage.
    ///
    /// # Errors
    /// [`StoreError::Io`] and [`StoreError::Database`] when the disk, rights or a lock stand in the way. Damage is
    /// not an error.
    pub fn open(&self, contents: &dyn Fn(&sled::Db) -> Contents) -> Result<Opened, StoreError> {
        let dir = self.dir();
        let copy = self.copy_dir();
        // A crash between the two renames of `replace`: the copy was good.
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

    /// Opens a database that was open a moment ago, before its disk failed, and changes nothing if it is not as it
    /// should be: what cannot be read now may be readable soon. The inner error is damage, if there is no doubt.
    ///
    /// # Errors
    /// As [`DatabaseDir::open`], and all errors of the disk.
    pub fn open_again(&self, contents: &dyn Fn(&sled::Db) -> Contents) -> Result<Result<sled::Db, String>, StoreError> {
        let dir = self.dir();
        // sled would create it.
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
        if check(&db, contents) != Contents::Complete {
            notes.push(format!("{}/ is not there, though it was before; it begins empty", self.name));
        }
        Ok(Opened { db, lossy: !notes.is_empty(), notes })
    }

    /// sled failed on the original.
    fn recover(&self, why: &str, contents: &dyn Fn(&sled::Db) -> Contents) -> Result<Opened, StoreError> {
        tracing::error!(database = self.name, why, "the database is damaged; trying a copy of it");
        let found = self.try_copy(contents);
        match found {
            Ok((db, found @ (Contents::Complete | Contents::Less(_)))) => {
                drop(db);
                let aside = self.replace()?;
                let lost = match &found {
                    Contents::Less(lost) => format!("; {lost}"),
                    _ => "; nothing is missing".to_owned(),
                };
                let note = format!(
                    "{}/ was damaged ({why}) and opened as a copy without its snapshot{lost}; the original is kept as {}",
                    self.name, aside
                );
                self.reopen(note, found != Contents::Complete)
            }
            Ok((db, Contents::Nothing(_))) => {
                drop(db);
                self.start_empty(why, "a copy of it opens empty")
            }
            Err(second) => self.start_empty(why, &format!("so is a copy of it: {second}")),
        }
    }

    /// sled opened the original, but rows are missing. It has been written to by now, and there is no going back;
    /// perhaps its snapshot was to blame.
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
        tracing::error!(database = self.name, why, "the database holds less than it did; trying a copy of it");
        match self.try_copy(contents) {
            Ok((copy, Contents::Complete)) => {
                drop(copy);
                let aside = self.replace()?;
                let note = format!(
                    "{}/ opened with less than it held ({why}); a copy without its snapshot has all; the original is kept as {}",
                    self.name, aside
                );
                self.reopen(note, false)
            }
            _ if matches!(found, Contents::Less(_)) => {
                remove_all(&self.copy_dir())?;
                self.reopen(format!("{}/ holds less than it did: {why}", self.name), true)
            }
            _ => self.start_empty(why, "so does a copy of it"),
        }
    }

    /// Opens a copy without `snap.*`, and without `conf`, which sled makes again from our settings, always the same.
    fn try_copy(&self, contents: &dyn Fn(&sled::Db) -> Contents) -> Result<(sled::Db, Contents), String> {
        let copy = self.copy_dir();
        copy_dir(&self.dir(), &copy, &|name| !name.starts_with("snap.") && name != "conf")
            .map_err(|e| e.to_string())?;
        let db = self.try_open(&copy).map_err(|e| e.into_error().to_string())?;
        let found = check(&db, contents);
        Ok((db, found))
    }

    /// The copy takes the place of the original. The name of that now.
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
            format!("{}/ is damaged beyond repair ({why}; {and}); it is kept as {} and begins empty", self.name, aside);
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

    /// Renames the original; of those before it only the newest stay.
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
        // Twice in one second, or under a clock that was set back.
        let mut n = 1;
        while is_there(&aside)? {
            aside = self.parent.join(format!("{prefix}{:010}-{n}", self.now.0));
            n += 1;
        }
        rename(&self.dir(), &aside)?;
        Ok(aside.file_name().unwrap_or_default().to_string_lossy().into_owned())
    }

    /// Opens a directory that may be held for a moment still.
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

    /// sled's open, in a thread of its own.
    fn try_open_once(&self, dir: &Path) -> Result<sled::Db, Failure> {
        let config = sled::Config::new().path(dir).cache_capacity(self.cache).flush_every_ms(Some(FLUSH_EVERY_MS));
        let opened = thread::Builder::new()
            .name("sled-open".into())
            .spawn(move || config.open())
            .map_err(|e| Failure::Environment(StoreError::Database(format!("cannot start a thread: {e}"))))?
            .join();
        match opened {
            Ok(Ok(db)) => Ok(db),
            Ok(Err(error)) => Err(classify(dir, error)),
            Err(panic) => Err(Failure::Damage(format!("sled panicked: {}", panic_text(panic.as_ref())))),
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
            Failure::Disk(error) => StoreError::Database(sled::Error::Io(error).to_string()),
            Failure::Damage(why) => StoreError::Database(why),
        }
    }
}

/// A database is not damaged because the disk is full.
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
        // `Unsupported` among them: a damaged `conf` reads like one of another version of sled.
        other => Failure::Damage(other.to_string()),
    }
}

/// What a database holds; one that cannot even tell holds nothing.
fn check(db: &sled::Db, contents: &dyn Fn(&sled::Db) -> Contents) -> Contents {
    guard(|| Ok(contents(db))).unwrap_or_else(|e| Contents::Nothing(e.to_string()))
}

/// A kill while sled writes its snapshot leaves one of these, and sled then refuses the database, which is whole.
fn remove_unfinished_snapshots(dir: &Path) -> Result<(), StoreError> {
    for entry in fs::read_dir(dir).map_err(|e| io_error("read", dir, e))?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path()).map_err(|e| io_error("remove", &entry.path(), e))?;
            tracing::info!(file = %entry.path().display(), "removed a snapshot that was never finished");
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
