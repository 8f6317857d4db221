//! The data directory: what is where in it, and the lock that one process holds.
//! `identity.key`, `swarm.key`, `lock`, `control.sock`, `records/`, `log/`, `node/`, `exports/`.

pub mod staging;

use super::StoreError;
use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// The file that is locked. It stays when the process ends; the kernel drops the lock, whatever ended it.
const LOCK: &str = "lock";
/// Commands that look whether a server runs share the lock for a moment: a server that starts then tries again for 2 s.
/// Another server is never waited for.
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
    /// [`StoreError::Locked`] if another process has it; [`StoreError::Unfinished`] if a restore into it was cut off;
    /// [`StoreError::Io`] if the directory or the lock file cannot be created or written.
    pub fn acquire(dir: &Path) -> Result<Self, StoreError> {
        let lock = Self::acquire_unfinished(dir)?;
        staging::refuse_unfinished(dir)?;
        Ok(lock)
    }

    /// The same, also where a restore was cut off.
    fn acquire_unfinished(dir: &Path) -> Result<Self, StoreError> {
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

    /// The data directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether those who hold the lock share it.
fn only_readers(file: &File) -> bool {
    // What is taken here is let go at once, so that another one that starts does not see a reader for longer.
    file.try_lock_shared().and_then(|()| file.unlock().map_err(TryLockError::Error)).is_ok()
}

/// Whether a process holds the lock. Never creates or writes anything.
pub fn is_locked(dir: &Path) -> bool {
    matches!(share(dir), Err(StoreError::Locked(_)))
}

/// Keeps servers out while a stopped directory is read: a shared lock on its lock file, `None` if it has none. Never
/// creates or writes anything.
///
/// # Errors
/// [`StoreError::Locked`] if a server has the directory; [`StoreError::Unfinished`] if a restore into it was cut off;
/// [`StoreError::Io`] if the lock file cannot be opened.
pub(super) fn share(dir: &Path) -> Result<Option<File>, StoreError> {
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
    staging::refuse_unfinished(dir)?;
    Ok(Some(file))
}

/// An IO error with what to do about it, where that is known.
pub(super) fn io_error(doing: &'static str, path: &Path, source: io::Error) -> StoreError {
    let source = match source.kind() {
        io::ErrorKind::PermissionDenied => io::Error::new(
            source.kind(),
            "permission denied; run as the owner of the data directory, or choose another one with --data-dir",
        ),
        io::ErrorKind::ReadOnlyFilesystem => {
            io::Error::new(source.kind(), "the file system is read-only; choose another directory with --data-dir")
        }
        io::ErrorKind::StorageFull => {
            io::Error::new(source.kind(), "no space or no inodes left on the disk; free some and try again")
        }
        io::ErrorKind::QuotaExceeded => {
            io::Error::new(source.kind(), "the disk quota is reached; raise it, or free some space, and try again")
        }
        _ => source,
    };
    StoreError::Io { doing, path: path.to_owned(), source }
}

/// Bytes of all files below `dir`; 0 if there is none.
pub(super) fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Bytes that the file system has given to all files below `dir`; 0 if there is none.
pub(super) fn bytes_allocated(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_allocated(&entry.path()),
            Ok(meta) => meta.blocks().saturating_mul(512),
            Err(_) => 0,
        })
        .sum()
}

/// Whether a file of this name is never written to by a later run: segments of the log, exports of records.
fn is_final(name: &str) -> bool {
    name.ends_with(".segment") || name.starts_with("records-") && name.ends_with(".export")
}

/// Copies a directory of plain files and directories; `keep` says by name which. A reflink where the file system can, and
/// a link of what is never written again.
pub(super) fn copy_dir(from: &Path, to: &Path, keep: &dyn Fn(&str) -> bool) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(to).map_err(|e| io_error("create", to, e))?;
    let entries = fs::read_dir(from).map_err(|e| io_error("read", from, e))?;
    for entry in entries {
        let entry = entry.map_err(|e| io_error("read", from, e))?;
        let kind = entry.file_type().map_err(|e| io_error("read", &entry.path(), e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !keep(&name) {
            continue;
        }
        let target = to.join(entry.file_name());
        if kind.is_file() && is_final(&name) && fs::hard_link(entry.path(), &target).is_ok() {
            continue;
        }
        if kind.is_dir() {
            copy_dir(&entry.path(), &target, keep)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &target).map_err(|e| io_error("copy", &entry.path(), e))?;
        }
    }
    Ok(())
}

/// A copy of a stopped node's `node/`, `records/`, `log/` and `exports/`, removed when dropped: below `beside`, or the system's
/// temporary directory. Neither what recovery once set aside, nor identities. Never creates or writes anything in `dir`.
///
/// # Errors
/// [`StoreError::Locked`] if a server has the directory; [`StoreError::Io`].
pub(super) fn copy_for_reading(dir: &Path, beside: Option<&Path>) -> Result<tempfile::TempDir, StoreError> {
    copy_parts(dir, beside, &["node", "records", "log", "exports"])
}

/// The same of one of them, below the system's temporary directory.
///
/// # Errors
/// As [`copy_for_reading`].
pub(super) fn copy_part_for_reading(dir: &Path, part: &str) -> Result<tempfile::TempDir, StoreError> {
    copy_parts(dir, None, &[part])
}

/// Whether something is there. A link that leads nowhere, as to a disk that is not mounted, is an error and not an absence.
pub(super) fn is_there(path: &Path) -> Result<bool, StoreError> {
    use io::ErrorKind::NotFound;
    match fs::metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == NotFound && fs::symlink_metadata(path).is_err() => Ok(false),
        Err(error) => Err(io_error("open", path, error)),
    }
}

fn copy_parts(dir: &Path, beside: Option<&Path>, parts: &[&str]) -> Result<tempfile::TempDir, StoreError> {
    let parent = beside.map_or_else(std::env::temp_dir, Path::to_owned);
    let copy = tempfile::Builder::new()
        .prefix("dhtstore-copy-")
        .tempdir_in(&parent)
        .map_err(|e| io_error("create a copy in", &parent, e))?;
    let _keeps_servers_out = share(dir)?;
    for part in parts {
        let original = dir.join(part);
        if is_there(&original)? && original.is_dir() {
            copy_dir(&original, &copy.path().join(part), &|name| name != super::ballast::DIR)?;
        }
    }
    Ok(copy)
}

/// Makes names created, renamed or removed in `dir` outlast a power cut.
pub(super) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|f| f.sync_all()).map_err(|e| io_error("sync", dir, e))
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
