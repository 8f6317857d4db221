//! The one place where values become bytes and back: a version byte, then bincode. Chunks of the log and frames of
//! files also carry a CRC-32, since sled does not check what the disk returns.
//!
//! Decoding never panics, whatever the bytes: bincode reads under a size limit, and bytes left over are an error.

use super::error::Cause;
use bincode::{BorrowDecode, Decode, Encode, config};
use std::io::Read;

/// Version of the values written today. A value with another first byte is refused.
pub const VERSION: u8 = 1;
/// Version of the chunks of the log written today. Chunks of version 1 are rewritten when the store is opened
/// (`migrations/`).
pub const CHUNK_VERSION: u8 = 2;
/// Version of the rows that say where a chunk lies. A row of schema 2 holds the chunk itself, and begins with one of
/// the versions above.
pub const LOCATION_VERSION: u8 = 3;
/// Maximum size of a value, in bytes. Rows are split long before (a chunk of the log closes at 30 kB).
pub const LIMIT: usize = 1 << 16;
/// Size of the version byte and CRC-32 before the entries of a chunk.
const CHUNK_HEADER: usize = 5;
/// Size of the length and CRC-32 before a frame of a file, both u32 little endian.
pub const FRAME_HEADER: usize = 8;

const CONFIG: config::Configuration<config::LittleEndian, config::Varint, config::Limit<LIMIT>> =
    config::standard().with_limit::<LIMIT>();

/// Why bytes cannot be decoded, or a value not encoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The bytes end before a header or a payload.
    #[error("only {0} bytes")]
    Short(usize),
    /// The version byte is not the expected one.
    #[error("version {0} is not known")]
    Version(u8),
    /// The bytes differ from those that were written.
    #[error("checksum does not match")]
    Checksum,
    /// bincode refused the bytes or the value, or they break a rule of ours.
    #[error("malformed value: {0}")]
    Malformed(#[source] Cause),
    /// The value was read, but bytes follow it.
    #[error("{0} bytes left over")]
    LeftOver(usize),
    /// A frame claims more than [`LIMIT`] bytes.
    #[error("frame of {0} bytes")]
    FrameTooLong(usize),
    /// The file itself cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Encodes a value behind its version byte.
///
/// # Errors
/// [`CodecError::Malformed`] if bincode refuses the value, or if it is too long to be read back.
pub fn encode<T: Encode>(value: &T) -> Result<Vec<u8>, CodecError> {
    encode_as(VERSION, value)
}

/// [`encode`] with another version byte.
///
/// # Errors
/// As [`encode`].
pub fn encode_as<T: Encode>(version: u8, value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![version];
    append(&mut bytes, value)?;
    if bytes.len() > LIMIT {
        return Err(CodecError::Malformed(format!("{} bytes, more than the limit of {LIMIT}", bytes.len()).into()));
    }
    Ok(bytes)
}

/// Appends a value without a version byte: an entry of a chunk under construction.
///
/// # Errors
/// [`CodecError::Malformed`] if bincode refuses the value.
pub fn append<T: Encode>(bytes: &mut Vec<u8>, value: &T) -> Result<(), CodecError> {
    match bincode::encode_into_std_write(value, bytes, CONFIG) {
        Ok(_) => Ok(()),
        Err(e) => Err(CodecError::Malformed(e.into())),
    }
}

/// Encodes like [`append`] into a buffer of fixed size; returns the bytes used.
///
/// # Errors
/// [`CodecError::Malformed`] if bincode refuses the value, or if the buffer is too short.
pub fn fill<T: Encode>(buffer: &mut [u8], value: &T) -> Result<usize, CodecError> {
    bincode::encode_into_slice(value, buffer, CONFIG).map_err(|e| CodecError::Malformed(e.into()))
}

/// Decodes what [`encode`] wrote.
///
/// # Errors
/// Returns an error for every byte string that [`encode`] cannot write; see [`CodecError`].
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_as(VERSION, bytes)
}

/// Decodes what [`encode_as`] wrote.
///
/// # Errors
/// As [`decode`].
pub fn decode_as<T: Decode<()>>(version: u8, bytes: &[u8]) -> Result<T, CodecError> {
    let body = versioned(bytes, version)?;
    let (value, read) = bincode::decode_from_slice(body, CONFIG).map_err(|e| CodecError::Malformed(e.into()))?;
    nothing_after(body, read)?;
    Ok(value)
}

