//! Free space on the disk, and the space that the data directory takes.
//!
//! After a write that found no space, every operation of sled fails until the database is reopened. So announcements
//! are refused earlier, below a *reserve* of free space; own CIDs, exports and garbage collection go on. The *budget*
//! is the maximum size of the whole data directory: at that size new records are refused, and refreshes are accepted as
//! long as the reserve holds. The operator is warned before either is reached.

use super::{ballast, filesystem::bytes_allocated};
use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

/// The warning comes when free space falls below this multiple of the reserve.
const LOW: u64 = 4;

/// Watches the size of the data directory and the free space of its file system.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    /// The data directory, and those parts of it that are file systems of their own.
    file_systems: Vec<PathBuf>,
    /// Bytes to keep free; 0: none.
    reserve: u64,
    /// Maximum size of the directory in bytes; 0: no limit.
    max: u64,
    free: AtomicU64,
    used: AtomicU64,
    short: AtomicBool,
    low: AtomicBool,
    near: AtomicBool,
    full: AtomicBool,
}

impl Disk {
    /// Watches the data directory `dir`, with `reserve` bytes to keep free and at most `max` bytes to take; 0 is no
    /// limit.
    pub fn new(dir: &Path, reserve: u64, max: u64) -> Self {
        let disk = Self {
            file_systems: ballast::file_systems(dir),
            dir: dir.to_owned(),
            reserve,
            max,
            free: AtomicU64::new(0),
            used: AtomicU64::new(0),
            short: AtomicBool::new(false),
            low: AtomicBool::new(false),
            near: AtomicBool::new(false),
            full: AtomicBool::new(false),
        };
        disk.look();
        disk.measure();
        disk
    }

    /// Returns whether less than the reserve was free at the last look.
    pub fn is_short(&self) -> bool {
        self.short.load(Ordering::Acquire)
    }

    /// Returns whether nine tenths of the budget were taken at the last measurement.
    pub fn is_near(&self) -> bool {
        self.near.load(Ordering::Acquire)
    }

    /// Returns whether all of the budget was taken at the last measurement.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// Returns the bytes free at the last look.
    pub fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// Returns the bytes taken at the last measurement.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Looks up the free space. Takes a microsecond, and does not wait for the disk.
    pub fn look(&self) {
        // A file system that does not report its free space is skipped; its write errors will show.
        let found = self.file_systems.iter().filter_map(|dir| rustix::fs::statvfs(dir).ok());
        let Some(free) = found.map(|found| found.f_bavail.saturating_mul(found.f_frsize)).min() else { return };
        self.free.store(free, Ordering::Relaxed);
        // A state begins at the bound and ends a quarter above it, so that it does not change every second.
        let below = |bound: u64, was: bool| free < if was { bound.saturating_add(bound / 4) } else { bound };
        let (was_low, was_short) = (self.low.load(Ordering::Acquire), self.is_short());
        let low = below(self.reserve.saturating_mul(LOW), was_low);
        let short = below(self.reserve, was_short);
        self.low.store(low, Ordering::Release);
        self.short.store(short, Ordering::Release);
        match (was_short, short) {
            (false, true) => tracing::warn!("{}", self.short_note()),
            (true, false) => tracing::info!(free, "the disk has space again: announcements are accepted"),
            _ if low && !was_low => tracing::warn!("{}", self.low_note()),
            _ => {}
        }
    }

    /// Adds up the size of the directory, with one look at each file. A log of 100 million records has some 300 files.
    pub fn measure(&self) {
        let used = bytes_allocated(&self.dir).saturating_sub(ballast::bytes(&self.dir));
        self.used.store(used, Ordering::Relaxed);
        if self.max == 0 {
            return;
        }
        // As above: a state begins at the bound and ends a twentieth below it.
        let above = |bound: u64, was: bool| used >= if was { bound - bound / 20 } else { bound };
        let (was_near, was_full) = (self.is_near(), self.is_full());
        let (near, full) = (above(self.max - self.max / 10, was_near), above(self.max, was_full));
        self.near.store(near, Ordering::Release);
        self.full.store(full, Ordering::Release);
        match (was_full, full) {
            (false, true) => tracing::warn!("{}", self.full_note()),
            (true, false) => tracing::info!(used, "the data directory is within store.max_disk again"),
            _ if near && !was_near => tracing::warn!("{}", self.near_note()),
            _ => {}
        }
    }

