//! A sled database whose flush outlasts a power cut.
//!
//! sled 0.34 ends its flush with `sync_file_range`, which starts the writing of pages and waits for it: neither the file's
//! new size nor what is in the disk's cache is lasting then. Only its background thread calls fsync, twice a second. And it
//! never syncs the directory, so that by the letter of POSIX the whole database may vanish. And a page of more than 128 KiB
//! goes to a file of its own below `blobs/`, which is never synced: after a power cut sled stops reading its log at a torn
//! one, and what stands behind it is lost. All this is made good here, at each flush: what was written since the last one may
//! be lost to a power cut, whatever sled's own thread has synced.

use super::{
    StoreError,
    data_dir::{io_error, sync_dir},
};
use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File},
    io,
    ops::Deref,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// An open database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    db: sled::Db,
    files: Arc<Files>,
}

#[derive(Debug)]
struct Files {
    /// The log: everything but large pages.
    log: File,
    blobs: PathBuf,
    /// Names below it that are synced. sled never writes to one again, and removes it when its page is replaced.
    synced: Mutex<BTreeSet<OsString>>,
}

impl Database {
    /// Takes what sled has opened in `dir`, and makes its names lasting.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn new(db: sled::Db, dir: &Path) -> Result<Self, StoreError> {
        let sync = |name: &str| {
            let path = dir.join(name);
            File::open(&path).and_then(|file| file.sync_all().map(|()| file)).map_err(|e| io_error("sync", &path, e))
        };
        sync("conf")?;
        let log = sync("db")?;
        sync_dir(dir)?;
        dir.parent().map_or(Ok(()), sync_dir)?;
        let files = Files { log, blobs: dir.join("blobs"), synced: Mutex::default() };
        Ok(Self { db, files: Arc::new(files) })
    }

    /// Everything to disk, fsynced.
    ///
    /// # Errors
    /// sled's.
    pub fn flush(&self) -> sled::Result<usize> {
        let bytes = self.db.flush()?;
        self.files.sync_blobs()?;
        self.files.log.sync_data()?;
        Ok(bytes)
    }

    /// Everything to the file, in order. After a power cut later rows are never there without earlier ones, but the last
    /// of both may be missing.
    ///
    /// # Errors
    /// sled's.
    pub fn write_out(&self) -> sled::Result<usize> {
        self.db.flush()
    }
}

impl Files {
    fn sync_blobs(&self) -> io::Result<()> {
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        let mut there = BTreeSet::new();
        for entry in fs::read_dir(&self.blobs)? {
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
            File::open(&self.blobs)?.sync_all()?;
        }
        *synced = there;
        Ok(())
    }
}

impl Deref for Database {
    type Target = sled::Db;

    fn deref(&self) -> &sled::Db {
        &self.db
    }
}
