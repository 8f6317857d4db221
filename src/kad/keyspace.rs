//! The 256-bit keyspace and XOR distance (KEY-1).

use libp2p::PeerId;

/// A place in the keyspace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key([u8; 32]);

/// XOR distance between two places; smaller is closer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Distance([u8; 32]);

/// The first `len` bits of a place: a region of the keyspace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prefix {
    bits: [u8; 32],
    len: u16,
}

#[expect(unused_variables, missing_docs)]
impl Key {
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
    /// SHA-256 of the binary peer id.
    pub fn for_peer(peer: &PeerId) -> Self {
        todo!()
    }
    /// SHA-256 of the multihash (not of the CID).
    pub fn for_content(multihash: &[u8]) -> Self {
        todo!()
    }
    /// SHA-256 of a value record's key.
    pub fn for_value(key: &[u8]) -> Self {
        todo!()
    }
    pub fn distance(&self, other: &Key) -> Distance {
        todo!()
    }
    /// Leading bits in common, 0..=256.
    pub fn common_prefix_length(&self, other: &Key) -> u16 {
        todo!()
    }
    pub fn prefix(&self, len: u16) -> Prefix {
        todo!()
    }
}

#[expect(unused_variables, missing_docs)]
impl Prefix {
    pub fn len(&self) -> u16 {
        self.len
    }
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    pub fn contains(&self, key: &Key) -> bool {
        todo!()
    }
    /// The two halves: the prefix followed by 0 and by 1. At 256 bits: itself twice.
    pub fn children(&self) -> [Prefix; 2] {
        todo!()
    }
    /// The prefix of the same length that differs in its last bit; `None` for the empty one.
    pub fn sibling(&self) -> Option<Prefix> {
        todo!()
    }
    /// The first and last key below it.
    pub fn bounds(&self) -> (Key, Key) {
        todo!()
    }
}

/// Bytes of a well-formed sha2-256 multihash (so also of a peer id) that hashes to a place with exactly
/// `cpl` bits in common with `near`. Deterministic in `seed`. Servers hash the key of FIND_NODE, so a
/// random target inside a bucket needs this search: 2^(cpl+1) hashes expected, hence `cpl` <= 15 (else `None`).
#[expect(unused_variables)]
pub fn preimage(near: &Key, cpl: u16, seed: u64) -> Option<Vec<u8>> {
    todo!()
}
