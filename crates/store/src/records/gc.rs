//! Garbage collection. The log is the queue by which records expire: old chunks are taken from its front, and their
//! records are dropped from the index unless a newer chunk names them. The cost depends on what expires, not on what is
//! stored.

use super::{
    RecordsState,
    entry::{self, Entry},
    index::batch::{BATCH, Named},
    log::{chunk_key, chunk_name, chunk_time},
    time::{Ledger, Move, Now},
};
use crate::{
    StoreError,
    engine::{Walk, Walked},
};
use std::{sync::atomic::Ordering, thread};

/// Chunks between two checks of the clock and of whether the store is closing: up to [`BATCH`] records, 20 ms.
const SLICE: usize = 128;

/// The result of one garbage collection.
#[derive(Clone, Debug, Default)]
pub struct GcReport {
    /// Number of chunks removed from the log.
    pub chunks: u64,
    /// Number of records dropped from the index.
    pub expired: u64,
    /// Why it stopped early, if it did.
    pub paused: Option<String>,
}

/// Runs one collection. Blocks. Only one caller may run it at a time.
pub fn collect(state: &RecordsState) -> Result<GcReport, StoreError> {
    let mut report = GcReport::default();
    if !state.replay.wait(|| state.is_closing()) {
        report.paused = Some("the store is closing".into());
        return Ok(report);
    }
    // Expired records are not served anyway, and nothing new is accepted: collection can wait for the disk.
    if let Some(note) = state.health().note("records") {
        report.paused = Some(note);
        return Ok(report);
    }
    report.paused = state.time.unconfirmed();
    while let Some(moved) = state.time.next_move(Ledger::Records).filter(|_| !state.health().is_read_only()) {
        redate(state, moved)?;
        state.time.done(Ledger::Records, moved);
    }
    if report.paused.is_some() {
        return Ok(report);
    }
    let now = state.time.now();
    let outcome = pop(state, &now, &mut report);
    // If chunks cannot be read, their records are dropped by time.
    if outcome.is_err() || state.must_sweep.swap(false, Ordering::AcqRel) {
        let drop_one = |id| {
            report.expired += 1;
            state.book.count(id, -1);
        };
        state.index.sweep(|_, time| !now.is_live(time, state.ttl_s), drop_one);
    }
    let evicted = state.index.make_room(|id| state.book.count(id, -1));
    if evicted > 0 {
        state.metrics.evicted.add(evicted as u64);
        tracing::warn!(evicted, "the limit of records is near: dropped those farthest from this node");
    }
    state.metrics.collected.add(report.expired);
    state.index.forget_tombstones(|time| now.is_live(time, state.ttl_s));
    state.index.shrink();
    outcome?;
    state.log.look_at_ends();
    forget_peers(state, &now)?;
    Ok(report)
}

/// Removes expired chunks from the front of the log.
fn pop(state: &RecordsState, now: &Now, report: &mut GcReport) -> Result<(), StoreError> {
    let Some(newest_expired) = now.log.checked_sub(state.ttl_s) else { return Ok(()) };
    let (mut keys, mut batch) = (Vec::new(), Vec::new());
    for found in Walk::forwards(state.log.chunks(), 0, chunk_key(newest_expired, u32::MAX)) {
        match found {
            Walked::Row(key, chunk) => {
                read(state, key, &chunk, &mut batch);
                keys.push(key);
            }
            Walked::Lost(_, _, error @ StoreError::Degraded(_)) => return Err(error),
            Walked::Lost(from, to, error) => {
                failed(state, &error);
                state.damaged(format!("{} to {} cannot be read: {error}", chunk_name(from), chunk_name(to)));
                // Their records are dropped by time; their rows are removed here.
                keys.extend(Walk::forwards(state.log.keys(), from, to).filter_map(|found| match found {
                    Walked::Row(key, _) => Some(key),
                    Walked::Lost(..) => None,
                }));
            }
        }
        if batch.len() >= BATCH || keys.len() >= SLICE {
            drop_slice(state, &mut keys, &mut batch, report)?;
            if state.is_closing() {
                return Ok(());
            }
            report.paused = state.time.unconfirmed();
            if report.paused.is_some() {
                return Ok(());
            }
            thread::yield_now();
        }
    }
    drop_slice(state, &mut keys, &mut batch, report)
}

/// Drops the records of these chunks unless newer ones are known, then removes the chunks.
fn drop_slice(
    state: &RecordsState,
    keys: &mut Vec<u64>,
    batch: &mut Vec<Named>,
    report: &mut GcReport,
) -> Result<(), StoreError> {
    let mut gone = Vec::with_capacity(batch.len());
    state.index.collect(batch, |record| gone.push(record.peer));
    report.expired += gone.len() as u64;
    gone.into_iter().for_each(|peer| state.book.count(peer, -1));
    batch.clear();
    for key in keys.drain(..) {
        report.chunks += 1;
        state.log.remove(key).inspect_err(|e| failed(state, e))?;
    }
    Ok(())
}

