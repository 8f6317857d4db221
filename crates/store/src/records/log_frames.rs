//! What files of chunks are made of: the segments of the log, and the exports of older versions.
//!
//! Behind a line that says what it is come frames (`codec`: length, CRC-32): a header, then each chunk behind the rows of
//! those of its peers that no earlier chunk of the file named, and in an export the counts at the end. So a file needs no
//! other one to be understood.

use crate::{
    StoreError,
    codec::{self, CodecError},
    frame_writer,
    frames::{self, Frames, Part},
};
use bincode::{Decode, Encode};
use std::path::Path;

/// What such a file begins with.
pub const MAGIC: &[u8] = b"dhtstore records 1\n";

/// A frame.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub enum LogFrame {
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
    let header = frame_writer::frame(&LogFrame::Header { chunk_version: codec::CHUNK_VERSION, from })?;
    Ok([MAGIC, &header].concat())
}

/// Bytes of whole frames that must follow a damaged place for the first of them to count: more than a stranger can have
/// written as one piece. A row of the address book holds the most of one peer.
const JOINED: u64 = 4096;

/// The frames behind the header. What cannot be read is an error, and the next is the first frame behind it.
#[derive(Debug)]
pub struct LogFrames {
    frames: Frames<LogFrame>,
    /// Read to see whether it is the header, and it was not.
    first: Option<Result<Part<LogFrame>, CodecError>>,
    extent: Extent,
}

/// Where the part of a file lies that was read last.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Extent {
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Behind its last byte.
    pub end: u64,
    /// False of a frame whose length is damaged: it cannot be read where it lies.
    pub intact: bool,
}

impl LogFrames {
    /// Reads a file. One whose beginning is damaged is read from its first whole frame on, behind an error that says so.
    ///
    /// # Errors
    /// [`CodecError`]: it cannot be read, or is one of another version.
    pub fn open(path: &Path) -> Result<Self, CodecError> {
        let no_magic = match frames::expect(&mut frames::open(path)?, MAGIC) {
            Err(error @ CodecError::Io(_)) => return Err(error),
            outcome => outcome.err(),
        };
        let mut frames = Frames::open(path, MAGIC.len() as u64, JOINED)?;
        let mut first = frames.next();
        let (has_header, is_whole) = match &first {
            Some(Ok(Part::Frame { item: LogFrame::Header { chunk_version, .. }, .. }))
                if *chunk_version != codec::CHUNK_VERSION =>
            {
                return Err(CodecError::Version(*chunk_version));
            }
            Some(Ok(Part::Frame { item: LogFrame::Header { .. }, intact, .. })) => (true, *intact),
            _ => (false, false),
        };
        if is_whole {
            first = None;
        }
        if let Some(error) = no_magic {
            // The header may be whole all the same: then all behind it is read.
            if !has_header {
                // Bytes may be missing, so that not even the header stands in its place.
                frames = Frames::open(path, 0, JOINED)?;
            }
            let to = (MAGIC.len() as u64).min(frames.len());
            first = Some(Ok(Part::Damage { at: 0, to, is_cut: false, error }));
        } else if first.is_none() && !has_header {
            let (at, to) = (0, MAGIC.len() as u64);
            let error = CodecError::Malformed("it has no header".into());
            first = Some(Ok(Part::Damage { at, to, is_cut: true, error }));
        }
        Ok(Self { frames, first, extent: Extent::default() })
    }

    /// Where the last item lies.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.frames.len()
    }
}

impl Iterator for LogFrames {
    type Item = Result<LogFrame, CodecError>;

    fn next(&mut self) -> Option<Result<LogFrame, CodecError>> {
        let part = self.first.take().or_else(|| self.frames.next())?;
        Some(part.and_then(|part| match part {
            Part::Frame { at, bytes, intact, item } => {
                self.extent = Extent { offset: at, end: at + u64::from(bytes), intact };
                Ok(item)
            }
            Part::Damage { at, to, error, .. } => {
                self.extent = Extent { offset: at, end: to, intact: false };
                Err(error)
            }
        }))
    }
}

#[cfg(test)]
mod tests;
