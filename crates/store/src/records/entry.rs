//! Entries of a chunk, and the positions of multihashes in the keyspace.

use crate::codec::{self, CodecError};
use bincode::{
    BorrowDecode, Encode,
    de::{BorrowDecoder, read::BorrowReader},
    enc::{Encoder, write::Writer},
    error::{DecodeError, EncodeError},
};
use sha2::{Digest, Sha256};

/// Limit of a multihash that is stored, in bytes. PRV-1 allows 80 on the wire. This limit bounds the size of the rows
/// that a peer can cause.
pub const MAX_MULTIHASH: usize = dhtstore_records::providers::MAX_MULTIHASH_LEN;

/// First bytes of every SHA-256 multihash: the code and the length.
const SHA256: [u8; 2] = [0x12, 32];

/// The first 12 bytes of the Kademlia position of the content, SHA-256(multihash). They tell 10^8 keys apart: the
/// chance of any collision among these is 10^-13. An attacker who makes two keys collide only mixes up the providers of
/// these two. He could instead announce himself for both.
pub type KeyPrefix = [u8; 12];

/// A multihash as the log stores it. Nearly all are SHA-256, and of these the log keeps only the digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hashed<'a> {
    /// The digest of a SHA-256 multihash.
    Sha256(&'a [u8; 32]),
    /// All bytes of any other multihash, at most 255.
    Other(&'a [u8]),
}

/// An entry of a chunk. Its time is that of the chunk.
///
/// It is encoded as a LEB128 number, `peer << 2 | removed << 1 | other`, and the multihash. A SHA-256 multihash is
/// encoded as its digest. Any other multihash (`other`) is encoded as a length of one byte, and its bytes. Most entries
/// take 34 to 36 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// The key, as announced.
    pub multihash: Hashed<'a>,
    /// Number of the provider in the address book.
    pub peer: u32,
    /// True for a removal. Removals are logged so that unprovide, eviction and denylists survive replay.
    pub removed: bool,
}

/// Decodes the entries of a chunk.
///
/// # Errors
/// [`CodecError`] if the bytes are no chunk of this version.
pub fn decode(chunk: &[u8]) -> Result<Vec<Entry<'_>>, CodecError> {
    codec::decode_chunk(chunk, codec::CHUNK_VERSION)
}

impl<'a> Hashed<'a> {
    /// Makes it from the bytes of a multihash.
    pub fn new(multihash: &'a [u8]) -> Self {
        match multihash.strip_prefix(&SHA256).and_then(|digest| digest.try_into().ok()) {
            Some(digest) => Hashed::Sha256(digest),
            None => Hashed::Other(multihash),
        }
    }

    /// Returns the bytes of the multihash.
    #[cfg(test)]
    pub fn to_bytes(self) -> Vec<u8> {
        match self {
            Hashed::Sha256(digest) => [&SHA256[..], digest].concat(),
            Hashed::Other(bytes) => bytes.to_vec(),
        }
    }

    /// Computes the [`KeyPrefix`].
    pub fn key_prefix(self) -> KeyPrefix {
        let position: [u8; 32] = match self {
            Hashed::Sha256(digest) => {
                let mut multihash = [0; 34];
                multihash[..2].copy_from_slice(&SHA256);
                multihash[2..].copy_from_slice(digest);
                Sha256::digest(multihash).into()
            }
            Hashed::Other(bytes) => Sha256::digest(bytes).into(),
        };
        std::array::from_fn(|i| position[i])
    }
}

/// Computes the position of a multihash in the keyspace: its SHA-256 (KEY-1).
pub fn position(multihash: &[u8]) -> [u8; 32] {
    Sha256::digest(multihash).into()
}

/// Computes the part of [`position`] that the index keeps.
pub fn key_prefix(multihash: &[u8]) -> KeyPrefix {
    Hashed::new(multihash).key_prefix()
}

impl Encode for Entry<'_> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let other = matches!(self.multihash, Hashed::Other(_));
        let mut number = u64::from(self.peer) << 2 | u64::from(self.removed) << 1 | u64::from(other);
        while number >= 0x80 {
            encoder.writer().write(&[number as u8 | 0x80])?;
            number >>= 7;
        }
        encoder.writer().write(&[number as u8])?;
        match self.multihash {
            Hashed::Sha256(digest) => encoder.writer().write(digest),
            Hashed::Other(bytes) => {
                let len =
                    u8::try_from(bytes.len()).map_err(|_| EncodeError::Other("multihash is longer than 255 bytes"))?;
                encoder.writer().write(&[len])?;
                encoder.writer().write(bytes)
            }
        }
    }
}

impl<'de, C> BorrowDecode<'de, C> for Entry<'de> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let mut number = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = take(decoder, 1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                let peer =
                    u32::try_from(number >> 2).map_err(|_| DecodeError::Other("number of a peer is too large"))?;
                let multihash = if number & 1 == 0 {
                    let digest = take(decoder, 32)?;
                    Hashed::Sha256(digest.try_into().map_err(|_| DecodeError::UnexpectedEnd { additional: 32 })?)
                } else {
                    let len = take(decoder, 1)?[0];
                    Hashed::Other(take(decoder, len.into())?)
                };
                return Ok(Entry { multihash, peer, removed: number & 2 != 0 });
            }
        }
        Err(DecodeError::Other("number of a peer is too long"))
    }
}

fn take<'de, D: BorrowDecoder<'de>>(decoder: &mut D, bytes: usize) -> Result<&'de [u8], DecodeError> {
    decoder.claim_bytes_read(bytes)?;
    decoder.borrow_reader().take_bytes(bytes)
}
