//! Rewrite: writes to a reopened database everything that may not have reached the disk before.

use super::{RecordsState, salvage};
use crate::StoreError;

/// Writes again what was written since the last flush that returned. If the database holds `nothing`, also writes the
/// whole address book again and salvages the log from its segments.
///
/// # Errors
/// Those of the database. Everything is then kept for the next try.
pub fn run(state: &RecordsState, nothing: bool) -> Result<(), StoreError> {
    let (chunks, peers) = state.unflushed.copy();
    state.log.reopened()?;
    match nothing {
        true => state.book.write_all_again(),
        false => state.book.write_again(&peers),
    }
    let outcome = state
        .write_peers()
        .and_then(|()| chunks.iter().try_for_each(|(key, chunk)| state.log.put_back(*key, chunk, chunk)))
        .and_then(|()| state.flush_log());
    if outcome.is_err() {
        state.unflushed.put_back((chunks, peers));
    }
    state.log.look_at_ends();
    outcome?;
    if nothing {
        salvage::run(state);
    }
    Ok(())
}
