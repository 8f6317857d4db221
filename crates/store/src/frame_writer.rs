//! Writes a file of frames (`codec`: a length and a CRC-32 each), and renames it once it is whole and fsynced. So a
//! file under its final name was whole once, and a broken frame in it is damage.

use super::{
    StoreError, codec,
    filesystem::{create_dir, io_error, sync_dir},
};
use bincode::Encode;
use std::{
    fs::{self, File, OpenOptions},
    io::{BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Bytes between two fsyncs of a file that is being written, so that the last fsync does not block the disk for long.
const SYNC_EVERY: u64 = 16 << 20;

/// A file that is being written. Removed if it is dropped before it is finished.
#[derive(Debug)]
pub struct FrameWriter {
    dir: PathBuf,
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    unsynced: u64,
    finished: bool,
}

impl FrameWriter {
    /// Creates a file in `dir`, which is created if missing; `name` is its name until it is finished.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn create(dir: &Path, name: &str) -> Result<Self, StoreError> {
        create_dir(dir)?;
        let path = dir.join(name);
        let file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&path);
        let file = BufWriter::new(file.map_err(|e| io_error("create", &path, e))?);
        Ok(Self { dir: dir.to_owned(), path, file, bytes: 0, unsynced: 0, finished: false })
    }

    /// Appends a frame.
    ///
    /// # Errors
    /// [`StoreError::Io`]; [`StoreError::Database`] if the item cannot be encoded.
    pub fn put<T: Encode>(&mut self, item: &T) -> Result<(), StoreError> {
        self.put_bytes(&frame(item)?)
    }

    /// Appends bytes as they are, in front of the frames.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn put_bytes(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).map_err(|e| io_error("write", &self.path, e))?;
        self.bytes += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_EVERY {
            self.unsynced = 0;
            self.sync()?;
        }
        Ok(())
    }

    /// Syncs the file and gives it its final name, in place of any file of that name. Returns its path and size.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn finish(mut self, name: &str) -> Result<(PathBuf, u64), StoreError> {
        self.sync()?;
        let path = self.dir.join(name);
        fs::rename(&self.path, &path).map_err(|e| io_error("rename", &self.path, e))?;
        self.finished = true;
        sync_dir(&self.dir)?;
        Ok((path, self.bytes))
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.file.flush().and_then(|()| self.file.get_ref().sync_all()).map_err(|e| io_error("write", &self.path, e))
    }
}

impl Drop for FrameWriter {
    fn drop(&mut self) {
        if !self.finished {
            // Best effort: the next file overwrites it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Encodes a value as a frame.
///
/// # Errors
/// [`StoreError::Database`] if it cannot be encoded.
pub fn frame<T: Encode>(item: &T) -> Result<Vec<u8>, StoreError> {
    codec::frame(item).map_err(|e| StoreError::Database(e.into()))
}
