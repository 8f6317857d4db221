//! The data directory: what is where in it, and the lock that one process holds.
//! `identity.key`, `swarm.key`, `lock`, `control.sock`, `records/`, `log/`, `node/`, `exports/`.

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

/// Whether `path` is a data directory at all.
pub fn is_data_dir(path: &Path) -> bool {
    path.join(NODE).is_dir() || path.join(RECORDS).is_dir()
}

/// A copy of a stopped node's `node/`, `records/`, `log/` and `exports/`, removed when dropped: below `beside`, or the system's
/// temporary directory. Neither what recovery once set aside, nor identities. Never creates or writes anything in `dir`.
///
/// # Errors
/// [`StoreError::Locked`] if a server has the directory; [`StoreError::Io`].
pub(super) fn copy_for_reading(dir: &Path, beside: Option<&Path>) -> Result<tempfile::TempDir, StoreError> {
    copy_parts(dir, beside, &[NODE, RECORDS, LOG, EXPORTS])
}

/// The same of one of them, below the system's temporary directory.
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
