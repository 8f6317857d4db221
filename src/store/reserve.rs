//! Space that is kept free on the disk. After a write that found none every operation of sled fails until the database is
//! opened anew, so announcements are refused before that, and taken again when there is space.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

/// Watches the file system of the data directory.
#[derive(Debug)]
pub struct Reserve {
    dir: PathBuf,
    bytes: u64,
    short: AtomicBool,
}

impl Reserve {
    /// Of `bytes` below `dir`; 0 is none.
    pub fn new(dir: &Path, bytes: u64) -> Self {
        let reserve = Self { dir: dir.to_owned(), bytes, short: AtomicBool::new(false) };
        reserve.look();
        reserve
    }

    /// Whether less was free at the last look.
    pub fn is_short(&self) -> bool {
        self.short.load(Ordering::Acquire)
    }

    /// Looks how much is free. A microsecond, and no wait for the disk.
    pub fn look(&self) {
        let free = match rustix::fs::statvfs(&self.dir) {
            Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
            // A file system that does not tell: its errors will.
            Err(_) => return,
        };
        let was_short = self.is_short();
        // Back a little later than gone: not once a second at the edge.
        let wanted = if was_short { self.bytes.saturating_add(self.bytes / 4) } else { self.bytes };
        let short = free < wanted;
        self.short.store(short, Ordering::Release);
        match (was_short, short) {
            (false, true) => tracing::warn!("{}", self.advice()),
            (true, false) => tracing::info!(free, "there is space on the disk again, announcements are taken"),
            _ => {}
        }
    }

    /// What `stat` and the log say while space is short.
    pub fn advice(&self) -> String {
        format!(
            "the disk of {} has less than {} MiB free: announcements are refused, what is stored is served; free some space",
            self.dir.display(),
            self.bytes >> 20
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_of_more_than_there_is_and_never_of_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Reserve::new(dir.path(), u64::MAX).is_short());
        assert!(!Reserve::new(dir.path(), 0).is_short());
    }

    #[test]
    fn a_directory_that_cannot_be_looked_at_is_not_short() {
        assert!(!Reserve::new(Path::new("/nonexistent/dhtstore"), u64::MAX).is_short());
    }
}