/// Makes a chunk of the log from `count` entries that were [`append`]ed to `body`.
///
/// # Errors
/// [`CodecError::Malformed`] if the count cannot be written.
pub fn chunk(count: u32, body: &[u8]) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::with_capacity(body.len() + CHUNK_HEADER + 9);
    bytes.extend_from_slice(&[CHUNK_VERSION, 0, 0, 0, 0]);
    // bincode puts the length of a `Vec` before its items.
    append(&mut bytes, &u64::from(count))?;
    bytes.extend_from_slice(body);
    let crc = crc32fast::hash(&bytes[CHUNK_HEADER..]);
    bytes[1..CHUNK_HEADER].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

/// Decodes the entries of a chunk of this version, borrowed from it.
///
/// # Errors
/// Returns an error for every byte string that [`chunk`] cannot write; see [`CodecError`].
pub fn decode_chunk<'a, T: BorrowDecode<'a, ()>>(bytes: &'a [u8], version: u8) -> Result<Vec<T>, CodecError> {
    let body = versioned(bytes, version)?;
    let (crc, body) = body.split_first_chunk::<4>().ok_or(CodecError::Short(bytes.len()))?;
    if u32::from_le_bytes(*crc) != crc32fast::hash(body) {
        return Err(CodecError::Checksum);
    }
    let (entries, read) =
        bincode::borrow_decode_from_slice(body, CONFIG).map_err(|e| CodecError::Malformed(e.into()))?;
    nothing_after(body, read)?;
    Ok(entries)
}

/// Encodes a value as a frame of a file: length, CRC-32, version byte, value.
///
/// # Errors
/// As [`encode`].
pub fn frame<T: Encode>(value: &T) -> Result<Vec<u8>, CodecError> {
    let payload = encode(value)?;
    let mut bytes = Vec::with_capacity(FRAME_HEADER + payload.len());
    bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
    bytes.extend_from_slice(&payload);
    Ok(bytes)
}

/// Reads the next frame of a file; `None` at its end.
///
/// # Errors
/// A frame that is cut short, too long, damaged or of another type; see [`CodecError`].
pub fn read_frame<T: Decode<()>>(file: &mut impl Read) -> Result<Option<T>, CodecError> {
    let mut header = Vec::with_capacity(FRAME_HEADER);
    file.by_ref().take(FRAME_HEADER as u64).read_to_end(&mut header)?;
    if header.is_empty() {
        return Ok(None);
    }
    let (Some(len), Some(crc)) = (u32_at(&header, 0), u32_at(&header, 4)) else {
        return Err(CodecError::Short(header.len()));
    };
    let len = len as usize;
    if len > LIMIT {
        return Err(CodecError::FrameTooLong(len));
    }
    let mut payload = Vec::with_capacity(len);
    file.by_ref().take(len as u64).read_to_end(&mut payload)?;
    if payload.len() < len {
        return Err(CodecError::Short(payload.len()));
    }
    if crc32fast::hash(&payload) != crc {
        return Err(CodecError::Checksum);
    }
    decode(&payload).map(Some)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk::<4>()?))
}

fn versioned(bytes: &[u8], wanted: u8) -> Result<&[u8], CodecError> {
    match bytes.split_first() {
        Some((&version, body)) if version == wanted => Ok(body),
        Some((&version, _)) => Err(CodecError::Version(version)),
        None => Err(CodecError::Short(0)),
    }
}

