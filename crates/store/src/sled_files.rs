//! Syncs the files of a sled database.
//!
//! sled 0.34 ends its flush with `sync_file_range`, which starts the writing of pages and waits for it. After that
//! neither the new size of the file nor the content of the disk's cache is durable; only sled's background thread calls
//! fsync, twice a second. sled never syncs the directory, so by POSIX the whole database may vanish. It also writes
//! each page of more than 128 KiB to a file of its own below `blobs/`, which it never syncs. After a power cut sled
//! stops reading its log at the first such page that is torn, and the rest of the log is lost. This module syncs all of
//! these. (Our rows are small, but a leaf of many large values of other peers may reach that size.)

use super::{
    StoreError,
    filesystem::{io_error, sync_dir},
};
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// See the module.
#[derive(Debug)]
pub struct SledFiles {
    dir: PathBuf,
    /// The log of sled, which holds everything except large pages. It stays open, so that fsync reports every write
    /// error since the open.
    log: File,
    /// Names below `blobs/` that are synced. sled never writes to one again, and removes it when its page is replaced.
    synced: Mutex<BTreeSet<OsString>>,
}

impl SledFiles {
    /// Opens the files of the database that sled has opened in `dir`, and syncs their names.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let sync = |name: &str| {
            let path = dir.join(name);
            File::open(&path).and_then(|file| file.sync_all().map(|()| file)).map_err(|e| io_error("sync", &path, e))
        };
        sync("conf")?;
        let log = sync("db")?;
        sync_dir(dir)?;
        dir.parent().map_or(Ok(()), sync_dir)?;
        Ok(Self { dir: dir.to_owned(), log, synced: Mutex::default() })
    }

    /// Syncs everything that sled has written. To be called after sled's flush.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn sync(&self) -> Result<(), StoreError> {
        let outcome = self.sync_blobs().and_then(|()| self.log.sync_all());
        outcome.map_err(|e| io_error("sync", &self.dir, e))
    }

    fn sync_blobs(&self) -> io::Result<()> {
        let blobs = self.dir.join("blobs");
        let mut synced = self.synced.lock();
        let mut there = BTreeSet::new();
        for entry in fs::read_dir(&blobs)? {
            let entry = entry?;
            let name = entry.file_name();
            if !synced.contains(&name) {
                match File::open(entry.path()) {
                    Ok(blob) => blob.sync_all()?,
                    // Its page has been replaced.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(e),
                }
            }
            there.insert(name);
        }
        if !there.is_subset(&synced) {
            File::open(&blobs)?.sync_all()?;
        }
        *synced = there;
        Ok(())
    }
}
