//! What a record takes: on disk, in memory, and how often it stands in the log.

use super::{
    engine::{Walk, Walked},
    limits::Figures,
    memory,
    records::{RecordsState, entry},
};
use serde::{Deserialize, Serialize};

/// Chunks are counted at so many places of the log, evenly spread over its time ...
const PLACES: u64 = 16;
/// ... so many at each: seconds that have two or three chunks count in full.
const CHUNKS: usize = 4;

/// What the store takes for each record. `None` where there are no records, or it is not known.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Footprint {
    /// Bytes of `records/` on disk: all copies in the log, and the address book.
    pub disk_bytes: Option<f64>,
    /// Bytes of the index in memory.
    pub index_bytes: Option<f64>,
    /// Bytes of memory of the whole process.
    pub memory_bytes: Option<f64>,
    /// How often it stands in the log, about: each announcement that was not a repeat of the last minutes, within the ttl.
    pub log_copies: Option<f64>,
}

/// What is measured for [`super::limits`].
pub(super) fn figures(state: &RecordsState) -> Figures {
    let memory_bytes = memory::resident();
    Figures {
        records: state.index.len() as u64,
        disk_bytes: state.disk.used(),
        disk_free_bytes: state.disk.free(),
        memory_bytes,
        memory_room_bytes: memory_bytes.and_then(memory::room),
    }
}

/// Entries of the log, about: some chunks are read, the others taken to be alike. `None` if there are none, or the disk
/// does not work. Reads 2 MB at most.
pub(super) fn entries(state: &RecordsState) -> Option<u64> {
    let (oldest, newest) = (state.log.oldest()?, state.log.newest()?);
    let all = state.log.count();
    if state.health().is_degraded() {
        return None;
    }
    let (places, run) = match all <= PLACES * CHUNKS as u64 {
        true => (1, PLACES as usize * CHUNKS),
        false => (PLACES, CHUNKS),
    };
    let (mut chunks, mut entries) = (0u64, 0u64);
    for place in 0..places {
        let from = oldest + newest.saturating_sub(oldest) / places * place;
        for found in Walk::forwards(state.log.chunks(), from, u64::MAX).take(run) {
            if let Walked::Row(_, chunk) = found
                && let Ok(read) = entry::decode(&chunk)
            {
                chunks += 1;
                entries += read.len() as u64;
            }
        }
    }
    entries.saturating_mul(all).checked_div(chunks)
}
