//! The format of files of chunks: the segments of the log, and the exports of older versions.
//!
//! A file begins with [`MAGIC`]. Frames follow (`codec`: length, CRC-32, payload). The first frame is a header. The
//! chunks follow. If no earlier chunk of the file names a peer of a chunk, the row of the peer comes before that chunk.
//! So each file can be read by itself. An export ends with counts.

use crate::{
    StoreError,
    codec::{self, CodecError},
    frame_writer,
    frames::{self, Frames, Part},
};
use bincode::{Decode, Encode};
use std::path::Path;

/// The first bytes of such a file.
pub const MAGIC: &[u8] = b"dhtstore records 1\n";

/// A frame of a file of chunks.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub enum LogFrame {
    /// The first frame of a file.
    Header {
        /// Version of the format of the chunks.
        chunk_version: u8,
        /// First key that an export covers; 0 in a segment.
        from: u64,
    },
    /// A row of the address book.
    Peer {
        /// Number of the peer.
        id: u32,
        /// Encoded value of the row.
        row: Vec<u8>,
    },
    /// A chunk of the log.
    Chunk {
        /// Its key.
        key: u64,
        /// Its encoded bytes.
        chunk: Vec<u8>,
    },
    /// The last frame of an export.
    End {
        /// Last key that the export covers.
        to: u64,
        /// Number of its chunks.
        chunks: u64,
        /// Number of its rows of peers.
        peers: u64,
    },
}

/// Returns the beginning of a file: [`MAGIC`] and the header.
///
/// # Errors
/// [`StoreError::Database`] if the header cannot be encoded.
pub fn begin(from: u64) -> Result<Vec<u8>, StoreError> {
    let header = frame_writer::frame(&LogFrame::Header { chunk_version: codec::CHUNK_VERSION, from })?;
    Ok([MAGIC, &header].concat())
}

/// Bytes of whole frames that must follow a damaged place before the first of them counts (see `frames`). It is more
/// than a stranger can place in one piece: the longest such piece is a row of the address book.
const JOINED: u64 = 4096;

/// Iterator over the frames behind the header. Bytes that cannot be read give an error; the next item is the first
/// frame after them.
#[derive(Debug)]
pub struct LogFrames {
    frames: Frames<LogFrame>,
    /// The first item, if it is not an intact header.
    first: Option<Result<Part<LogFrame>, CodecError>>,
    extent: Extent,
}

/// Place in the file of the item that was read last.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Extent {
    /// Offset of its first byte.
    pub offset: u64,
    /// Offset behind its last byte.
    pub end: u64,
    /// False for a frame with a damaged length: a row that points to it could not read it.
    pub intact: bool,
}

impl LogFrames {
    /// Opens a file. If its beginning is damaged, the first item is an error that says so, and the first whole frame
    /// follows.
    ///
    /// # Errors
    /// [`CodecError`] if the file cannot be read or has another version.
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
            // If the header is whole, reading goes on behind it.
            if !has_header {
                // Bytes may be missing, so the header may stand elsewhere: search the whole file.
                frames = Frames::open(path, 0, JOINED)?;
            }
            let to = (MAGIC.len() as u64).min(frames.len());
            first = Some(Ok(Part::Damage { at: 0, to, is_cut: false, error }));
        } else if first.is_none() && !has_header {
            let (at, to) = (0, MAGIC.len() as u64);
            let error = CodecError::Malformed("the header is missing".into());
            first = Some(Ok(Part::Damage { at, to, is_cut: true, error }));
        }
        Ok(Self { frames, first, extent: Extent::default() })
    }

    /// Returns the place of the item that was read last.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// Returns the size of the file, in bytes.
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
