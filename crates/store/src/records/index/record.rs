//! A record of the index, the hash that places it, and the result of a probe for it.

use crate::records::entry::KeyPrefix;
use siphasher::sip::SipHasher13;

/// The secret hash that places keys and peers. It is secret because strangers choose both.
#[derive(Clone, Debug)]
pub struct Secret(SipHasher13);

impl Secret {
    /// Makes it from two keys for SipHash.
    pub fn new((k0, k1): (u64, u64)) -> Self {
        Self(SipHasher13::new_with_keys(k0, k1))
    }

    /// Hashes a key.
    pub fn of(&self, prefix: &KeyPrefix) -> u64 {
        self.0.hash(prefix)
    }

    /// Hashes a provider of one key.
    pub fn of_peer(&self, peer: u32) -> u64 {
        self.0.hash(&peer.to_le_bytes())
    }
}

/// A record in a table.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Its key.
    pub prefix: KeyPrefix,
    /// Number of its provider.
    pub peer: u32,
    /// Time of the chunk that names it, Unix seconds.
    pub time: u32,
}

/// The result of a probe for a record.
#[derive(Debug)]
pub enum Slot<'s> {
    /// The record is there, and this is its time.
    Known(&'s mut u32),
    /// The record is not there, and its key has this number of other providers.
    Others(usize),
}
