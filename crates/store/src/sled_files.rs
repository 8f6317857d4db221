//! The files of a sled database, synced in earnest.
//!
//! sled 0.34 ends its flush with `sync_file_range`, which starts the writing of pages and waits for it: neither the file's
//! new size nor what is in the disk's cache is lasting then. Only its background thread calls fsync, twice a second. It
//! never syncs the directory, so that by the letter of POSIX the whole database may vanish. And a page of more than 128 KiB
//! goes to a file of its own below `blobs/`, which is never synced: after a power cut sled stops reading its log at a torn
//! one, and what stands behind it is lost. All this is made good here. (Rows are small; a leaf of many large values of others
//! may still come to that.)

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
    /// sled's log: everything but large pages. Held open, it tells of every error of writing since then.
    log: File,
    /// Names below `blobs/` that are synced. sled never writes to one again, and removes it when its page is replaced.
    synced: Mutex<BTreeSet<OsString>>,
}

impl SledFiles {
    /// Those of the database that sled has opened in `dir`; makes their names lasting.
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

    /// Everything that sled has written to them, once it has flushed.
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
                    // Its page was replaced meanwhile.
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
