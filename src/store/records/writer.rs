//! The thread that owns insertions into the log. Rows of new peers are flushed before the chunks that name them.

use super::{Shared, pending::Sealed};
use crate::store::{
    StoreError, codec,
    engine::{Numbered, guard, panic_text},
    meta::Floor,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::PoisonError,
    time::Duration,
};

/// Chunks written together: one flush covers the new peers of all of them, so that a flood of new peers costs one
/// fsync per 50,000 records.
const BATCH: usize = 64;
/// How long the writer sleeps when nothing comes: an open chunk is written at most this late.
const PATIENCE: Duration = Duration::from_millis(250);
/// Rows of peers that wait for no chunk (new addresses, or a repeat that is not logged) are written this often.
const ROWS_EVERY: Duration = Duration::from_secs(1);
/// The floor of the log is written this often: what it does not cover yet, recovery cannot miss.
const FLOOR_EVERY: Duration = Duration::from_secs(60);

/// The body of the thread: runs until told to stop.
pub fn run(shared: &Shared) {
    let mut last_key = None;
    let mut floor_at = shared.time.now().mono;
    let mut rows_at = floor_at;
    loop {
        shared.reserve.look();
        let (batch, stop) = shared.pending.take(BATCH, PATIENCE, || shared.time.now());
        if !batch.is_empty() {
            let outcome = catch_unwind(AssertUnwindSafe(|| write(shared, &batch, &mut last_key)));
            let outcome = outcome.unwrap_or_else(|panic| Err(StoreError::Database(panic_text(panic.as_ref()))));
            match outcome {
                Ok(()) => shared.pending.written(batch.len()),
                Err(error) => {
                    shared.health.failed("write a chunk of the log", &error, shared.time.now().mono);
                    shared.health.close_for_writes();
                    tracing::error!("announcements are refused until the next start; see to the disk, then restart");
                    shared.pending.failed(batch);
                }
            }
        }
        if stop {
            // Nobody may wait for what is never written.
            shared.pending.failed(Vec::new());
            return;
        }
        let mono = shared.time.now().mono;
        if mono.saturating_sub(rows_at) >= ROWS_EVERY && shared.book.has_dirty() && !shared.health.is_read_only() {
            rows_at = mono;
            if let Err(error) = write_peers(shared) {
                shared.health.failed("write the rows of peers", &error, mono);
            }
        }
        if mono.saturating_sub(floor_at) >= FLOOR_EVERY {
            floor_at = mono;
            if let Err(error) = write_floor(shared) {
                shared.health.failed("write the floor of the log", &error, mono);
            }
        }
    }
}

fn write(shared: &Shared, batch: &[Sealed], last_key: &mut Option<u64>) -> Result<(), StoreError> {
    write_peers(shared)?;
    for chunk in batch {
        let key = shared.log.next_key(chunk.time, *last_key)?;
        let value = codec::chunk(chunk.count, &chunk.body).map_err(|e| StoreError::Database(e.to_string()))?;
        shared.log.insert(key, value)?;
        *last_key = Some(key);
    }
    Ok(())
}

/// Rows of peers that are new or changed; flushed if one is new.
pub fn write_peers(shared: &Shared) -> Result<(), StoreError> {
    let _only = shared.rows.lock().unwrap_or_else(PoisonError::into_inner);
    let (rows, new) = shared.book.take_dirty();
    let outcome = rows.iter().try_for_each(|peer| {
        let row = codec::encode(&peer.row()).map_err(|e| StoreError::Database(e.to_string()))?;
        guard(|| shared.log.peers.0.insert(Numbered::<4>::key(u64::from(peer.id)), row)).map(|_| ())
    });
    let outcome = outcome.and_then(|()| {
        if let Some(below) = shared.book.reservation() {
            shared.log.reserve(below)?;
            shared.book.reserved(below);
        }
        if new { shared.log.flush() } else { Ok(()) }
    });
    match outcome {
        Ok(()) => shared.book.written(&rows),
        Err(_) => rows.iter().for_each(|peer| shared.book.mark_dirty(peer)),
    }
    outcome
}

/// Flushes the log, then notes in `node/` what it holds: what a later open must find at least.
pub fn write_floor(shared: &Shared) -> Result<(), StoreError> {
    let Some(meta) = &shared.floor else { return Ok(()) };
    let held = shared.is_floor_held();
    // Before the flush: what is written meanwhile is not promised.
    let floor = Floor {
        chunks: shared.replay.is_done().then(|| shared.log.count()),
        oldest: shared.log.oldest(),
        newest: shared.log.newest().filter(|_| !held),
        last_seen: shared.time.now().log,
    };
    shared.log.flush()?;
    if shared.replay.is_done() {
        meta.set_records(shared.index.len() as u64)?;
    }
    meta.set_floor(&floor)
}
