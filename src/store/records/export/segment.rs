//! A segment of `exports/`, by its name.
//!
//! `records-<from>-<to>-<chunks>.export` holds every chunk that the log held with a key in `from..=to` (hexadecimal) when
//! it was written, as `frames` tells.

use crate::store::{
    codec::CodecError,
    records::{
        entry,
        frames::{Item, Items},
    },
};
use std::{
    fs,
    path::{Path, PathBuf},
};

const PREFIX: &str = "records-";
const SUFFIX: &str = ".export";
/// What follows the name of one that could not be read whole.
const DAMAGED: &str = ".damaged";

/// A segment by its name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Segment {
    /// First key that it stands for.
    pub from: u64,
    /// Last key: that of its last chunk.
    pub to: u64,
    /// Chunks in it.
    pub chunks: u64,
    /// Where it is.
    pub path: PathBuf,
}

impl Segment {
    /// The name of a file.
    pub fn name(from: u64, to: u64, chunks: u64) -> String {
        format!("{PREFIX}{from:016x}-{to:016x}-{chunks}{SUFFIX}")
    }

    fn parse(path: PathBuf, suffix: &str) -> Option<Self> {
        let mut parts = path.file_name()?.to_str()?.strip_prefix(PREFIX)?.strip_suffix(suffix)?.split('-');
        let (from, to, chunks, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else { return None };
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let (from, to, chunks) = (number(from)?, number(to)?, chunks.parse().ok()?);
        (from <= to).then_some(Self { from, to, chunks, path })
    }

    /// Those of a directory, by their first keys; none if it cannot be read.
    pub fn list(dir: &Path) -> Vec<Self> {
        Self::list_with(dir, SUFFIX)
    }

    /// Those that were found damaged.
    pub fn list_damaged(dir: &Path) -> Vec<Self> {
        Self::list_with(dir, &format!("{SUFFIX}{DAMAGED}"))
    }

    fn list_with(dir: &Path, suffix: &str) -> Vec<Self> {
        let paths = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut found: Vec<Self> = paths.filter_map(|path| Self::parse(path, suffix)).collect();
        found.sort();
        found
    }

    /// Renames it, so that what it stood for is exported anew.
    pub fn set_aside(&self) {
        let mut aside = self.path.clone().into_os_string();
        aside.push(DAMAGED);
        if let Err(error) = fs::rename(&self.path, &aside) {
            tracing::warn!(path = %self.path.display(), %error, "a damaged export cannot be renamed");
        }
    }

    /// Removes it.
    pub fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "an old export cannot be removed");
        }
    }

    /// Reads all of it: every checksum, every entry, and whether it holds what its name says.
    ///
    /// # Errors
    /// [`CodecError`]: the first damage.
    pub fn verify(&self) -> Result<(), CodecError> {
        let mut chunks = 0;
        for item in self.read()? {
            match item? {
                Item::Chunk { key, chunk } => {
                    entry::decode(&chunk)?;
                    chunks += u64::from((self.from..=self.to).contains(&key));
                }
                Item::End { .. } if chunks == self.chunks => return Ok(()),
                Item::End { .. } => break,
                Item::Header { .. } | Item::Peer { .. } => {}
            }
        }
        Err(CodecError::Malformed(format!("it ends with {chunks} of {} chunks", self.chunks)))
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`CodecError`]: it is none, or one of another version.
    pub fn read(&self) -> Result<Items, CodecError> {
        let items = Items::open(&self.path)?;
        match items.from() {
            // Damage to the header alone: what follows is what the name says.
            None => Ok(items),
            Some(from) if from == self.from => Ok(items),
            Some(_) => Err(CodecError::Malformed("its header is not the one of its name".into())),
        }
    }
}
