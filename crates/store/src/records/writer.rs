//! The thread that writes the log. Rows of new peers are written out before the chunks that name them.

use super::{Shared, pending::Sealed};
use crate::{StoreError, codec, engine::panic_text};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::Duration,
};

/// Chunks written together: one flush of sled's covers the new peers of all of them, so that a flood of new peers
/// costs one per 50,000 records.
const BATCH: usize = 64;
/// How long the writer sleeps when nothing comes: an open chunk is written at most this late.
const PATIENCE: Duration = Duration::from_millis(250);
/// Turns between two looks at whether a flush was left waiting (`Database::wake`): two seconds at rest.
const WAKE_EVERY: u64 = 8;
/// Rows of peers that wait for no chunk (new addresses, or a repeat that is not logged) are written this often.
const ROWS_EVERY: Duration = Duration::from_secs(1);
/// The floor of the log is written this often: what it does not cover yet, recovery cannot miss.
const FLOOR_EVERY: Duration = Duration::from_secs(60);

/// Pause after a panic, so that one that repeats neither fills the log nor takes a processor.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// The body of the thread: runs until told to stop. While the database is degraded it only waits.
pub fn run(shared: &Shared) {
    // Without it announcements wait for ever: after a panic it begins again. What was taken is in the queue still.
    while let Err(panic) = catch_unwind(AssertUnwindSafe(|| write_until_closed(shared))) {
        tracing::error!(
            panic = panic_text(panic.as_ref()),
            "the thread that writes the log panicked; it is started again"
        );
        thread::sleep(AFTER_PANIC);
    }
}

fn write_until_closed(shared: &Shared) {
    let mut floor_at = shared.time.now().mono;
    let mut rows_at = floor_at;
    let (mut turns, mut flushes) = (0u64, [0; 2]);
    loop {
        turns += 1;
        if turns % WAKE_EVERY == 0 {
            // The supervisor does the same, but may itself be the one who waits.
            flushes[0] = shared.log.database.wake(flushes[0]);
            flushes[1] = shared.floor.as_ref().map_or(0, |meta| meta.wake(flushes[1]));
        }
        shared.disk.look();
        let (mut batch, stop) = shared.pending.take(BATCH, PATIENCE, || shared.time.now());
        if !batch.is_empty() {
            write_batch(shared, &mut batch);
        }
        if stop {
            // Nobody may wait for what is never written.
            shared.pending.failed(Vec::new());
            return;
        }
        if shared.health().is_degraded() {
            continue;
        }
        let mono = shared.time.now().mono;
        if mono.saturating_sub(rows_at) >= ROWS_EVERY && shared.book.has_dirty() && !shared.health().is_read_only() {
            rows_at = mono;
            if let Err(error) = shared.write_peers() {
                shared.health().failed("write the rows of peers", &error, mono);
            }
        }
        if shared.unflushed.is_due(mono)
            && let Err(error) = shared.flush_log()
        {
            shared.health().failed("flush the log", &error, mono);
        }
        if mono.saturating_sub(floor_at) >= FLOOR_EVERY {
            floor_at = mono;
            if let Err(error) = shared.write_floor() {
                shared.health().failed("write the floor of the log", &error, mono);
            }
        }
    }
}

/// Writes chunks; what cannot be written stays in the queue until the database was opened anew.
fn write_batch(shared: &Shared, batch: &mut Vec<Sealed>) {
    let mut done = 0;
    let outcome = catch_unwind(AssertUnwindSafe(|| write(shared, batch, &mut done)));
    let outcome = outcome.unwrap_or_else(|panic| Err(StoreError::Database(panic_text(panic.as_ref()))));
    shared.pending.written(done);
    if let Err(error) = outcome {
        shared.health().failed("write a chunk of the log", &error, shared.time.now().mono);
        // Whatever it was.
        shared.log.database.fault(&error);
        shared.pending.failed(batch.split_off(done));
    }
}

fn write(shared: &Shared, batch: &[Sealed], done: &mut usize) -> Result<(), StoreError> {
    shared.write_peers()?;
    for chunk in batch {
        let value = codec::chunk(chunk.count, &chunk.body).map_err(|e| StoreError::Database(e.to_string()))?;
        let key = shared.log.append(chunk.time, &value)?;
        shared.unflushed.chunk(key, value, shared.time.now().mono);
        *done += 1;
    }
    Ok(())
}
