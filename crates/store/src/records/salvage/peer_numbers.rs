//! The peers that a file names, and the numbers that they have here.

use super::super::{
    RecordsState,
    entry::{self, Entry},
};
use crate::{
    StoreError,
    codec::{self, CodecError},
};
use std::collections::HashMap;

/// Rows of peers by the numbers that they have in a file, and those that they have here.
#[derive(Debug, Default)]
pub struct PeerNumbers {
    /// As the file has them.
    pub rows: HashMap<u32, Vec<u8>>,
    numbers: HashMap<u32, Option<u32>>,
}

impl PeerNumbers {
    /// The number here of a peer of the file: a row that is not here is entered.
    fn number(&mut self, state: &RecordsState, id: u32) -> Option<u32> {
        let Self { rows, numbers } = self;
        *numbers.entry(id).or_insert_with(|| match rows.get(&id) {
            Some(row) => state.book.adopt(id, row, state.time.now().log).ok(),
            // The row was damaged in the file; perhaps it is here.
            None => state.book.get(id).map(|peer| peer.id),
        })
    }

    /// Entries with the numbers that their peers have here, and whether these are the same.
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

/// Whether the log does not hold the chunk, or names by it a peer that is not known.
pub fn is_missing(state: &RecordsState, key: u64) -> bool {
    let Ok(Some(chunk)) = state.log.get(key) else { return true };
    let Ok(entries) = entry::decode(&chunk) else { return true };
    entries.iter().any(|entry| state.book.get(entry.peer).is_none())
}

/// A chunk of these entries.
pub fn encode(entries: &[Entry<'_>]) -> Result<Vec<u8>, CodecError> {
    let mut body = Vec::new();
    entries.iter().try_for_each(|entry| codec::append(&mut body, entry))?;
    codec::chunk(u32::try_from(entries.len()).unwrap_or(u32::MAX), &body)
}

/// Rows of peers, written out.
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
