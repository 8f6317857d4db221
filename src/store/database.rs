//! A sled database whose flush outlasts a power cut.
//!
//! sled 0.34 ends its flush with `sync_file_range`, which starts the writing of pages and waits for it: neither the file's
//! new size nor what is in the disk's cache is lasting then. Only its background thread calls fsync, twice a second. And it
//! never syncs the directory, so that by the letter of POSIX the whole database may vanish. Both is made good here.

use super::{
    StoreError,
    data_dir::{io_error, sync_dir},
};
use std::{fs::File, ops::Deref, path::Path, sync::Arc};

/// An open database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    db: sled::Db,
    /// The log that is all of it.
    file: Arc<File>,
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
        let file = Arc::new(sync("db")?);
        sync_dir(dir)?;
        dir.parent().map_or(Ok(()), sync_dir)?;
        Ok(Self { db, file })
    }

    /// Everything to disk, fsynced.
    ///
    /// # Errors
    /// sled's.
    pub fn flush(&self) -> sled::Result<usize> {
        let bytes = self.db.flush()?;
        self.file.sync_data()?;
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

impl Deref for Database {
    type Target = sled::Db;

    fn deref(&self) -> &sled::Db {
        &self.db
    }
}
