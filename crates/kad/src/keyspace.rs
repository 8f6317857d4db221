//! The 256-bit keyspace and XOR distance (KEY-1).

use super::seeded::Seeded;
use libp2p_identity::PeerId;
use sha2::{Digest, Sha256};
use std::fmt;

/// Bits of a key.
pub const BITS: u16 = 256;

/// The deepest bucket for which [`preimage`] searches: 2^16 hashes on average, some 10 ms.
pub const MAX_PREIMAGE_CPL: u16 = 15;

/// A place in the keyspace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key([u8; 32]);

/// The XOR distance between two places; smaller is closer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Distance([u8; 32]);

/// The first `len` bits of a place: a region of the keyspace.
///
/// Regions are ordered by their first key; a region comes before those inside it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prefix {
    /// Zero after the first `len` bits, so that equal regions are equal values.
    bits: [u8; 32],
    len: u16,
}

impl Key {
    /// Creates the place with these 32 bytes, most significant first.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes, most significant first.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the place of a peer: the SHA-256 of its binary peer id.
    pub fn for_peer(peer: &PeerId) -> Self {
        Self::sha256(&peer.to_bytes())
    }

    /// Returns the place of content: the SHA-256 of its multihash (not of the CID).
    pub fn for_content(multihash: &[u8]) -> Self {
        Self::sha256(multihash)
    }

    /// Returns the place of a value: the SHA-256 of its key.
    pub fn for_value(key: &[u8]) -> Self {
        Self::sha256(key)
    }

    fn sha256(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Returns the distance to another place. It is symmetric, and zero only between equal places.
    pub fn distance(&self, other: &Key) -> Distance {
        let mut bytes = self.0;
        for (byte, theirs) in bytes.iter_mut().zip(other.0) {
            *byte ^= theirs;
        }
        Distance(bytes)
    }

    /// Returns the number of leading bits in common, 0..=256.
    pub fn common_prefix_length(&self, other: &Key) -> u16 {
        self.distance(other).leading_zeros()
    }

    /// Returns the region of the first `len` bits. A `len` over 256 counts as 256.
    pub fn prefix(&self, len: u16) -> Prefix {
        let len = len.min(BITS);
        let mut bits = self.0;
        clear_behind(&mut bits, len);
        Prefix { bits, len }
    }

    /// Returns bit `index`, counted from the most significant; false beyond the last.
    pub fn bit(&self, index: u16) -> bool {
        bit(&self.0, index)
    }
}

impl Distance {
    /// Returns the 32 bytes, most significant first.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the number of leading zero bits, 0..=256: the common prefix length of the two places.
    pub fn leading_zeros(&self) -> u16 {
        let mut zeros = 0;
        for byte in self.0 {
            // At most 8, so the cast loses nothing.
            zeros += byte.leading_zeros() as u16;
            if byte != 0 {
                break;
            }
        }
        zeros
    }
}

impl Prefix {
    /// Returns the length in bits, 0..=256.
    pub fn len(&self) -> u16 {
        self.len
    }

    /// Returns whether it is the whole keyspace.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns whether `key` lies in this region.
    pub fn contains(&self, key: &Key) -> bool {
        Key(self.bits).common_prefix_length(key) >= self.len
    }

    /// Returns the two halves: the prefix followed by 0, and by 1. At 256 bits, returns the prefix itself twice.
    pub fn children(&self) -> [Prefix; 2] {
        if self.len >= BITS {
            return [*self, *self];
        }
        let zero = Prefix { bits: self.bits, len: self.len + 1 };
        let mut one = zero;
        flip(&mut one.bits, self.len);
        [zero, one]
    }

    /// Returns the prefix of the same length that differs only in its last bit; `None` for the empty prefix.
    pub fn sibling(&self) -> Option<Prefix> {
        let last = self.len.checked_sub(1)?;
        let mut sibling = *self;
        flip(&mut sibling.bits, last);
        Some(sibling)
    }

    /// Returns the first and the last key in the region.
    pub fn bounds(&self) -> (Key, Key) {
        let mut mask = [0xff; 32];
        clear_behind(&mut mask, self.len);
        let mut last = self.bits;
        for (byte, mask) in last.iter_mut().zip(mask) {
            *byte |= !mask;
        }
        (Key(self.bits), Key(last))
    }
}

fn bit(bytes: &[u8; 32], index: u16) -> bool {
    bytes.get(usize::from(index / 8)).is_some_and(|byte| byte & (0x80 >> (index % 8)) != 0)
}

fn flip(bytes: &mut [u8; 32], index: u16) {
    if let Some(byte) = bytes.get_mut(usize::from(index / 8)) {
        *byte ^= 0x80 >> (index % 8);
    }
}

/// Clears all bits after the first `len`.
fn clear_behind(bytes: &mut [u8; 32], len: u16) {
    for (byte, start) in bytes.iter_mut().zip((0u16..).step_by(8)) {
        *byte &= match len.saturating_sub(start) {
            0 => 0,
            kept @ 1..8 => !(0xff >> kept),
            _ => 0xff,
        };
    }
}

impl fmt::Display for Key {
    /// Writes 64 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Display for Distance {
    /// Writes 64 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Display for Prefix {
    /// Writes the bits as 0 and 1; `*` for the whole keyspace.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("*");
        }
        for index in 0..self.len {
            f.write_str(if bit(&self.bits, index) { "1" } else { "0" })?;
        }
        Ok(())
    }
}

fn hex(bytes: &[u8; 32], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for byte in bytes {
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

/// Searches for a sha2-256 multihash, which is also a valid peer id, whose place has exactly `cpl` bits in common with
/// `near`. The same `seed` gives the same result. Servers hash the key of a FIND_NODE, so a random target inside a
/// bucket can only be found by trying: 2^(cpl+1) hashes on average. Returns `None` if `cpl` is over
/// [`MAX_PREIMAGE_CPL`].
pub fn preimage(near: &Key, cpl: u16, seed: u64) -> Option<Vec<u8>> {
    if cpl > MAX_PREIMAGE_CPL {
        return None;
    }
    let mut random = Seeded::new(seed ^ u64::from(cpl).rotate_left(48));
    // 64 times the average: fails once in e^64 searches.
    let attempts = 64u64 << (cpl + 1);
    let mut multihash = vec![0; 34];
    multihash[0] = 0x12; // sha2-256
    multihash[1] = 0x20; // 32 bytes
    for _ in 0..attempts {
        for chunk in multihash[2..].chunks_exact_mut(8) {
            chunk.copy_from_slice(&random.next().to_be_bytes());
        }
        if Key::for_content(&multihash).common_prefix_length(near) == cpl {
            return Some(multihash);
        }
    }
    None
}

#[cfg(test)]
mod tests;