    /// Returns the notes for `stat`, if any.
    pub fn notes(&self) -> Vec<String> {
        let free = match (self.is_short(), self.low.load(Ordering::Acquire)) {
            (true, _) => Some(self.short_note()),
            (false, true) => Some(self.low_note()),
            _ => None,
        };
        let budget = match (self.is_full(), self.is_near()) {
            (true, _) => Some(self.full_note()),
            (false, true) => Some(self.near_note()),
            _ => None,
        };
        free.into_iter().chain(budget).collect()
    }

    fn short_note(&self) -> String {
        format!(
            "the disk of {} has less than {} free (store.reserve): announcements are refused, stored records are \
            served; free some space",
            self.dir.display(),
            mebibytes(self.reserve)
        )
    }

    fn low_note(&self) -> String {
        format!(
            "the disk of {} has {} free; below {} (store.reserve) announcements are refused: free some space, or move \
            the data directory",
            self.dir.display(),
            mebibytes(self.free()),
            mebibytes(self.reserve)
        )
    }

    fn near_note(&self) -> String {
        format!(
            "{} takes {} of {} (store.max_disk): at the limit new records are refused; raise it, or lower records.ttl \
            or records.max",
            self.dir.display(),
            mebibytes(self.used()),
            mebibytes(self.max)
        )
    }

    fn full_note(&self) -> String {
        format!(
            "{} takes {} of {} (store.max_disk): new records are refused, refreshes are accepted; raise it, or lower \
            records.ttl or records.max",
            self.dir.display(),
            mebibytes(self.used()),
            mebibytes(self.max)
        )
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn short_of_more_than_there_is_and_never_of_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Disk::new(dir.path(), u64::MAX, 0).is_short());
        let none = Disk::new(dir.path(), 0, 0);
        assert_eq!((none.is_short(), none.is_full(), none.notes()), (false, false, vec![]));
    }

    #[test]
    fn the_warning_comes_before_the_reserve() {
        let dir = tempfile::tempdir().unwrap();
        let free = Disk::new(dir.path(), 0, 0).free();
        let disk = Disk::new(dir.path(), free / 2, 0);
        assert!(!disk.is_short());
        assert!(disk.notes()[0].contains("announcements are refused: free some space"), "{:?}", disk.notes());
    }

    #[test]
    fn a_directory_that_cannot_be_looked_at_is_not_short() {
        assert!(!Disk::new(Path::new("/nonexistent/dhtstore"), u64::MAX, 0).is_short());
    }

    #[test]
    fn the_budget_warns_at_nine_tenths_and_is_full_at_its_end() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("records")).unwrap();
        let file = dir.path().join("records/db");
        fs::write(&file, vec![1; 900 << 10]).unwrap();
        let disk = Disk::new(dir.path(), 0, 1 << 20);
        disk.measure();
        assert_eq!((disk.is_near(), disk.is_full()), (false, false), "{}", disk.used());
        fs::write(&file, vec![1; 950 << 10]).unwrap();
        disk.measure();
        assert_eq!((disk.is_near(), disk.is_full()), (true, false), "{}", disk.used());
        assert!(disk.notes()[0].contains("of 1.0 MiB"), "{:?}", disk.notes());
        fs::write(&file, vec![1; 1024 << 10]).unwrap();
        disk.measure();
        assert!(disk.is_full() && disk.notes()[0].contains("new records are refused, refreshes"));
        fs::write(&file, vec![1; 990 << 10]).unwrap();
        disk.measure();
        assert!(disk.is_full(), "not at the edge");
        fs::write(&file, vec![1; 100 << 10]).unwrap();
        disk.measure();
        assert_eq!((disk.is_near(), disk.is_full()), (false, false));
    }
}
