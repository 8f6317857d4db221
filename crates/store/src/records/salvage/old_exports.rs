//! Exports of the log: copies of its chunks in `exports/`. Versions that kept the log inside sled made them; none is
//! written any more. A start salvages from them the chunks that the log lacks, then removes them.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Lists the exports of a directory, the oldest first. Empty if the directory cannot be read. Their names are
/// `records-<from>-<to>-<chunks>.export`, with `.damaged` behind it if an earlier start found damage.
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

/// Removes an export that is not needed any more.
pub fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(
            path = %path.display(),
            %error,
            "cannot remove an export of an older version; the next start tries again"
        );
    }
}
