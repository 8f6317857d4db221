//! What files of chunks are made of: the segments of the log and those of `exports/`.
//!
//! Behind a line that says what it is come frames (`codec`: length, CRC-32): a header, then each chunk behind the rows of
//! those of its peers that no earlier chunk of the file named, and in an export the counts at the end. So a file needs no
//! other one to be understood.

use crate::store::{
    StoreError,
    codec::{self, CodecError},
    exports,
};
use bincode::{Decode, Encode};
use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

/// What such a file begins with.
pub const MAGIC: &[u8] = b"dhtstore records 1\n";

/// A frame.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub enum Item {
    /// The first.
    Header {
        /// Version of the chunks.
        chunk_version: u8,
        /// First key that an export stands for; 0 in the log.
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
    /// The last of an export.
    End {
        /// Last key that it stands for.
        to: u64,
        /// Chunks in it.
        chunks: u64,
        /// Rows of peers in it.
        peers: u64,
    },
}

/// The beginning of a file: [`MAGIC`] and the header.
///
/// # Errors
/// [`StoreError::Database`] if the header cannot be encoded.
pub fn begin(from: u64) -> Result<Vec<u8>, StoreError> {
    let header = exports::frame(&Item::Header { chunk_version: codec::CHUNK_VERSION, from })?;
    Ok([MAGIC, &header].concat())
}

/// The frames behind the header, up to the end or to where no frame can be told from the next. A damaged one is passed
/// over; the last item is an error if a frame is cut short.
#[derive(Debug)]
pub struct Items {
    file: Counted,
    from: u64,
    ended: bool,
}

/// Counts the bytes that were read.
#[derive(Debug)]
struct Counted {
    file: BufReader<File>,
    read: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.read += n as u64;
        Ok(n)
    }
}

impl Items {
    /// Reads a file.
    ///
    /// # Errors
    /// [`CodecError`]: it is none, or one of another version.
    pub fn open(path: &Path) -> Result<Self, CodecError> {
        let mut file = Counted { file: exports::open(path)?, read: 0 };
        exports::expect(&mut file, MAGIC)?;
        match codec::read_frame(&mut file)? {
            Some(Item::Header { chunk_version: codec::CHUNK_VERSION, from }) => Ok(Self { file, from, ended: false }),
            Some(Item::Header { chunk_version, .. }) => Err(CodecError::Version(chunk_version)),
            _ => Err(CodecError::Malformed("it has no header".into())),
        }
    }

    /// What the header says.
    pub fn from(&self) -> u64 {
        self.from
    }

    /// Where the next frame begins, in bytes from the start of the file.
    pub fn offset(&self) -> u64 {
        self.file.read
    }
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
        item.transpose()
    }
}
