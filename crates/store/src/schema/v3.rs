//! Moves the bodies of the log's chunks from rows to segments in `log/`; the rows then say where each body lies.

use crate::{
    StoreError, codec,
    engine::{Walk, Walked},
    records::{entry, log::Log},
};

/// Number of chunks that are synced together: 8 MB.
const BATCH: usize = 256;
/// Number of batches between two log lines about the progress: some 70 million records.
const REPORT_EVERY: u64 = 400;

/// Takes the step. A chunk that cannot be read stays as it is, and replay reports it.
pub fn run(log: &Log) -> Result<u64, StoreError> {
    let (mut moved, mut batches) = (0, 0u64);
    let mut batch = Vec::with_capacity(BATCH);
    for found in Walk::forwards(log.keys(), 0, u64::MAX) {
        let Walked::Row(key, row) = found else { continue };
        if row.first() != Some(&codec::LOCATION_VERSION) && entry::decode(&row).is_ok() {
            batch.push((key, row.to_vec()));
        }
        if batch.len() == BATCH {
            moved += move_out(log, &mut batch)?;
            batches += 1;
            if batches % REPORT_EVERY == 0 {
                tracing::info!(chunks = moved, "rewriting the log");
            }
        }
    }
    Ok(moved + move_out(log, &mut batch)?)
}

fn move_out(log: &Log, batch: &mut Vec<(u64, Vec<u8>)>) -> Result<u64, StoreError> {
    log.move_out(batch)?;
    let moved = batch.len() as u64;
    batch.clear();
    Ok(moved)
}
