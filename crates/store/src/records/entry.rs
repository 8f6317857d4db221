//! What a chunk of the log holds, and the positions of multihashes in the keyspace.

use crate::codec::{self, CodecError};
use bincode::{
    BorrowDecode, Encode,
    de::{BorrowDecoder, read::BorrowReader},
    enc::{Encoder, write::Writer},
    error::{DecodeError, EncodeError},
};
use sha2::{Digest, Sha256};

/// Longest multihash that is stored, in bytes. PRV-1 allows 80 on the wire; a peer cannot make rows longer than this.
pub const MAX_MULTIHASH: usize = dhtstore_records::providers::MAX_MULTIHASH_LEN;

/// What every SHA-256 multihash begins with: its code and its length.
const SHA256: [u8; 2] = [0x12, 32];

/// The first bytes of SHA-256(multihash): the Kademlia position of the content, 12 bytes of which tell 10^8 keys apart
/// (chance of any collision among them: 10^-13). Who makes two keys collide on purpose mixes up the providers of these
/// two; he could as well announce himself for both.
pub type KeyPrefix = [u8; 12];

/// A multihash as it is written: nearly all are of SHA-256, and only their digest is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hashed<'a> {
    /// The digest of a SHA-256 multihash.
    Sha256(&'a [u8; 32]),
    /// Any other multihash, whole, of at most 255 bytes.
    Other(&'a [u8]),
}

/// One entry of a chunk. Its time is that of the chunk.
///
/// Written as a LEB128 number, `peer << 2 | removed << 1 | other`, and the digest, or the length (one byte) and the
/// bytes of another multihash: 34 to 36 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// The key, as announced.
    pub multihash: Hashed<'a>,
    /// Number of the provider in the address book.
    pub peer: u32,
    /// The peer provides it no more: unprovide, eviction and denylists must survive replay.
    pub removed: bool,
}

/// The entries of a chunk.
///
/// # Errors
/// Bytes that are no chunk of this version.
pub fn decode(chunk: &[u8]) -> Result<Vec<Entry<'_>>, CodecError> {
    codec::decode_chunk(chunk, codec::CHUNK_VERSION)
}

impl<'a> Hashed<'a> {
    /// Of the bytes of a multihash.
    pub fn new(multihash: &'a [u8]) -> Self {
        match multihash.strip_prefix(&SHA256).and_then(|digest| digest.try_into().ok()) {
            Some(digest) => Hashed::Sha256(digest),
            None => Hashed::Other(multihash),
        }
    }

    /// The bytes of the multihash.
    #[cfg(test)]
    pub fn to_bytes(self) -> Vec<u8> {
        match self {
            Hashed::Sha256(digest) => [&SHA256[..], digest].concat(),
            Hashed::Other(bytes) => bytes.to_vec(),
        }
    }

    /// See [`KeyPrefix`].
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

/// SHA-256 of the multihash: its position in the keyspace (KEY-1).
pub fn position(multihash: &[u8]) -> [u8; 32] {
    Sha256::digest(multihash).into()
}

/// The part of [`position`] that the index keeps.
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
                let len = u8::try_from(bytes.len()).map_err(|_| EncodeError::Other("multihash of over 255 bytes"))?;
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
                let peer = u32::try_from(number >> 2).map_err(|_| DecodeError::Other("number of a peer too large"))?;
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
        Err(DecodeError::Other("number of a peer too long"))
    }
}

fn take<'de, D: BorrowDecoder<'de>>(decoder: &mut D, bytes: usize) -> Result<&'de [u8], DecodeError> {
    decoder.claim_bytes_read(bytes)?;
    decoder.borrow_reader().take_bytes(bytes)
}
