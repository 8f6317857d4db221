//! Disk space and inodes that a start on a full disk gives up.
//!
//! sled cannot open a database without writing: it takes a piece of its file and writes a snapshot. So the data
//! directory holds some spare files, made while there is space. A start that finds the disk full (or a quota reached,
//! or no inodes left) removes them and opens the databases with the space that this frees. It then takes back what is
//! left of the space, so that the next start has it too. Once there is space, the missing files are made again.

use super::{
    StoreError,
    data_dir::names::{BALLAST, EXPORTS, LOG, NODE, RECORDS},
    filesystem::{bytes_allocated, create_dir, io_error},
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Number of files, and so of inodes. A start makes at most a snapshot for each database, a socket, a segment and a
/// journal.
const PIECES: u32 = 16;
/// Size of each file: 8 MiB in all. The largest start seen wrote less than 2 MiB. A snapshot takes some 20 bytes for
/// each page of the database, so a snapshot of 4 MiB covers more records than `records.max`.
const PIECE_BYTES: u64 = 512 << 10;
/// A start treats the disk as full if it has no room for this number of further pieces.
const ROOM: u32 = 4;

/// Returns the directories of a data directory that lie on file systems of their own, the data directory first.
pub fn file_systems(dir: &Path) -> Vec<PathBuf> {
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    let mut devices = vec![device(dir)];
    let mut found = vec![dir.to_owned()];
    for part in [NODE, RECORDS, LOG, EXPORTS].map(|part| dir.join(part)) {
        let device = device(&part);
        if device.is_some() && !devices.contains(&device) {
            devices.push(device);
            found.push(part);
        }
    }
    found
}

/// Returns the bytes that the ballast takes below a data directory.
pub fn bytes(dir: &Path) -> u64 {
    file_systems(dir).iter().map(|dir| bytes_allocated(&dir.join(BALLAST))).sum()
}

/// Removes the ballast where the disk is full; returns whether some was removed. The caller holds the lock of the
/// directory.
pub fn give_up_if_full(dir: &Path) -> bool {
    let mut gave_up = false;
    for dir in file_systems(dir) {
        if !matches!(room(&dir), Err(error) if is_full(&error)) {
            continue;
        }
        let mut pieces = 0;
        for n in 0..PIECES {
            pieces += u32::from(fs::remove_file(piece(&dir, n)).is_ok());
        }
        match pieces {
            0 => {
                tracing::warn!(path = %dir.display(), "the disk is full, and no ballast is left to remove; free some \
                    space if the start fails")
            }
            _ => {
                tracing::warn!(path = %dir.display(), pieces, "the disk is full: removed ballast, so that this start \
                    can go on; free some space")
            }
        }
        gave_up |= pieces > 0;
    }
    gave_up
}

/// Makes the missing files of the ballast. Unless `all` is set, makes them only where `reserve` bytes stay free
/// afterwards.
///
/// # Errors
/// [`StoreError::Io`], for example if the disk is full. The files made so far stay.
pub fn make(dir: &Path, reserve: u64, all: bool) -> Result<(), StoreError> {
    for dir in file_systems(dir) {
        for n in 0..PIECES {
            let path = piece(&dir, n);
            if fs::metadata(&path).is_ok_and(|found| found.len() == PIECE_BYTES) {
                continue;
            }
            let left = u64::from(PIECES - n) * PIECE_BYTES;
            if !all && free(&dir).is_none_or(|free| free < reserve.saturating_add(left)) {
                break;
            }
            create_dir(&dir.join(BALLAST))?;
            allocate(&path).map_err(|error| io_error("write", &path, error))?;
        }
    }
    Ok(())
}

/// Returns whether an error says that the disk has no space or no inode left, or that a quota is reached.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn free(dir: &Path) -> Option<u64> {
    rustix::fs::statvfs(dir).ok().map(|found| found.f_bavail.saturating_mul(found.f_frsize))
}

fn piece(dir: &Path, n: u32) -> PathBuf {
    dir.join(BALLAST).join(n.to_string())
}

/// Takes, and gives back, the space that a start may need.
fn room(dir: &Path) -> io::Result<()> {
    create_dir(&dir.join(BALLAST)).map_err(|error| match error {
        StoreError::Io { source, .. } => source,
        error => io::Error::other(error),
    })?;
    let paths: Vec<PathBuf> = (0..ROOM).map(|n| dir.join(BALLAST).join(format!("room-{n}"))).collect();
    let outcome = paths.iter().try_for_each(|path| allocate(path));
    for path in paths {
        // A file that was not made need not be removed.
        let _ = fs::remove_file(path);
    }
    outcome
}

/// Makes a file that takes [`PIECE_BYTES`] of the disk, or none if there is less space.
fn allocate(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
    let outcome = match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, PIECE_BYTES) {
        Ok(()) => Ok(()),
        // Most file systems support the call; on others the bytes are written.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => write_out(&file),
        Err(error) => Err(error.into()),
    };
    if outcome.is_err() {
        let _ = fs::remove_file(path);
    }
    outcome
}

fn write_out(mut file: &File) -> io::Result<()> {
    let bytes = vec![0x5a; usize::try_from(PIECE_BYTES).unwrap_or(0)];
    file.write_all(&bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_only_beside_the_reserve() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), u64::MAX, false).unwrap();
        assert_eq!(bytes(dir.path()), 0);
        for _ in 0..2 {
            make(dir.path(), 0, false).unwrap();
            assert!(bytes(dir.path()) >= u64::from(PIECES) * PIECE_BYTES);
        }
        assert!(!give_up_if_full(dir.path()), "there is room");
        assert_eq!(fs::read_dir(dir.path().join(BALLAST)).unwrap().count(), PIECES as usize);
    }

    #[test]
    fn full_is_a_disk_without_space_and_a_quota_that_is_reached() {
        for (errno, full) in [(28, true), (122, true), (30, false), (13, false), (5, false)] {
            assert_eq!(is_full(&io::Error::from_raw_os_error(errno)), full, "errno {errno}");
        }
    }
}
