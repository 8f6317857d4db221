//! What a chunk of the log holds, and how a multihash finds its place.

use bincode::{BorrowDecode, Encode};
use sha2::{Digest, Sha256};

/// Longest multihash that is stored, in bytes. PRV-1 allows 80 on the wire; a peer cannot make rows longer than this.
pub const MAX_MULTIHASH: usize = 128;

/// The first half of SHA-256(multihash): the Kademlia position of the content, 16 bytes of which tell 10^8 keys apart
/// (chance of any collision among them: 10^-23).
pub type Place = [u8; 16];

/// One entry of a chunk. Its time is that of the chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, BorrowDecode)]
pub enum Entry<'a> {
    /// The peer provides the multihash.
    Add {
        /// The key, as announced.
        multihash: &'a [u8],
        /// Number of the provider in the address book.
        peer: u32,
    },
    /// It does so no more: unprovide, eviction and denylists must survive replay.
    Remove {
        /// The key, as announced.
        multihash: &'a [u8],
        /// Number of the provider in the address book.
        peer: u32,
    },
}

/// SHA-256 of the multihash: its place in the keyspace (KEY-1).
pub fn position(multihash: &[u8]) -> [u8; 32] {
    Sha256::digest(multihash).into()
}

/// The part of [`position`] that the index keeps.
pub fn place(multihash: &[u8]) -> Place {
    let mut place = [0; 16];
    place.copy_from_slice(&position(multihash)[..16]);
    place
}
