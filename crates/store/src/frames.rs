//! Files of frames (`codec`), read in spite of damage: behind a frame that cannot be read the next one is looked for.
//!
//! Where only the payload is damaged the length still leads to the next frame. Where it does not, each offset is tried: a
//! frame counts if its checksum and its content are right and enough follows it. What is inside of a damaged frame may
//! have been chosen by strangers, who could put a frame of theirs there; but not one that joins what follows.

use super::codec::{self, CodecError, FRAME_HEADER, LIMIT};
use bincode::Decode;
use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    marker::PhantomData,
    os::unix::fs::FileExt,
    path::Path,
};

/// Offsets that are tried with one reading of the file.
const WINDOW: usize = 1 << 20;
/// Bytes under checksums that are computed at most at one damaged place: a second's work. Only bytes that were made for it
/// need so many.
const TRIED_BYTES_MAX: u64 = 4 << 30;

/// What stands in a file, one after another.
#[derive(Debug)]
pub enum Part<T> {
    /// A frame.
    Frame {
        /// Where it lies.
        at: u64,
        /// Its bytes.
        bytes: u32,
        /// False if its length was damaged: it can be read only by what follows it.
        intact: bool,
        /// Its value.
        item: T,
    },
    /// Bytes that are no frame.
    Damage {
        /// First byte.
        at: u64,
        /// Behind the last byte.
        to: u64,
        /// The beginning of a frame that ends with the file: as a kill in the middle of a write leaves it.
        is_cut: bool,
        /// Why it cannot be read.
        error: CodecError,
    },
}

/// Reads the frames of a file in their order. Ends with the file, or with its first [`CodecError::Io`].
#[derive(Debug)]
pub struct Frames<T> {
    file: Counted,
    len: u64,
    /// Bytes of whole frames that must follow damage unless they end the file.
    joined: u64,
    /// Found behind damage, and not returned yet.
    next: Option<Part<T>>,
    ended: bool,
    item: PhantomData<T>,
}

/// Knows where in the file it is.
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
    /// Reads `path` from `at`. `joined`: so many bytes of whole frames must follow a damaged place for the first of them
    /// to count; 0 where no stranger chooses what is in the file.
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

    /// Bytes of the file when it was opened.
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

    /// What stands at `at` is no frame.
    fn damage(&mut self, at: u64, error: CodecError) -> Result<Part<T>, CodecError> {
        // It may have grown.
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

    /// Where the next frame begins.
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

    /// Whether enough whole frames begin at `from`, or all up to the end of the file.
    fn is_joined(&self, from: u64) -> Result<bool, CodecError> {
        let mut at = from;
        while at < self.len && at - from < self.joined {
            match self.frame_at(at)? {
                Some((next, _)) => at = next,
                // The file is cut there.
                None => return Ok(at > from && self.is_beginning(at)?),
            }
        }
        Ok(true)
    }

    /// The frame at `at`, and where the next one begins.
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

    /// The frame at `at` if it is whole but for its length, since the next one begins at `to`.
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

    /// Whether what is left of the file from `at` on could be the beginning of one frame.
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

/// Opens a file for reading.
///
/// # Errors
/// That of the file system.
pub fn open(path: &Path) -> Result<BufReader<File>, CodecError> {
    Ok(BufReader::with_capacity(1 << 16, File::open(path)?))
}

/// Takes `wanted` off the front of a file.
///
/// # Errors
/// [`CodecError`] if something else stands there.
pub fn expect(file: &mut impl Read, wanted: &[u8]) -> Result<(), CodecError> {
    let mut found = Vec::with_capacity(wanted.len());
    file.by_ref().take(wanted.len() as u64).read_to_end(&mut found)?;
    match found == wanted {
        true => Ok(()),
        false => Err(CodecError::Malformed("it does not begin as such files do".into())),
    }
}

fn bytes(at: u64, to: u64) -> u32 {
    u32::try_from(to - at).unwrap_or(u32::MAX)
}

/// Length and checksum at `at`; `None` if the file ends there.
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

/// The payload of a frame at the start of `bytes`, by its length and version alone.
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
