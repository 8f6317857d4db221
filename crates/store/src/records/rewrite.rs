//! A database that was opened again gets what the last one may not have brought to disk.

use super::{RecordsState, salvage};
use crate::StoreError;

/// Writes what was accepted since the last flush that returned; everything that memory knows, if the database holds
/// `nothing`.
///
/// # Errors
/// Those of the database: what was to be written is kept for the next try.
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
