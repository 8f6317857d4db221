//! Replay: after a start, threads on all cores read the log into the index, newest chunks first. The node serves
//! meanwhile.
//!
//! Of two entries for a record the one with the later time wins, so threads can read ranges of seconds in any order.
//! All chunks of one second are read by one thread, newest first, and there the first entry wins. Removals stay in the
//! index as tombstones until they expire.

use super::{
    RecordsState,
    entry::{self, Entry},
    index::batch::{BATCH, Named},
    indexing::{enter, name},
    log::{chunk_key, chunk_name, chunk_time},
    salvage,
};
use crate::{
    StoreError,
    engine::{Walk, Walked, panic_text},
};
use std::{
    num::NonZero,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::Duration,
};

/// Seconds of the log that a thread claims at a time: about a [`BATCH`] on a busy server. Small claims let all threads
/// end at about the same time, and make the progress visible.
const CLAIM_S: u32 = 32;

/// Interval between two checks of whether a degraded database has been reopened.
const WAIT_FOR_DISK: Duration = Duration::from_millis(100);

/// Starts the threads that read what the log holds now. They skip chunks that have expired, unless `with_expired` is
/// true.
pub fn start(state: &Arc<RecordsState>, with_expired: bool) -> Vec<JoinHandle<()>> {
    let (Some(mut first), Some(last)) = (state.log.oldest(), state.log.newest()) else {
        return end_of_nothing(state);
    };
    if !with_expired {
        let live = state.time.now().oldest_live(state.ttl_s);
        first = first.max(chunk_key(live, 0));
    }
    state.replay.first.store(first, Ordering::Relaxed);
    if first > last {
        return end_of_nothing(state);
    }
    state.replay.last.store(last, Ordering::Relaxed);
    state.replay.lock().to = Some(last);
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    (0..threads)
        .filter_map(|n| {
            let worker = state.clone();
            let spawned = thread::Builder::new().name(format!("replay-{n}")).spawn(move || work(&worker));
            if let Err(error) = &spawned {
                tracing::warn!(%error, "cannot start a thread for the replay of the log; replay goes on with fewer");
                if n == 0 {
                    work(state);
                }
            }
            spawned.ok()
        })
        .collect()
}

/// Ends a replay that finds no live chunk. If segments or old exports may hold chunks, a thread salvages them first.
fn end_of_nothing(state: &Arc<RecordsState>) -> Vec<JoinHandle<()>> {
    if salvage::old_exports::list(&state.before.exports).is_empty() && state.log.unindexed(false).is_empty() {
        end(state);
        return Vec::new();
    }
    let worker = state.clone();
    let spawned = thread::Builder::new().name("replay-0".into()).spawn(move || end(&worker));
    if let Err(error) = &spawned {
        tracing::warn!(%error, "cannot start a thread to salvage the log; the start waits for it instead");
        end(state);
    }
    spawned.into_iter().collect()
}

fn work(state: &RecordsState) {
    let mut batch = Vec::new();
    while let Some((from, to)) = claim(state) {
        let read = catch_unwind(AssertUnwindSafe(|| read_claimed(state, from, to, &mut batch)));
        if let Err(panic) = read {
            // The thread goes on after a panic. Otherwise replay, and everything that waits for its end, would hang.
            batch.clear();
            let place = format!("{} to {}", chunk_name(from), chunk_name(to));
            state.damaged(format!("{place} cannot be read: panicked: {}", panic_text(panic.as_ref())));
        }
        if state.is_closing() {
            return;
        }
        let mut unclaimed = state.replay.lock();
        unclaimed.reading -= 1;
        let is_read = unclaimed.is_read();
        drop(unclaimed);
        if is_read {
            end(state);
        }
    }
}

/// Reads the keys that this thread claimed, and puts the entries into the index.
fn read_claimed(state: &RecordsState, from: u64, to: u64, batch: &mut Vec<Named>) {
    let mut rest = Some(to);
    while let Some(to) = rest {
        rest = read_range(state, from, to, batch);
        if rest.is_some() {
            // The database is degraded: wait until it is reopened.
            thread::sleep(WAIT_FOR_DISK);
        }
    }
    if !state.is_closing() {
        enter(state, batch);
    }
}

