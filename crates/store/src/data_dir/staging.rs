//! Builds a data directory that appears as a whole. `dhtstore restore` builds it in a directory inside the data
//! directory, and moves the complete parts to their places. It builds inside because the data directory may be a mount
//! point, or lie in a directory where its owner may not write (`/var/lib`).
//!
//! A kill leaves one of three things: an incomplete build, which the next restore removes; a complete build, some of
//! whose parts may have been moved, which the next restore of the same backup finishes; or the whole directory. Until
//! it is whole, no other command opens the directory ([`StoreError::Unfinished`]).

use super::{
    lock::{Lock, is_locked},
    names::{LOCK, RESTORE},
};
use crate::{
    StoreError,
    filesystem::{io_error, sync_dir},
};
use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// File in the build directory, written once all is built: a note by the command that built it.
const COMPLETE: &str = "complete";
/// Maximum number of bytes of the note that are read.
const NOTE_MAX: u64 = 64 << 10;
/// The file that is moved last: as long as it is missing, the directory counts as not initialised.
const LAST: &str = "identity.key";
/// Files that an empty data directory may hold: the lock, and what `mkfs` makes.
const IGNORED: [&str; 3] = [LOCK, RESTORE, "lost+found"];

/// What a data directory holds, seen by a restore.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// Nothing, or an incomplete build that may be removed.
    Nothing,
    /// A complete build, and its note.
    Complete(Vec<u8>),
}

/// A data directory that is being built.
#[derive(Debug)]
pub struct Staging {
    lock: Lock,
    dir: PathBuf,
}

/// Returns what the directory holds. Creates nothing.
///
/// # Errors
/// [`StoreError::NotEmpty`]; [`StoreError::Locked`]; [`StoreError::Io`].
pub fn look(dir: &Path) -> Result<Found, StoreError> {
    if is_locked(dir) {
        return Err(StoreError::Locked(dir.to_owned()));
    }
    look_inside(dir)
}

fn look_inside(dir: &Path) -> Result<Found, StoreError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(e) => return Err(io_error("read", dir, e)),
    };
    let path = dir.join(RESTORE).join(COMPLETE);
    match File::open(&path) {
        Ok(file) => {
            let mut note = Vec::new();
            file.take(NOTE_MAX).read_to_end(&mut note).map_err(|e| io_error("read", &path, e))?;
            return Ok(Found::Complete(note));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(io_error("read", &path, e)),
    }
    for entry in entries {
        let name = entry.map_err(|e| io_error("read", dir, e))?.file_name().to_string_lossy().into_owned();
        if !IGNORED.contains(&name.as_str()) {
            return Err(StoreError::NotEmpty { dir: dir.to_owned(), found: name });
        }
    }
    Ok(Found::Nothing)
}

impl Staging {
    /// Begins a build: creates the data directory (0700) where it is missing, takes its lock, and removes an incomplete
    /// build.
    ///
    /// # Errors
    /// [`StoreError::NotEmpty`], also if the directory holds a complete build; [`StoreError::Locked`];
    /// [`StoreError::Io`].
    pub fn begin(dir: &Path) -> Result<Self, StoreError> {
        let lock = Lock::acquire_unfinished(dir)?;
        if let Found::Complete(_) = look_inside(dir)? {
            return Err(StoreError::NotEmpty { dir: dir.to_owned(), found: RESTORE.to_owned() });
        }
        let staging = Self { lock, dir: dir.join(RESTORE) };
        staging.remove()?;
        let path = staging.path();
        DirBuilder::new().mode(0o700).create(path).map_err(|e| io_error("create", path, e))?;
        sync_dir(dir)?;
        Ok(staging)
    }

    /// Resumes a complete build.
    ///
    /// # Errors
    /// [`StoreError::Locked`]; [`StoreError::Io`], also if there is none.
    pub fn resume(dir: &Path) -> Result<Self, StoreError> {
        let staging = Self { lock: Lock::acquire_unfinished(dir)?, dir: dir.join(RESTORE) };
        let note = staging.dir.join(COMPLETE);
        note.metadata().map_err(|e| io_error("read", &note, e))?;
        Ok(staging)
    }

