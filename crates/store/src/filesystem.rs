//! Access to the file system: sizes, copies, names that outlast a power cut, and errors that say what to do.

use super::StoreError;
use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
};

/// Makes an IO error, which says what to do about it where that is known.
pub fn io_error(doing: &'static str, path: &Path, source: io::Error) -> StoreError {
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

/// Returns the bytes of all files below `dir`; 0 if the directory is missing.
pub fn bytes_below(dir: &Path) -> u64 {
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

/// Returns the bytes that the file system has allocated to all files below `dir`; 0 if the directory is missing.
pub fn bytes_allocated(dir: &Path) -> u64 {
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

/// Returns whether no later run writes to a file of this name: segments of the log, exports of records.
fn is_final(name: &str) -> bool {
    name.ends_with(".segment") || name.starts_with("records-") && name.ends_with(".export")
}

/// Copies a directory of plain files and directories; `keep` selects them by name. Uses reflinks where the file system
/// can, and hard links for files that are never written again.
pub fn copy_dir(from: &Path, to: &Path, keep: &dyn Fn(&str) -> bool) -> Result<(), StoreError> {
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

/// Returns whether a path exists. A link to nothing, for example to a disk that is not mounted, is an error.
pub fn is_there(path: &Path) -> Result<bool, StoreError> {
    use io::ErrorKind::NotFound;
    match fs::metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == NotFound && fs::symlink_metadata(path).is_err() => Ok(false),
        Err(error) => Err(io_error("open", path, error)),
    }
}

/// Creates the directory (0700), so that it outlasts a power cut.
///
/// # Errors
/// [`StoreError::Io`].
pub fn create_dir(dir: &Path) -> Result<(), StoreError> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| io_error("create", dir, e))?;
    dir.parent().map_or(Ok(()), sync_dir)
}

/// Makes names that were created, renamed or removed in `dir` outlast a power cut.
pub fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|f| f.sync_all()).map_err(|e| io_error("sync", dir, e))
}
