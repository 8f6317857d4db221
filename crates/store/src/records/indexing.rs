//! Puts entries of the log into the index: the last step of replay and of salvage.

use super::{
    RecordsState,
    entry::Entry,
    index::batch::{Named, Replayed},
};

/// Adds the entries of a chunk of `time` to `batch`, the newest first.
pub fn name(state: &RecordsState, time: u32, entries: &[Entry<'_>], batch: &mut Vec<Named>) {
    for Entry { multihash, peer, removed } in entries.iter().rev() {
        match state.book.replayed(*peer, time, !removed) {
            true => batch.push(Named { prefix: multihash.key_prefix(), peer: *peer, time, removed: *removed }),
            false => state.metrics.unknown_peers.inc(),
        }
    }
}

/// Puts a batch into the index, and empties it.
pub fn enter(state: &RecordsState, batch: &mut Vec<Named>) {
    let mut counts = Vec::with_capacity(batch.len());
    state.index.replay(batch, |record, outcome| match outcome {
        Replayed::Added => counts.push((record.peer, 1)),
        Replayed::Removed => counts.push((record.peer, -1)),
        Replayed::Known => {}
        Replayed::Refused(_) => state.metrics.replay_refused.inc(),
    });
    for (peer, by) in counts {
        state.book.count(peer, by);
    }
    batch.clear();
}
