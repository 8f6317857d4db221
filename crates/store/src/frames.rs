//! Reader of files of frames (`codec`). It skips damage: after a frame that cannot be read it searches for the next
//! one.
//!
//! If only the payload is damaged, the length still leads to the next frame. If the length is damaged too, the reader
//! tries each offset. A frame found there counts if its checksum and its content are right and enough whole frames
//! follow it. Strangers may have chosen the bytes inside a damaged frame and may have put a frame of their own there.
//! But they cannot make that frame join the frames that follow.

use super::codec::{self, CodecError, FRAME_HEADER, LIMIT};
use bincode::Decode;
use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    marker::PhantomData,
    os::unix::fs::FileExt,
    path::Path,
};

/// Offsets that one read of the file covers in a search.
const WINDOW: usize = 1 << 20;
/// Limit of the bytes that are checksummed in the search behind one damaged place: about a second of work. Only bytes
/// crafted to slow the search down reach it.
const TRIED_BYTES_MAX: u64 = 4 << 30;

/// A piece of a file.
#[derive(Debug)]
pub enum Part<T> {
    /// A frame.
    Frame {
        /// Offset in the file.
        at: u64,
        /// Size with its header, in bytes.
        bytes: u32,
        /// False if its length is damaged. The start of the next frame then shows where it ends.
        intact: bool,
        /// The decoded value.
        item: T,
    },
    /// Bytes that are no frame.
    Damage {
        /// Offset of the first byte.
        at: u64,
        /// Offset behind the last byte.
        to: u64,
        /// True if a frame begins here and the file ends inside it, as after a kill in the middle of a write.
        is_cut: bool,
        /// Why it cannot be read.
        error: CodecError,
    },
}

/// Iterator over the frames of a file, in order. Ends with the file, or after the first [`CodecError::Io`].
#[derive(Debug)]
pub struct Frames<T> {
    file: Counted,
    len: u64,
    /// Bytes of whole frames that must follow a damaged place, unless the file ends before that.
    joined: u64,
    /// A frame that was recovered from the damage returned last. It is returned next.
    next: Option<Part<T>>,
    ended: bool,
    item: PhantomData<T>,
}

/// A reader that counts its position in the file.
#[derive(Debug)]
struct Counted {
    file: BufReader<File>,
    at: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl<T: Decode<()>> Frames<T> {
    /// Opens `path` at the offset `at`. After a damaged place, a frame counts only if it and the whole frames after it
    /// have `joined` bytes, or reach the end of the file. Pass 0 if strangers choose nothing in the file.
    ///
    /// # Errors
    /// [`CodecError::Io`].
    pub fn open(path: &Path, at: u64, joined: u64) -> Result<Self, CodecError> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(at))?;
        let file = Counted { file: BufReader::with_capacity(1 << 16, file), at };
        Ok(Self { file, len, joined, next: None, ended: false, item: PhantomData })
    }

    /// Returns the size of the file, in bytes, when it was opened or at the last damaged place.
    pub fn len(&self) -> u64 {
        self.len
    }

    fn read(&mut self) -> Result<Option<Part<T>>, CodecError> {
        if let Some(next) = self.next.take() {
            return Ok(Some(next));
        }
        let at = self.file.at;
        match codec::read_frame(&mut self.file) {
            Ok(None) => Ok(None),
            Ok(Some(item)) => Ok(Some(Part::Frame { at, bytes: bytes(at, self.file.at), intact: true, item })),
            Err(CodecError::Io(error)) => Err(error.into()),
            Err(error) => self.damage(at, error).map(Some),
        }
    }

    /// Handles bytes at `at` that are no frame, and moves to the next frame.
    fn damage(&mut self, at: u64, error: CodecError) -> Result<Part<T>, CodecError> {
        // The file may have grown.
        self.len = self.len.max(self.file().metadata()?.len());
        let next = self.resume(at)?;
        let to = next.unwrap_or(self.len).max(at);
        self.file.file.seek(SeekFrom::Start(to))?;
        self.file.at = to;
        let found = self.without_length(at, to)?;
        let is_cut = next.is_none() && found.is_none() && self.is_beginning(at)?;
        self.next = found;
        Ok(Part::Damage { at, to, is_cut, error })
    }

    fn file(&self) -> &File {
        self.file.file.get_ref()
    }

    /// Returns the offset of the next frame behind the damage at `at`.
    fn resume(&self, at: u64) -> Result<Option<u64>, CodecError> {
        let file = self.file();
        if let Some((len, _)) = header(file, at)?
            && len <= LIMIT as u64
        {
            let next = at + FRAME_HEADER as u64 + len;
            if len > 0 && next < self.len && self.frame_at(next)?.is_some() {
                return Ok(Some(next));
            }
        }
        let (mut base, mut tried) = (at + 1, 0);
        while base < self.len {
            let mut window = vec![0; usize::try_from(self.len - base).unwrap_or(usize::MAX).min(WINDOW + LIMIT)];
            file.read_exact_at(&mut window, base)?;
            for offset in 0..window.len().min(WINDOW) {
                let Some(payload) = payload(&window[offset..]) else { continue };
                tried += payload.len() as u64;
                if tried > TRIED_BYTES_MAX {
                    return Ok(None);
                }
                let found = base + offset as u64;
                if is_frame::<T>(&window[offset..], payload) && self.is_joined(found)? {
                    return Ok(Some(found));
                }
            }
            base += WINDOW as u64;
        }
        Ok(None)
    }

    /// Returns true if the bytes from `from` on are whole frames, for `joined` bytes or up to the end of the file.
    fn is_joined(&self, from: u64) -> Result<bool, CodecError> {
        let mut at = from;
        while at < self.len && at - from < self.joined {
            match self.frame_at(at)? {
                Some((next, _)) => at = next,
                // The last frame may be cut off by the end of the file.
                None => return Ok(at > from && self.is_beginning(at)?),
            }
        }
        Ok(true)
    }

    /// Reads the frame at `at`. Returns the offset behind it, and its value.
    fn frame_at(&self, at: u64) -> Result<Option<(u64, T)>, CodecError> {
        let Some((len, _)) = header(self.file(), at)? else { return Ok(None) };
        let end = at.saturating_add(FRAME_HEADER as u64).saturating_add(len);
        if len > LIMIT as u64 || end > self.len {
            return Ok(None);
        }
        let mut bytes = vec![0; bytes(at, end) as usize];
        self.file().read_exact_at(&mut bytes, at)?;
        Ok(codec::read_frame(&mut &bytes[..]).ok().flatten().map(|item| (end, item)))
    }

    /// Reads a frame at `at` whose length is damaged: it ends at `to`, where the next frame begins.
    fn without_length(&self, at: u64, to: u64) -> Result<Option<Part<T>>, CodecError> {
        let Some((_, crc)) = header(self.file(), at)? else { return Ok(None) };
        let payload_at = at + FRAME_HEADER as u64;
        if payload_at >= to || to - payload_at > LIMIT as u64 {
            return Ok(None);
        }
        let mut payload = vec![0; bytes(payload_at, to) as usize];
        self.file().read_exact_at(&mut payload, payload_at)?;
        let item = (crc32fast::hash(&payload) == crc).then(|| codec::decode(&payload).ok()).flatten();
        Ok(item.map(|item| Part::Frame { at, bytes: bytes(at, to), intact: false, item }))
    }

    /// Returns true if the rest of the file from `at` on may be the beginning of one frame.
    fn is_beginning(&self, at: u64) -> Result<bool, CodecError> {
        Ok(match header(self.file(), at)? {
            None => true,
            Some((len, _)) => len <= LIMIT as u64 && at + FRAME_HEADER as u64 + len > self.len,
        })
    }
}

