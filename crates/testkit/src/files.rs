//! Copies and fingerprints of data directories and fixtures.

use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Copies the content of the directory `from` into `to`, which may exist already.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Lists the regular files below `dir` in order, as paths relative to it. Ignores sockets and links.
pub fn below(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut todo) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(next).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                todo.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path().strip_prefix(dir).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Returns the total size of the files below `dir` in bytes, or 0 if there is no such directory. Files may appear and
/// disappear during the call.
pub fn bytes_below(dir: &Path) -> f64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = |entry: fs::DirEntry| match entry.path().is_dir() {
        true => bytes_below(&entry.path()),
        false => entry.metadata().map_or(0.0, |found| found.len() as f64),
    };
    entries.map(bytes).sum()
}

/// Returns the path and the SHA-256 of each regular file below `dir`.
pub fn fingerprint(dir: &Path) -> BTreeMap<PathBuf, String> {
    let digest = |file: &Path| format!("{:x}", Sha256::digest(fs::read(file).unwrap()));
    below(dir).into_iter().map(|file| dir.join(file)).map(|path| (path.clone(), digest(&path))).collect()
}
