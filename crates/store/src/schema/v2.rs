//! Rewrites the chunks of a version 1 log in the shorter form of version 2. Each chunk keeps its key.

use crate::{
    StoreError, codec,
    engine::{Walk, Walked},
    records::{
        entry::{Entry, Hashed},
        log::Log,
    },
};
use bincode::{BorrowDecode, Encode};

/// Version byte of the chunks to rewrite.
const OLD: u8 = 1;
/// Maximum number of entries that version 1 wrote into a chunk.
#[cfg(any(test, fuzzing, feature = "fuzzing"))]
const OLD_ENTRIES: usize = 1024;
/// Number of chunks between two log lines about the progress: some 70 million records.
const REPORT_EVERY: u64 = 100_000;

/// An entry as version 1 wrote it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, BorrowDecode)]
enum OldEntry<'a> {
    Add { multihash: &'a [u8], peer: u32 },
    Remove { multihash: &'a [u8], peer: u32 },
}

impl<'a> OldEntry<'a> {
    /// Returns whether it is a removal, its multihash, and the number of its peer.
    fn parts(self) -> (bool, &'a [u8], u32) {
        match self {
            Self::Add { multihash, peer } => (false, multihash, peer),
            Self::Remove { multihash, peer } => (true, multihash, peer),
        }
    }
}

/// Rewrites the old chunks, and returns how many. A chunk that cannot be read stays as it is, and replay reports it.
pub fn run(log: &Log) -> Result<u64, StoreError> {
    let mut written = 0;
    for (key, chunk) in old_chunks(log) {
        let Some(chunk) = convert(&chunk) else { continue };
        log.move_out(&[(key, chunk)])?;
        written += 1;
        if written % REPORT_EVERY == 0 {
            tracing::info!(chunks = written, "rewriting the log");
        }
    }
    Ok(written)
}

fn old_chunks(log: &Log) -> impl Iterator<Item = (u64, sled::IVec)> {
    Walk::forwards(log.keys(), 0, u64::MAX).filter_map(|found| match found {
        Walked::Row(key, chunk) if chunk.first() == Some(&OLD) => Some((key, chunk)),
        _ => None,
    })
}

/// Returns the chunk in the new form; `None` if it cannot be read.
fn convert(chunk: &[u8]) -> Option<Vec<u8>> {
    let entries: Vec<OldEntry<'_>> = codec::decode_chunk(chunk, OLD).ok()?;
    let mut body = Vec::with_capacity(chunk.len());
    for entry in &entries {
        let (removed, multihash, peer) = entry.parts();
        codec::append(&mut body, &Entry { multihash: Hashed::new(multihash), peer, removed }).ok()?;
    }
    codec::chunk(u32::try_from(entries.len()).ok()?, &body).ok()
}

/// Fuzz target: asserts that a chunk of version 1 with this body, and a valid checksum, holds the same entries once
/// rewritten.
#[cfg(any(test, fuzzing, feature = "fuzzing"))]
pub(crate) fn says_the_same(body: &[u8]) {
    let chunk = [&[OLD][..], &crc32fast::hash(body).to_le_bytes(), body].concat();
    let Ok(old) = codec::decode_chunk::<OldEntry<'_>>(&chunk, OLD) else { return };
    // Version 1 never wrote more entries than this. A body with more may exceed the limits of the new form, whose
    // entries take more memory.
    if old.len() > OLD_ENTRIES {
        return;
    }
    // The only entries without a new form are those whose multihash is too long to be stored at all.
    let Some(new) = convert(&chunk) else {
        let longest = old.iter().map(|entry| entry.parts().1.len()).max();
        return assert!(longest.is_some_and(|longest| longest > usize::from(u8::MAX)), "not rewritten: {old:?}");
    };
    let Ok(new) = crate::records::entry::decode(&new) else { panic!("cannot decode the rewritten chunk: {old:?}") };
    assert_eq!(new.len(), old.len());
    for (new, old) in new.iter().zip(&old) {
        let (removed, multihash, peer) = old.parts();
        assert_eq!((new.removed, new.multihash, new.peer), (removed, Hashed::new(multihash), peer));
    }
}

/// Returns a seed for the fuzz target: the body of a chunk of version 1 with one entry of each kind.
#[cfg(any(test, fuzzing, feature = "fuzzing"))]
#[allow(clippy::unwrap_used, reason = "for tests alone")]
pub(crate) fn seed(multihash: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    let entries =
        vec![OldEntry::Add { multihash, peer: 7 }, OldEntry::Remove { multihash: &multihash[..3], peer: 300 }];
    codec::append(&mut body, &entries).unwrap();
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns a chunk as version 1 wrote it.
    fn old_chunk(entries: &[OldEntry<'_>]) -> Vec<u8> {
        let mut body = Vec::new();
        codec::append(&mut body, &entries.to_vec()).unwrap();
        [&[OLD][..], &crc32fast::hash(&body).to_le_bytes(), &body].concat()
    }

    proptest! {
        #[test]
        fn a_chunk_says_the_same_afterwards(
            rows in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..129), any::<u32>()), 0..200),
            sha256 in any::<bool>(),
        ) {
            let multihash = |bytes: &[u8]| match sha256 {
                true => [&[0x12, 32][..], &[bytes, &[0; 32]].concat()[..32]].concat(),
                false => bytes.to_vec(),
            };
            let rows: Vec<(bool, Vec<u8>, u32)> = rows.iter().map(|(r, m, p)| (*r, multihash(m), *p)).collect();
            let old: Vec<OldEntry<'_>> = rows.iter().map(|(removed, multihash, peer)| match removed {
                true => OldEntry::Remove { multihash, peer: *peer },
                false => OldEntry::Add { multihash, peer: *peer },
            }).collect();
            let new = convert(&old_chunk(&old)).unwrap();
            let entries: Vec<Entry<'_>> = codec::decode_chunk(&new, codec::CHUNK_VERSION).unwrap();
            let said: Vec<(bool, Vec<u8>, u32)> =
                entries.iter().map(|e| (e.removed, e.multihash.to_bytes(), e.peer)).collect();
            prop_assert_eq!(said, rows);
        }

        #[test]
        fn nothing_is_made_of_bytes_that_are_no_chunk(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(convert(&bytes), None);
        }
    }
}
