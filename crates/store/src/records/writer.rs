//! The thread that writes the log. It writes out the rows of new peers before the chunks that name them.

use super::{RecordsState, pending::Sealed};
use crate::{StoreError, codec, engine::panic_text};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::Duration,
};

/// Limit of the chunks written together. One flush of sled covers the new peers of all of them, so even a flood of new
/// peers causes only one flush per 50,000 records.
const BATCH: usize = 64;
/// How long the writer sleeps when there is no work. The open chunk is written at most this late.
const PATIENCE: Duration = Duration::from_millis(250);
/// Turns of the writer between two checks for a flush that hangs (`Database::wake`): two seconds at rest.
const WAKE_EVERY: u64 = 8;
/// Interval for writing the rows of peers that no chunk waits for: peers with new addresses, or with a repeat that is
/// not logged.
const ROWS_EVERY: Duration = Duration::from_secs(1);
/// Interval at which the floor of the log is written. Recovery does not notice a loss of chunks newer than the floor.
const FLOOR_EVERY: Duration = Duration::from_secs(60);

/// Pause after a panic, so that a repeated one neither fills the log file nor keeps a processor busy.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// Runs the writer until it must stop. While the database is degraded it only waits.
pub fn run(state: &RecordsState) {
    // Without the writer, announcements would wait for ever, so it goes on after a panic. By then the chunks that it
    // had taken are back in the queue.
    while let Err(panic) = catch_unwind(AssertUnwindSafe(|| write_until_closed(state))) {
        tracing::error!(
            panic = panic_text(panic.as_ref()),
            "the thread that writes the log panicked; it goes on after a second"
        );
        thread::sleep(AFTER_PANIC);
    }
}

fn write_until_closed(state: &RecordsState) {
    let mut floor_at = state.time.now().mono;
    let mut rows_at = floor_at;
    let (mut turns, mut flushes) = (0u64, [0; 2]);
    loop {
        turns += 1;
        if turns % WAKE_EVERY == 0 {
            // The supervisor does the same, but may itself be waiting for such a flush.
            flushes[0] = state.log.database.wake(flushes[0]);
            flushes[1] = state.floor.as_ref().map_or(0, |meta| meta.wake(flushes[1]));
        }
        state.disk.look();
        let (mut batch, stop) = state.pending.take(BATCH, PATIENCE, || state.time.now());
        if !batch.is_empty() {
            write_batch(state, &mut batch);
        }
        if stop {
            // Wakes the callers that wait for chunks that will not be written.
            state.pending.failed(Vec::new());
            return;
        }
        if state.health().is_degraded() {
            continue;
        }
        let mono = state.time.now().mono;
        if mono.saturating_sub(rows_at) >= ROWS_EVERY && state.book.has_dirty() && !state.health().is_read_only() {
            rows_at = mono;
            if let Err(error) = state.write_peers() {
                state.health().failed("write the rows of peers", &error, mono);
            }
        }
        if state.unflushed.is_due(mono)
            && let Err(error) = state.flush_log()
        {
            state.health().failed("flush the log", &error, mono);
        }
        if mono.saturating_sub(floor_at) >= FLOOR_EVERY {
            floor_at = mono;
            if let Err(error) = state.write_floor() {
                state.health().failed("write the floor of the log", &error, mono);
            }
        }
    }
}

/// Writes chunks. Chunks that cannot be written go back into the queue until the database is reopened.
fn write_batch(state: &RecordsState, batch: &mut Vec<Sealed>) {
    let mut done = 0;
    let outcome = catch_unwind(AssertUnwindSafe(|| write(state, batch, &mut done)));
    let outcome = outcome.unwrap_or_else(|panic| Err(StoreError::Database(panic_text(panic.as_ref()).into())));
    state.pending.written(done);
    if let Err(error) = outcome {
        state.health().failed("write a chunk of the log", &error, state.time.now().mono);
        // Any error here, even a panic, makes the database degraded.
        state.log.database.fault(&error);
        state.pending.failed(batch.split_off(done));
    }
}

fn write(state: &RecordsState, batch: &[Sealed], done: &mut usize) -> Result<(), StoreError> {
    state.write_peers()?;
    for chunk in batch {
        let value = codec::chunk(chunk.count, &chunk.body).map_err(|e| StoreError::Database(e.into()))?;
        let key = state.log.append(chunk.time, &value)?;
        state.unflushed.chunk(key, value, state.time.now().mono);
        *done += 1;
    }
    Ok(())
}
