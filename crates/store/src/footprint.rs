//! The space that a record takes on disk and in memory, and how often the log holds it.

use super::{
    engine::{Walk, Walked},
    limits::Figures,
    memory,
    records::{RecordsState, entry},
};
use serde::{Deserialize, Serialize};

/// Number of places of the log at which chunks are counted, evenly spread over its time ...
const PLACES: u64 = 16;
/// ... and the number of chunks at each place, so that seconds with two or three chunks count in full.
const CHUNKS: usize = 4;

/// The space that the store takes for each record. A figure is `None` if there are no records, or if it is unknown.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Footprint {
    /// Bytes of `records/` on disk: all copies in the log, and the address book.
    pub disk_bytes: Option<f64>,
    /// Bytes of the index in memory.
    pub index_bytes: Option<f64>,
    /// Bytes of memory of the whole process.
    pub memory_bytes: Option<f64>,
    /// Approximate number of copies of a record in the log: one for each announcement within the ttl, except those
    /// repeated within minutes.
    pub log_copies: Option<f64>,
}

/// Returns the figures for [`super::limits`].
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

/// Returns the approximate number of entries of the log. Reads some chunks, 2 MB at most, and assumes that the others
/// have as many entries. `None` if there are no chunks, or if the disk fails.
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
