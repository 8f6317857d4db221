//! A database that was opened again gets what the last one may not have brought to disk.

use super::{Shared, salvage};
use crate::StoreError;

/// Writes what was accepted since the last flush that returned; everything that memory knows, if the database holds
/// `nothing`.
///
/// # Errors
/// Those of the database: what was to be written is kept for the next try.
pub fn run(shared: &Shared, nothing: bool) -> Result<(), StoreError> {
    let (chunks, peers) = shared.unflushed.copy();
    shared.log.reopened()?;
    match nothing {
        true => shared.book.write_all_again(),
        false => shared.book.write_again(&peers),
    }
    let outcome = shared
        .write_peers()
        .and_then(|()| chunks.iter().try_for_each(|(key, chunk)| shared.log.put_back(*key, chunk, chunk)))
        .and_then(|()| shared.flush_log());
    if outcome.is_err() {
        shared.unflushed.put_back((chunks, peers));
    }
    shared.log.look_at_ends();
    outcome?;
    if nothing {
        salvage::run(shared);
    }
    Ok(())
}