/// Ends the replay, in the thread that finds that all is read. First salvages chunks without rows.
fn end(state: &RecordsState) {
    salvage::run(state);
    count_lost(state);
    if state.is_closing() {
        return;
    }
    state.replay.finish();
    tracing::info!(records = state.index.len(), chunks = state.log.count(), "the log has been replayed");
}

/// Reports chunks that the floor counts and that were not found.
fn count_lost(state: &RecordsState) {
    let live = chunk_key(state.time.now().oldest_live(state.ttl_s), 0);
    let Some(floor) = state.before.floor else { return };
    // The count of the floor is exact only if none of its chunks has expired since.
    let expected = floor.chunks.filter(|_| floor.newest.is_some() && floor.oldest.is_some_and(|oldest| oldest >= live));
    let lost = expected.unwrap_or(0).saturating_sub(state.replay.found());
    if lost > 0 && !state.is_closing() {
        state.metrics.lost_chunks.add(lost);
        state.note(format!(
            "{lost} chunks of the log are lost, with up to some 850 records each, until these are announced again"
        ));
    }
}

/// Claims the next keys for this thread, as (first, last): whole seconds, from the newest that no thread has claimed.
fn claim(state: &RecordsState) -> Option<(u64, u64)> {
    let first = state.replay.first.load(Ordering::Relaxed);
    let mut unclaimed = state.replay.lock();
    'again: loop {
        for found in Walk::backwards(state.log.keys(), first, unclaimed.to?) {
            if state.is_closing() {
                return None;
            }
            match found {
                Walked::Row(key, _) => {
                    let from = chunk_key(chunk_time(key).saturating_sub(CLAIM_S - 1), 0).max(first);
                    unclaimed.to = from.checked_sub(1).filter(|to| *to >= first);
                    unclaimed.reading += 1;
                    return Some((from, key));
                }
                Walked::Lost(_, _, StoreError::Degraded(_)) => {
                    drop(unclaimed);
                    thread::sleep(WAIT_FOR_DISK);
                    unclaimed = state.replay.lock();
                    continue 'again;
                }
                Walked::Lost(from, to, error) => lost(state, from, to, &error),
            }
        }
        break;
    }
    // The rest of the log has no chunk that can be read.
    unclaimed.to = None;
    let is_read = unclaimed.is_read();
    drop(unclaimed);
    if is_read {
        end(state);
    }
    None
}

/// Reads `from..=to`, newest first. If the database becomes degraded, returns the last key that is still to be read.
fn read_range(state: &RecordsState, from: u64, to: u64, batch: &mut Vec<Named>) -> Option<u64> {
    for found in Walk::backwards(state.log.chunks(), from, to) {
        if state.is_closing() {
            return None;
        }
        match found {
            Walked::Row(key, chunk) => {
                read(state, key, &chunk, batch);
                if batch.len() >= BATCH {
                    enter(state, batch);
                }
            }
            Walked::Lost(_, rest, StoreError::Degraded(_)) => return Some(rest),
            Walked::Lost(from, to, error) => lost(state, from, to, &error),
        }
    }
    None
}

fn lost(state: &RecordsState, from: u64, to: u64, error: &StoreError) {
    let place = format!("{} to {}", chunk_name(from), chunk_name(to));
    state.health().failed("read the log", error, state.time.now().mono);
    state.damaged(format!("{place} cannot be read: {error}"));
}

/// Adds the entries of a chunk to `batch`, the newest first.
fn read(state: &RecordsState, key: u64, chunk: &[u8], batch: &mut Vec<Named>) {
    let entries: Vec<Entry<'_>> = match entry::decode(chunk) {
        Ok(entries) => entries,
        Err(error) => {
            state.damaged(format!("{} is damaged: {error}", chunk_name(key)));
            return;
        }
    };
    state.replay.count();
    state.metrics.replayed.add(entries.len() as u64);
    name(state, chunk_time(key), &entries, batch);
}
