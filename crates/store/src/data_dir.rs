//! The data directory: its files, and the lock that one process holds.
//! It holds `identity.key`, `swarm.key`, `lock`, `control.sock`, `records/`, `log/`, `node/` and `exports/`.

mod lock;
pub(super) mod names;
pub mod staging;

pub(super) use lock::share;
pub use lock::{Lock, is_locked};

use super::{
    StoreError,
    filesystem::{copy_dir, io_error, is_there},
};
use names::{BALLAST, EXPORTS, LOG, NODE, RECORDS};
use std::path::Path;

/// Returns whether `path` is a data directory.
pub fn is_data_dir(path: &Path) -> bool {
    path.join(NODE).is_dir() || path.join(RECORDS).is_dir()
}

/// Copies `node/`, `records/`, `log/` and `exports/` of a stopped node to a directory below `beside`, or below the
/// system's temporary directory. The copy is removed when dropped. Identities, and databases that recovery set aside,
/// are left out. Never creates or writes anything in `dir`.
///
/// # Errors
/// [`StoreError::Locked`] if a server has the directory; [`StoreError::Io`].
pub(super) fn copy_for_reading(dir: &Path, beside: Option<&Path>) -> Result<tempfile::TempDir, StoreError> {
    copy_parts(dir, beside, &[NODE, RECORDS, LOG, EXPORTS])
}

/// Copies one of these parts below the system's temporary directory.
///
/// # Errors
/// As [`copy_for_reading`].
pub(super) fn copy_part_for_reading(dir: &Path, part: &str) -> Result<tempfile::TempDir, StoreError> {
    copy_parts(dir, None, &[part])
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
            copy_dir(&original, &copy.path().join(part), &|name| name != BALLAST)?;
        }
    }
    Ok(copy)
}
