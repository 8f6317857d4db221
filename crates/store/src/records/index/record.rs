//! A record of the index, the hash that places it, and what a probe for it finds.

use crate::records::entry::KeyPrefix;
use siphasher::sip::SipHasher13;

/// What places keys and peers: both are chosen by strangers.
#[derive(Clone, Debug)]
pub struct Secret(SipHasher13);

impl Secret {
    /// From the keys of SipHash.
    pub fn new((k0, k1): (u64, u64)) -> Self {
        Self(SipHasher13::new_with_keys(k0, k1))
    }

    /// The hash of a key.
    pub fn of(&self, prefix: &KeyPrefix) -> u64 {
        self.0.hash(prefix)
    }

    /// The hash of a provider of one key.
    pub fn of_peer(&self, peer: u32) -> u64 {
        self.0.hash(&peer.to_le_bytes())
    }
}

/// One record in a table.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Its key.
    pub prefix: KeyPrefix,
    /// Its provider.
    pub peer: u32,
    /// Time of the chunk that names it, Unix seconds.
    pub time: u32,
}

/// What one probe tells of a record.
#[derive(Debug)]
pub enum Slot<'s> {
    /// It is there, and this is its time.
    Known(&'s mut u32),
    /// It is not, and its key has so many others.
    Others(usize),
}
