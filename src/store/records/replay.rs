//! Restart: the log is read into the index, newest first, on all cores, while the node serves already.
//!
//! The greatest time wins, so ranges of seconds can be read in any order; within one second, which belongs to one
//! thread, the newest chunk is read first and wins. Removals stay as tombstones until the end.

use super::{
    Shared,
    entry::{self, Entry},
    log::{chunk_key, chunk_name, chunk_time},
    restore,
};
use crate::store::engine::{Found, Walk};
use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

/// Ranges per thread: small enough that threads end together and that progress is seen.
const SLICES_PER_THREAD: u64 = 16;

/// How far replay has come.
#[derive(Debug, Default)]
pub struct Replay {
    done: AtomicBool,
    /// Ranges read, and in all.
    read: AtomicU64,
    slices: AtomicU64,
    /// First key that is replayed: chunks below were expired, and are not counted.
    first: AtomicU64,
    /// Chunks that were read whole.
    found: AtomicU64,
    ended: Mutex<()>,
    end: Condvar,
}

/// What is to be read: keys `first..=last` in `slices` ranges of seconds.
#[derive(Clone, Copy, Debug)]
struct Plan {
    first: u64,
    last: u64,
    slices: u64,
}

impl Replay {
    /// True once the log is read.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// 0.0 to 1.0.
    pub fn progress(&self) -> f64 {
        if self.is_done() {
            return 1.0;
        }
        self.read.load(Ordering::Relaxed) as f64 / self.slices.load(Ordering::Relaxed).max(1) as f64
    }

    /// Chunks of the log that were read whole.
    pub fn found(&self) -> u64 {
        self.found.load(Ordering::Relaxed)
    }

    /// Whether a chunk is among those that were counted.
    pub fn counts(&self, key: u64) -> bool {
        key >= self.first.load(Ordering::Relaxed)
    }

    /// Waits for the end. False if the store closed before it.
    pub fn wait(&self, is_closing: impl Fn() -> bool) -> bool {
        let mut guard = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        while !self.is_done() && !is_closing() {
            let timeout = std::time::Duration::from_millis(100);
            guard = self.end.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner).0;
        }
        self.is_done()
    }

    fn finish(&self) {
        self.done.store(true, Ordering::Release);
        let _guard = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        self.end.notify_all();
    }
}

/// Starts reading what the log holds now. Chunks expired by now are passed over, unless `with_expired`.
pub fn start(shared: &Arc<Shared>, with_expired: bool) -> Vec<JoinHandle<()>> {
    let Some(plan) = plan(shared, with_expired) else {
        if shared.exports.promised().is_empty() {
            end(shared);
            return Vec::new();
        }
        let worker = shared.clone();
        let spawned = thread::Builder::new().name("replay-0".into()).spawn(move || end(&worker));
        if let Err(error) = &spawned {
            tracing::warn!(%error, "no thread for what exports have of the log");
            end(shared);
        }
        return spawned.into_iter().collect();
    };
    shared.replay.first.store(plan.first, Ordering::Relaxed);
    shared.replay.slices.store(plan.slices, Ordering::Relaxed);
    let next = Arc::new(AtomicU64::new(0));
    let threads = threads().min(plan.slices);
    (0..threads)
        .filter_map(|n| {
            let (worker, next) = (shared.clone(), next.clone());
            let spawned = thread::Builder::new().name(format!("replay-{n}")).spawn(move || work(&worker, plan, &next));
            if let Err(error) = &spawned {
                tracing::warn!(%error, "no thread for the replay of the log");
                if n == 0 {
                    work(shared, plan, &AtomicU64::new(0));
                }
            }
            spawned.ok()
        })
        .collect()
}

fn threads() -> u64 {
    thread::available_parallelism().map_or(1, |n| n.get() as u64)
}

fn plan(shared: &Shared, with_expired: bool) -> Option<Plan> {
    let (mut first, last) = (shared.log.oldest()?, shared.log.newest()?);
    if !with_expired {
        let live = shared.time.now().log.saturating_sub(shared.ttl_s - 1);
        first = first.max(chunk_key(live, 0));
    }
    if first > last {
        shared.replay.first.store(first, Ordering::Relaxed);
        return None;
    }
    let seconds = u64::from(chunk_time(last) - chunk_time(first)) + 1;
    Some(Plan { first, last, slices: seconds.min(threads() * SLICES_PER_THREAD) })
}

impl Plan {
    /// The keys of a range; range 0 is the newest.
    fn slice(&self, n: u64) -> (u64, u64) {
        let base = u64::from(chunk_time(self.first));
        let seconds = u64::from(chunk_time(self.last)) - base + 1;
        let at = |i: u64| (base + seconds * i / self.slices) << 32;
        let i = self.slices - 1 - n;
        let to = if n == 0 { self.last } else { at(i + 1) - 1 };
        (at(i).max(self.first), to)
    }
}

fn work(shared: &Shared, plan: Plan, next: &AtomicU64) {
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n >= plan.slices || shared.is_closing() {
            return;
        }
        let (from, to) = plan.slice(n);
        for found in Walk::backwards(&shared.log.chunks, from, to) {
            if shared.is_closing() {
                return;
            }
            match found {
                Found::Row(key, chunk) => {
                    shared.log.counted();
                    read(shared, key, &chunk);
                }
                Found::Lost(from, to, error) => {
                    let place = format!("{} to {}", chunk_name(from), chunk_name(to));
                    shared.health.failed("read the log", &error, shared.time.now().mono);
                    shared.damaged(format!("{place} cannot be read: {error}"));
                }
            }
        }
        if shared.replay.read.fetch_add(1, Ordering::AcqRel) + 1 == plan.slices {
            end(shared);
        }
    }
}

/// All is read; what is not there is looked for in the exports.
fn end(shared: &Shared) {
    restore::complete(shared);
    if shared.is_closing() {
        return;
    }
    shared.replay.finish();
    shared.index.forget_tombstones();
    tracing::info!(records = shared.index.len(), chunks = shared.log.count(), "the log is replayed");
}

fn read(shared: &Shared, key: u64, chunk: &[u8]) {
    let entries: Vec<Entry<'_>> = match entry::decode(chunk) {
        Ok(entries) => entries,
        Err(error) => {
            shared.damaged(format!("{} is damaged: {error}", chunk_name(key)));
            return;
        }
    };
    shared.exports.found(key);
    shared.replay.found.fetch_add(1, Ordering::Relaxed);
    shared.counters.replayed.fetch_add(entries.len() as u64, Ordering::Relaxed);
    enter(shared, chunk_time(key), &entries);
}

/// The entries of a chunk of `time` into the index.
pub fn enter(shared: &Shared, time: u32, entries: &[Entry<'_>]) {
    // The last word first, here as well.
    for entry in entries.iter().rev() {
        let id = entry.peer;
        let Some(peer) = shared.book.replayed(id, time, !entry.removed) else {
            shared.counters.unknown_peers.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let place = entry.multihash.place();
        if !entry.removed {
            match shared.index.replay_add(&place, id, time) {
                Ok(true) => peer.count(1),
                Ok(false) => {}
                Err(_) => {
                    shared.counters.replay_refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        } else if shared.index.replay_remove(&place, id, time) {
            peer.count(-1);
        }
    }
}
