//! Exports of the log: copies of its chunks in `exports/`, as versions before the log stood outside of sled made them. None
//! is written any more. What the log lacks is taken from those that are there, once; then they are removed.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Those of a directory, the oldest first; none if it cannot be read. `records-<from>-<to>-<chunks>.export`, and with `.damaged`
/// behind it what a start had found damaged.
pub fn list(dir: &Path) -> Vec<PathBuf> {
    let is_export = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("records-") && (name.ends_with(".export") || name.ends_with(".export.damaged"))
    };
    let paths = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = paths.filter(is_export).collect();
    found.sort();
    found
}

/// Removes one that is not needed any more.
pub fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "an export of an older version cannot be removed");
    }
}
