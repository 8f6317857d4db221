//! The lock that one process holds on a data directory.

use super::names::{LOCK, RESTORE};
use crate::{StoreError, filesystem::io_error};
use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// Maximum number of attempts to take the lock, over 2 s. Commands that check whether a server runs share the lock for
/// a moment, and a server that starts at that moment tries again. It never waits for another server.
const TRIES: u32 = 41;
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// An exclusive hold on a data directory, until dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    /// Holds the lock.
    _file: File,
}

impl Lock {
    /// Creates the directory (0700, like its missing parents) and takes the lock.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has it; [`StoreError::Unfinished`] if a restore into it did not
    /// finish; [`StoreError::Io`] if the directory or the lock file cannot be created or written.
    pub fn acquire(dir: &Path) -> Result<Self, StoreError> {
        let lock = Self::acquire_unfinished(dir)?;
        refuse_unfinished(dir)?;
        Ok(lock)
    }

    /// Takes the lock like [`Lock::acquire`], also after a restore that did not finish.
    pub(super) fn acquire_unfinished(dir: &Path) -> Result<Self, StoreError> {
        if !dir.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| io_error("create", dir, e))?;
        }
        let path = dir.join(LOCK);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|e| io_error("open", &path, e))?;
        let mut tries = 1;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { path: dir.to_owned(), _file: file }),
                Err(TryLockError::WouldBlock) if tries < TRIES && only_readers(&file) => {
                    tries += 1;
                    thread::sleep(TRY_AGAIN);
                }
                Err(TryLockError::WouldBlock) => return Err(StoreError::Locked(dir.to_owned())),
                Err(TryLockError::Error(e)) => return Err(io_error("lock", &path, e)),
            }
        }
    }

    /// Returns the data directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Returns whether all holders of the lock share it.
fn only_readers(file: &File) -> bool {
    // Released at once, to delay another server that starts now as little as possible.
    file.try_lock_shared().and_then(|()| file.unlock().map_err(TryLockError::Error)).is_ok()
}

/// Returns whether a process holds the lock. Never creates or writes anything.
pub fn is_locked(dir: &Path) -> bool {
    matches!(share(dir), Err(StoreError::Locked(_)))
}

/// Takes a shared lock, which keeps servers out while the directory of a stopped node is read; `None` if it has no lock
/// file. Never creates or writes anything.
///
/// # Errors
/// [`StoreError::Locked`] if a server has the directory; [`StoreError::Unfinished`] if a restore into it did not
/// finish; [`StoreError::Io`] if the lock file cannot be opened.
pub fn share(dir: &Path) -> Result<Option<File>, StoreError> {
    let path = dir.join(LOCK);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io_error("open", &path, e)),
    };
    match file.try_lock_shared() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::Locked(dir.to_owned())),
        Err(TryLockError::Error(e)) => return Err(io_error("lock", &path, e)),
    }
    refuse_unfinished(dir)?;
    Ok(Some(file))
}

/// Returns an error if a restore into `dir` did not finish. An empty directory is what a kill at the very beginning or
/// end of a restore leaves.
fn refuse_unfinished(dir: &Path) -> Result<(), StoreError> {
    let begun = fs::read_dir(dir.join(RESTORE)).is_ok_and(|mut entries| entries.next().is_some());
    if begun { Err(StoreError::Unfinished(dir.to_owned())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_new_data_directory_is_for_its_owner_only() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("a/b");
        let lock = Lock::acquire(&dir).unwrap();
        assert_eq!(fs::metadata(lock.path()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(dir.join(LOCK)).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_directory_is_locked_by_one_and_free_when_it_is_done() {
        let tmp = tempfile::tempdir().unwrap();
        assert!(!is_locked(tmp.path()));
        let lock = Lock::acquire(tmp.path()).unwrap();
        assert!(is_locked(tmp.path()));
        assert!(matches!(Lock::acquire(tmp.path()), Err(StoreError::Locked(_))));
        drop(lock);
        assert!(!is_locked(tmp.path()));
        let _reader = share(tmp.path()).unwrap().unwrap();
        assert!(matches!(Lock::acquire(tmp.path()), Err(StoreError::Locked(_))));
    }

    #[test]
    fn a_reader_of_a_moment_does_not_keep_a_server_from_starting() {
        let tmp = tempfile::tempdir().unwrap();
        drop(Lock::acquire(tmp.path()).unwrap());
        let reader = share(tmp.path()).unwrap().unwrap();
        let ends = thread::spawn(move || {
            thread::sleep(TRY_AGAIN * 3);
            drop(reader);
        });
        Lock::acquire(tmp.path()).unwrap();
        ends.join().unwrap();
    }

    #[test]
    fn looking_for_a_lock_creates_nothing() {
        let tmp = tempfile::tempdir().unwrap();
        assert!(!is_locked(&tmp.path().join("nowhere")));
        assert!(share(tmp.path()).unwrap().is_none());
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let tmp = tempfile::tempdir().unwrap();
        let file = tmp.path().join("file");
        fs::write(&file, "x").unwrap();
        let error = Lock::acquire(&file).unwrap_err().to_string();
        assert!(error.contains("file"), "{error}");
    }
}
