//! Chunks of the log leave their rows: their bodies are appended to segments of `log/`, and the rows say where.

use crate::{
    StoreError, codec,
    engine::{Walk, Walked},
    records::{entry, log::Log},
};

/// Chunks that are synced together: 8 MB.
const BATCH: usize = 256;
/// Batches between two lines about the progress: some 70 million records.
const REPORT_EVERY: u64 = 400;

/// Takes the step. A chunk that cannot be read is left: replay tells of it.
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
                tracing::info!(chunks = moved, "writing the log anew");
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