fn failed(state: &RecordsState, error: &StoreError) {
    state.health().failed("collect garbage", error, state.time.now().mono);
}

/// Adds the entries of a chunk to `batch`.
fn read(state: &RecordsState, key: u64, chunk: &[u8], batch: &mut Vec<Named>) {
    let time = chunk_time(key);
    match entry::decode(chunk) {
        Ok(entries) => batch.extend(entries.into_iter().map(|Entry { multihash, peer, removed }| Named {
            prefix: multihash.key_prefix(),
            peer,
            time,
            removed,
        })),
        Err(error) => state.damaged(format!("{} is damaged: {error}", chunk_name(key))),
    }
}

/// Forgets peers that nothing names any more, and removes their rows.
fn forget_peers(state: &RecordsState, now: &Now) -> Result<(), StoreError> {
    // Chunks that are not written yet may name peers, too, but none of these chunks is as old as the ttl.
    let oldest = state.log.oldest().map_or(u32::MAX, chunk_time).min(now.log.saturating_sub(state.ttl_s));
    for id in state.book.forget(oldest, now) {
        state.log.remove_peer(id).inspect_err(|e| failed(state, e))?;
    }
    Ok(())
}

/// Writes the records dated `from..=to` again, with the current date, because the base of log time has moved. Without
/// this, records dated in the future would outlive a step back by the size of that step. Records received before a step
/// forward was believed would expire at once.
fn redate(state: &RecordsState, moved: Move) -> Result<(), StoreError> {
    // The floor must not promise chunks that are about to be removed.
    state.hold_floor(true);
    state.write_floor()?;
    state.pending.drain()?;
    state.log.look_at_ends();
    // The walk must end before the chunks that it writes: log time may reach `from` while it runs.
    let last = state.log.newest().unwrap_or(0);
    let (from, to) = (chunk_key(moved.from, 0), chunk_key(moved.to, u32::MAX).min(last));
    let mut rewritten = Vec::new();
    let mut records = 0;
    for found in Walk::forwards(state.log.chunks(), from, to) {
        match found {
            Walked::Row(key, chunk) => {
                records += redate_chunk(state, key, &chunk);
                rewritten.push(key);
            }
            Walked::Lost(_, _, error @ StoreError::Degraded(_)) => return Err(error),
            Walked::Lost(from, to, error) => {
                failed(state, &error);
                state.damaged(format!("{} to {} cannot be read: {error}", chunk_name(from), chunk_name(to)));
            }
        }
        if rewritten.len() >= SLICE {
            remove_old(state, &mut rewritten)?;
        }
        if state.is_closing() {
            break;
        }
    }
    remove_old(state, &mut rewritten)?;
    state.book.redate(moved.from, moved.to, state.time.now().log);
    state.log.look_at_ends();
    state.hold_floor(false);
    state.write_floor()?;
    state.metrics.redated.add(records);
    tracing::info!(records, seconds = moved.by, "re-dated records after a step of the wall clock");
    Ok(())
}

/// Flushes the new chunks, then removes the old ones.
fn remove_old(state: &RecordsState, keys: &mut Vec<u64>) -> Result<(), StoreError> {
    state.pending.drain()?;
    state.flush_log()?;
    for key in keys.drain(..) {
        state.log.remove(key)?;
    }
    Ok(())
}

/// Writes again those entries of a chunk that are still the newest of their record. Returns the number of records
/// written.
fn redate_chunk(state: &RecordsState, key: u64, chunk: &[u8]) -> u64 {
    let entries: Vec<Entry<'_>> = match entry::decode(chunk) {
        Ok(entries) => entries,
        Err(error) => {
            state.damaged(format!("{} is damaged: {error}", chunk_name(key)));
            return 0;
        }
    };
    let mut records = 0;
    for entry in entries {
        state.pending.room_blocking();
        let now = state.time.now();
        let prefix = entry.multihash.key_prefix();
        if entry.removed {
            // The removal still hides older entries, unless the record was announced again.
            if state.index.time(&prefix, entry.peer).is_none() {
                let time = state.pending.append(&now, entry);
                state.index.redate_removal(&prefix, entry.peer, time);
            }
        } else if state.index.redate(&prefix, entry.peer, chunk_time(key), || state.pending.append(&now, entry)) {
            records += 1;
        }
    }
    records
}
