//! The peers that a file names, and their numbers in the address book.

use super::super::{
    RecordsState,
    entry::{self, Entry},
};
use crate::{
    StoreError,
    codec::{self, CodecError},
};
use std::collections::HashMap;

/// Translates the numbers that peers have in a file to those that they have in the address book.
#[derive(Debug, Default)]
pub struct PeerNumbers {
    /// Rows of peers, by the numbers that they have in the file.
    pub rows: HashMap<u32, Vec<u8>>,
    numbers: HashMap<u32, Option<u32>>,
}

impl PeerNumbers {
    /// Returns the number that a peer of the file has in the address book. Enters its row if the book lacks it.
    fn number(&mut self, state: &RecordsState, id: u32) -> Option<u32> {
        let Self { rows, numbers } = self;
        *numbers.entry(id).or_insert_with(|| match rows.get(&id) {
            Some(row) => state.book.adopt(id, row, state.time.now().log).ok(),
            // The row is damaged in the file, but the book may have it.
            None => state.book.get(id).map(|peer| peer.id),
        })
    }

    /// Gives entries the numbers that their peers have in the address book, and drops those of unknown peers. Returns
    /// the entries, and whether they are all there with their old numbers.
    pub fn translate<'a>(&mut self, state: &RecordsState, entries: Vec<Entry<'a>>) -> (Vec<Entry<'a>>, bool) {
        let mut same = true;
        let translate = |entry: Entry<'a>| {
            let peer = self.number(state, entry.peer);
            same &= peer == Some(entry.peer);
            Some(Entry { peer: peer?, ..entry })
        };
        let here = entries.into_iter().filter_map(translate).collect();
        (here, same)
    }
}

/// Returns true if the log lacks the chunk, or if its copy is damaged or names a peer that the address book lacks.
pub fn is_missing(state: &RecordsState, key: u64) -> bool {
    let Ok(Some(chunk)) = state.log.get(key) else { return true };
    let Ok(entries) = entry::decode(&chunk) else { return true };
    entries.iter().any(|entry| state.book.get(entry.peer).is_none())
}

/// Encodes a chunk of these entries.
pub fn encode(entries: &[Entry<'_>]) -> Result<Vec<u8>, CodecError> {
    let mut body = Vec::new();
    entries.iter().try_for_each(|entry| codec::append(&mut body, entry))?;
    codec::chunk(u32::try_from(entries.len()).unwrap_or(u32::MAX), &body)
}

/// Writes the rows of these peers, and writes sled's buffers to its file.
pub fn write(state: &RecordsState, named: &[u32]) -> Result<(), StoreError> {
    let _only = state.rows.lock();
    for peer in named.iter().filter_map(|id| state.book.get(*id)) {
        state.log.put_peer(peer.id, &peer.row())?;
    }
    if let Some(below) = state.book.reservation() {
        state.log.reserve(below)?;
        state.book.reserved(below);
    }
    state.log.database.write_out()
}