impl<T: Decode<()>> Iterator for Frames<T> {
    type Item = Result<Part<T>, CodecError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let part = self.read();
        self.ended = !matches!(part, Ok(Some(_)));
        part.transpose()
    }
}

/// Opens a file for buffered reading.
///
/// # Errors
/// [`CodecError::Io`].
pub fn open(path: &Path) -> Result<BufReader<File>, CodecError> {
    Ok(BufReader::with_capacity(1 << 16, File::open(path)?))
}

/// Reads `wanted` from the start of a file.
///
/// # Errors
/// [`CodecError`] if the file begins with other bytes.
pub fn expect(file: &mut impl Read, wanted: &[u8]) -> Result<(), CodecError> {
    let mut found = Vec::with_capacity(wanted.len());
    file.by_ref().take(wanted.len() as u64).read_to_end(&mut found)?;
    match found == wanted {
        true => Ok(()),
        false => Err(CodecError::Malformed("the magic bytes at the start are wrong".into())),
    }
}

fn bytes(at: u64, to: u64) -> u32 {
    u32::try_from(to - at).unwrap_or(u32::MAX)
}

/// Reads the length and the checksum at `at`. Returns `None` if the file ends there.
fn header(file: &File, at: u64) -> io::Result<Option<(u64, u32)>> {
    let mut bytes = [0; FRAME_HEADER];
    match file.read_exact_at(&mut bytes, at) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let [a, b, c, d, e, f, g, h] = bytes;
    Ok(Some((u32::from_le_bytes([a, b, c, d]).into(), u32::from_le_bytes([e, f, g, h]))))
}

/// Returns the payload of a frame that may begin with `bytes`. Checks only its length and version.
fn payload(bytes: &[u8]) -> Option<&[u8]> {
    let len = u32::from_le_bytes(*bytes.first_chunk::<4>()?) as usize;
    let payload = bytes.get(FRAME_HEADER..)?;
    (len <= LIMIT && payload.first() == Some(&codec::VERSION)).then(|| payload.get(..len)).flatten()
}

fn is_frame<T: Decode<()>>(bytes: &[u8], payload: &[u8]) -> bool {
    let crc = bytes.get(4..).and_then(<[u8]>::first_chunk::<4>).map(|crc| u32::from_le_bytes(*crc));
    crc == Some(crc32fast::hash(payload)) && codec::decode::<T>(payload).is_ok()
}

#[cfg(test)]
mod tests;