fn nothing_after(body: &[u8], read: usize) -> Result<(), CodecError> {
    match body.len() - read {
        0 => Ok(()),
        left => Err(CodecError::LeftOver(left)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::entry::{Entry, Hashed};
    use proptest::prelude::*;

    #[derive(Encode, Decode, PartialEq, Debug, Clone)]
    struct Row {
        name: Vec<u8>,
        addresses: Vec<Vec<u8>>,
        time: u32,
        maybe: Option<u32>,
    }

    fn row() -> impl Strategy<Value = Row> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..60);
        (bytes(), proptest::collection::vec(bytes(), 0..8), any::<u32>(), any::<Option<u32>>())
            .prop_map(|(name, addresses, time, maybe)| Row { name, addresses, time, maybe })
    }

    fn entries() -> impl Strategy<Value = Vec<(bool, Vec<u8>, u32)>> {
        proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..80), any::<u32>()), 0..300)
    }

    fn entry((remove, multihash, peer): &(bool, Vec<u8>, u32)) -> Entry<'_> {
        Entry { multihash: Hashed::new(multihash), peer: *peer, removed: *remove }
    }

    fn build(entries: &[(bool, Vec<u8>, u32)]) -> Vec<u8> {
        let mut body = Vec::new();
        for e in entries {
            append(&mut body, &entry(e)).unwrap();
        }
        chunk(entries.len() as u32, &body).unwrap()
    }

    proptest! {
        #[test]
        fn a_value_comes_back_as_it_was(row in row()) {
            prop_assert_eq!(decode::<Row>(&encode(&row).unwrap()).unwrap(), row);
        }

        #[test]
        fn a_chunk_comes_back_as_it_was(entries in entries()) {
            let bytes = build(&entries);
            let back: Vec<Entry<'_>> = decode_chunk(&bytes, CHUNK_VERSION).unwrap();
            prop_assert_eq!(back, entries.iter().map(entry).collect::<Vec<_>>());
        }

        #[test]
        fn a_chunk_with_any_bit_flipped_is_refused(entries in entries(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let mut bytes = build(&entries);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode_chunk::<Entry<'_>>(&bytes, CHUNK_VERSION).is_err());
        }

        #[test]
        fn no_byte_string_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), versioned in any::<bool>(), chunk in any::<bool>()) {
            if versioned && !bytes.is_empty() {
                bytes[0] = if chunk { CHUNK_VERSION } else { VERSION };
            }
            let _ = decode::<Row>(&bytes);
            let _ = decode_chunk::<Entry<'_>>(&bytes, CHUNK_VERSION);
            let _ = read_frame::<Row>(&mut bytes.as_slice());
            // A valid checksum, so that the entries are decoded as well.
            if bytes.len() > CHUNK_HEADER {
                let crc = crc32fast::hash(&bytes[CHUNK_HEADER..]).to_le_bytes();
                bytes[1..CHUNK_HEADER].copy_from_slice(&crc);
                let _ = decode_chunk::<Entry<'_>>(&bytes, CHUNK_VERSION);
            }
        }

        #[test]
        fn a_cut_value_is_refused(row in row(), cut in any::<prop::sample::Index>()) {
            let bytes = encode(&row).unwrap();
            prop_assert!(decode::<Row>(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn frames_are_read_in_order_and_a_torn_one_is_an_error(a in row(), b in row(), cut in any::<prop::sample::Index>()) {
            let mut file = frame(&a).unwrap();
            let second = frame(&b).unwrap();
            let whole = file.len();
            file.extend_from_slice(&second);
            let mut all = file.as_slice();
            prop_assert_eq!(read_frame::<Row>(&mut all).unwrap(), Some(a.clone()));
            prop_assert_eq!(read_frame::<Row>(&mut all).unwrap(), Some(b));
            prop_assert_eq!(read_frame::<Row>(&mut all).unwrap(), None);
            let mut torn = &file[..whole + 1 + cut.index(second.len() - 1)];
            prop_assert_eq!(read_frame::<Row>(&mut torn).unwrap(), Some(a));
            prop_assert!(read_frame::<Row>(&mut torn).is_err());
        }
    }

    #[test]
    fn a_length_that_lies_allocates_nothing() {
        // A Vec of 2^60 items, with a valid version byte.
        let bytes = [VERSION, 253, 0, 0, 0, 0, 0, 0, 0, 16];
        assert!(matches!(decode::<Vec<Vec<u8>>>(&bytes), Err(CodecError::Malformed(_))));
        let mut frame = vec![255u8; 64];
        frame[0] = 0;
        assert!(matches!(read_frame::<Vec<u8>>(&mut frame.as_slice()), Err(CodecError::FrameTooLong(_))));
    }
}