    /// Returns the directory to build in.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Marks the build as complete. The caller has synced everything except the names in [`Staging::path`]. The next
    /// restore finds `note` if this one does not finish.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn complete(&self, note: &[u8]) -> Result<(), StoreError> {
        let lock = self.dir.join(LOCK);
        match fs::remove_file(&lock) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_error("remove", &lock, e)),
            _ => sync_dir(&self.dir)?,
        }
        let path = self.dir.join(COMPLETE);
        let failed = |e: io::Error| io_error("write", &path, e);
        let mut file = tempfile::NamedTempFile::new_in(&self.dir).map_err(failed)?;
        file.write_all(note).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        file.persist_noclobber(&path).map_err(|e| failed(e.error))?;
        sync_dir(&self.dir)
    }

    /// Moves the parts to their places. Overwrites nothing.
    ///
    /// # Errors
    /// [`StoreError::NotEmpty`] if another process has put something there; [`StoreError::Io`].
    pub fn finish(self) -> Result<Lock, StoreError> {
        while self.move_next()? {}
        sync_dir(self.lock.path())?;
        let note = self.dir.join(COMPLETE);
        fs::remove_file(&note).map_err(|e| io_error("remove", &note, e))?;
        fs::remove_dir(&self.dir).map_err(|e| io_error("remove", &self.dir, e))?;
        sync_dir(self.lock.path())?;
        if let Some(parent) = self.lock.path().parent().filter(|parent| !parent.as_os_str().is_empty()) {
            // This user may lack the right to open the directory above.
            let _ = sync_dir(parent);
        }
        Ok(self.lock)
    }

    /// Moves one part; returns false when none is left.
    fn move_next(&self) -> Result<bool, StoreError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(|e| io_error("read", &self.dir, e))? {
            names.push(entry.map_err(|e| io_error("read", &self.dir, e))?.file_name());
        }
        names.retain(|name| name != COMPLETE);
        names.sort_by_key(|name| name == LAST);
        let Some(name) = names.first() else { return Ok(false) };
        let to = self.lock.path().join(name);
        if to.symlink_metadata().is_ok() {
            let found = name.to_string_lossy().into_owned();
            return Err(StoreError::NotEmpty { dir: self.lock.path().to_owned(), found });
        }
        fs::rename(self.dir.join(name), &to).map_err(|e| io_error("create", &to, e))?;
        Ok(true)
    }

    /// Removes the build.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn abandon(self) -> Result<(), StoreError> {
        self.remove()
    }

    fn remove(&self) -> Result<(), StoreError> {
        match fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &self.dir, e)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds what a restore would build.
    fn built(dir: &Path) -> Staging {
        let staging = Staging::begin(dir).unwrap();
        for part in ["node", "records"] {
            fs::create_dir(staging.path().join(part)).unwrap();
            fs::write(staging.path().join(part).join("db"), part).unwrap();
        }
        fs::write(staging.path().join("identity.key"), "key").unwrap();
        fs::write(staging.path().join("lock"), "").unwrap();
        staging
    }

    fn is_whole(dir: &Path) -> bool {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names == ["identity.key", "lock", "node", "records"] && fs::read(dir.join("node/db")).unwrap() == b"node"
    }

    #[test]
    fn what_was_built_is_moved_as_a_whole() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("a/data");
        assert_eq!(look(&dir).unwrap(), Found::Nothing);
        assert!(!dir.exists());
        let staging = built(&dir);
        assert!(matches!(look(&dir), Err(StoreError::Locked(_))));
        staging.complete(b"note").unwrap();
        let lock = staging.finish().unwrap();
        assert!(is_whole(&dir));
        drop(lock);
        assert!(matches!(look(&dir), Err(StoreError::NotEmpty { .. })));
        assert!(Lock::acquire(&dir).is_ok());
    }

    #[test]
    fn a_beginning_keeps_everybody_else_out_and_is_thrown_away_by_the_next_restore() {
        let tmp = tempfile::tempdir().unwrap();
        drop(built(tmp.path()));
        fs::write(tmp.path().join(RESTORE).join("left over"), "").unwrap();
        assert!(matches!(Lock::acquire(tmp.path()), Err(StoreError::Unfinished(_))));
        assert!(matches!(super::super::share(tmp.path()), Err(StoreError::Unfinished(_))));
        assert_eq!(look(tmp.path()).unwrap(), Found::Nothing);
        let staging = built(tmp.path());
        staging.complete(b"").unwrap();
        staging.finish().unwrap();
        assert!(is_whole(tmp.path()));
    }

    #[test]
    fn one_that_was_cut_off_after_any_number_of_parts_is_finished() {
        for moved in 0..=3 {
            let tmp = tempfile::tempdir().unwrap();
            let staging = built(tmp.path());
            staging.complete(b"note").unwrap();
            for _ in 0..moved {
                assert!(staging.move_next().unwrap());
            }
            assert_eq!(tmp.path().join("identity.key").exists(), moved == 3, "the identity comes last");
            drop(staging);
            assert!(matches!(Lock::acquire(tmp.path()), Err(StoreError::Unfinished(_))), "{moved}");
            assert!(matches!(Staging::begin(tmp.path()), Err(StoreError::NotEmpty { .. })));
            assert_eq!(look(tmp.path()).unwrap(), Found::Complete(b"note".to_vec()));
            Staging::resume(tmp.path()).unwrap().finish().unwrap();
            assert!(is_whole(tmp.path()), "{moved}");
        }
    }

    #[test]
    fn a_kill_at_the_very_end_leaves_a_directory_that_is_used() {
        let tmp = tempfile::tempdir().unwrap();
        let staging = built(tmp.path());
        staging.complete(b"").unwrap();
        staging.finish().unwrap();
        fs::create_dir(tmp.path().join(RESTORE)).unwrap();
        assert!(Lock::acquire(tmp.path()).is_ok());
    }

    #[test]
    fn nothing_is_overwritten_whoever_put_it_there_meanwhile() {
        let tmp = tempfile::tempdir().unwrap();
        let staging = built(tmp.path());
        staging.complete(b"").unwrap();
        fs::write(tmp.path().join("identity.key"), "another one").unwrap();
        assert!(matches!(staging.finish(), Err(StoreError::NotEmpty { found, .. }) if found == "identity.key"));
        assert_eq!(fs::read(tmp.path().join("identity.key")).unwrap(), b"another one");
        let tmp = tempfile::tempdir().unwrap();
        fs::write(tmp.path().join("identity.key"), "x").unwrap();
        assert!(matches!(Staging::begin(tmp.path()), Err(StoreError::NotEmpty { .. })));
        assert_eq!(fs::read(tmp.path().join("identity.key")).unwrap(), b"x");
    }
}
