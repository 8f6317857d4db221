//! The data directory: what is where in it, and the lock that one process holds.
//! `identity.key`, `swarm.key`, `lock`, `control.sock`, `records/`, `node/`, `exports/`.

use super::StoreError;
use std::path::{Path, PathBuf};

/// An exclusive hold on a data directory, until dropped.
#[derive(Debug)]
#[allow(dead_code)]
pub struct Lock {
    path: PathBuf,
    file: std::fs::File,
}

#[expect(unused_variables, missing_docs)]
impl Lock {
    /// Creates the directory (0700) and takes the lock. [`StoreError::Locked`] if another process has it.
    pub fn acquire(dir: &Path) -> Result<Self, StoreError> {
        todo!()
    }
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether a process holds the lock. Never creates or writes anything.
#[expect(unused_variables)]
pub fn is_locked(dir: &Path) -> bool {
    todo!()
}
