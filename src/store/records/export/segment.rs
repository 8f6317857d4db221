//! A segment: the chunks of the log between two keys, as they are, and the rows of the peers that they name.
//!
//! `records-<from>-<to>-<chunks>.export` holds every chunk that the log held with a key in `from..=to` (hexadecimal) when
//! it was written. Behind a line that says what it is come frames: a header, then each chunk behind the rows of those of
//! its peers that no earlier chunk named, then the counts. So it needs no other file to be understood.

use crate::store::{
    codec::{self, CodecError},
    exports,
};
use bincode::{Decode, Encode};
use std::{
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
};

/// What a segment begins with.
pub const MAGIC: &[u8] = b"dhtstore records 1\n";
const PREFIX: &str = "records-";
const SUFFIX: &str = ".export";
/// What follows the name of one that could not be read whole.
const DAMAGED: &str = ".damaged";

/// A frame of a segment.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub enum Item {
    /// The first.
    Header {
        /// Version of the chunks.
        chunk_version: u8,
        /// First key that the segment stands for.
        from: u64,
    },
    /// A row of the address book, as it is there.
    Peer {
        /// Its number.
        id: u32,
        /// Its value.
        row: Vec<u8>,
    },
    /// A chunk.
    Chunk {
        /// Its key.
        key: u64,
        /// Its value.
        chunk: Vec<u8>,
    },
    /// The last.
    End {
        /// Last key that the segment stands for.
        to: u64,
        /// Chunks in it.
        chunks: u64,
        /// Rows of peers in it.
        peers: u64,
    },
}

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

    /// Reads it.
    ///
    /// # Errors
    /// [`CodecError`]: it is none, or one of another version.
    pub fn read(&self) -> Result<Items, CodecError> {
        let mut file = exports::open(&self.path)?;
        exports::expect(&mut file, MAGIC)?;
        match codec::read_frame(&mut file)? {
            Some(Item::Header { chunk_version: codec::CHUNK_VERSION, from }) if from == self.from => {}
            Some(Item::Header { chunk_version, .. }) if chunk_version != codec::CHUNK_VERSION => {
                return Err(CodecError::Version(chunk_version));
            }
            _ => return Err(CodecError::Malformed("its header is not the one of its name".into())),
        }
        Ok(Items { file, ended: false })
    }
}

/// The frames behind the header, up to the end or to where no frame can be told from the next. A damaged one is passed
/// over; the last item is an error if the end is missing.
#[derive(Debug)]
pub struct Items {
    file: BufReader<File>,
    ended: bool,
}

impl Iterator for Items {
    type Item = Result<Item, CodecError>;

    fn next(&mut self) -> Option<Result<Item, CodecError>> {
        if self.ended {
            return None;
        }
        let item = codec::read_frame(&mut self.file);
        self.ended = match &item {
            Ok(Some(Item::End { .. }) | None) => true,
            Ok(Some(_)) => false,
            // The next frame begins where this one ends.
            Err(CodecError::Checksum | CodecError::Malformed(_) | CodecError::Version(_) | CodecError::LeftOver(_)) => {
                false
            }
            Err(CodecError::Short(_) | CodecError::FrameTooLong(_) | CodecError::Io(_)) => true,
        };
        Some(item.and_then(|item| item.ok_or_else(|| CodecError::Malformed("its end is missing".into()))))
    }
}
