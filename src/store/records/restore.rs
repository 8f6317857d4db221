//! What the log has lost comes back from its exports: at the end of replay, while the node serves already.
//!
//! Replay counts what it finds of each segment. Where that is less than the segment has, the chunks that the log does not
//! hold are entered into the index and written into the log, behind the rows of their peers. A kill in the middle of
//! this leaves a log that still holds less, and the next start goes on.

use super::{
    Shared,
    entry::{self, Entry},
    export::segment::Segment,
    frames::Item,
    log::{chunk_key, chunk_time},
    replay,
};
use crate::{
    clock::UnixTime,
    store::{StoreError, codec, engine::panic_text},
};
use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{PoisonError, atomic::Ordering},
};

/// Chunks written behind one flush of the rows of their peers.
const BATCH: usize = 64;

/// Compares what replay has found with what segments and floor promise, and brings back what is missing.
pub fn complete(shared: &Shared) {
    let outcome = catch_unwind(AssertUnwindSafe(|| try_complete(shared)));
    if let Err(panic) = outcome {
        shared.damaged(format!("restoring from exports/ failed: {}", panic_text(panic.as_ref())));
    }
}

fn try_complete(shared: &Shared) {
    let live = chunk_key(shared.time.now().oldest_live(shared.ttl_s), 0);
    // Places that replay could not read, and entries whose peers it did not know.
    let counters = &shared.counters;
    let is_damaged = shared.exports.is_recovered()
        || counters.damaged.load(Ordering::Relaxed) > 0
        || counters.unknown_peers.load(Ordering::Relaxed) > 0;
    let mut back = Restored::default();
    let mut missing = 0;
    for promised in shared.exports.promised() {
        let (segment, found) = (&promised.segment, promised.found.load(Ordering::Relaxed));
        // Of one that has expired in part nobody knows how much should be there.
        let is_short = if segment.from >= live { found < segment.chunks } else { found == 0 };
        if segment.to < live || !(is_short || is_damaged) {
            continue;
        }
        if back.chunks == 0 {
            tracing::warn!(segment = %segment.path.display(), "the log lacks what was exported; looking for it there");
        }
        let before = back.chunks;
        restore(shared, segment, live, &mut back);
        if segment.from >= live {
            missing += segment.chunks.saturating_sub(found + (back.chunks - before));
        }
        if shared.is_closing() {
            return;
        }
    }
    if back.chunks > 0 {
        counters.restored_chunks.fetch_add(back.chunks, Ordering::Relaxed);
        counters.restored_entries.fetch_add(back.entries, Ordering::Relaxed);
        let newest = UnixTime(chunk_time(back.newest));
        shared.note(format!(
            "{} chunks of the log ({} announcements, the newest of {newest}) were restored from exports/",
            back.chunks, back.entries
        ));
    }
    if back.failed {
        shared.note("what was restored could not all be written into the log; it will be restored again".into());
    }
    count_lost(shared, live, missing, back.chunks);
}

/// What neither the log nor its exports have.
fn count_lost(shared: &Shared, live: u64, missing: u64, restored: u64) {
    let mut lost = missing;
    if let Some(floor) = shared.exports.floor()
        && let (Some(chunks), Some(oldest), Some(_)) = (floor.chunks, floor.oldest, floor.newest)
        // Nothing that it counts has expired since.
        && oldest >= live
    {
        let held = shared.replay.found() + restored;
        lost = lost.max(chunks.saturating_sub(held));
    }
    if lost > 0 {
        shared.counters.lost_chunks.fetch_add(lost, Ordering::Relaxed);
        shared.note(format!(
            "{lost} chunks of the log (up to some 700 announcements each) are lost until they are announced again"
        ));
    }
}

#[derive(Debug, Default)]
struct Restored {
    chunks: u64,
    entries: u64,
    newest: u64,
    /// The log takes no more.
    failed: bool,
}

/// Rows of peers by the numbers that they have in a segment, and those that they have here.
#[derive(Debug, Default)]
pub struct Peers {
    pub rows: HashMap<u32, Vec<u8>>,
    numbers: HashMap<u32, Option<u32>>,
}

impl Peers {
    /// The number here of a peer of the segment: a row that is not here is entered.
    pub fn number(&mut self, shared: &Shared, id: u32) -> Option<u32> {
        let Self { rows, numbers } = self;
        *numbers.entry(id).or_insert_with(|| match rows.get(&id) {
            Some(row) => shared.book.adopt(id, row, shared.time.now().log).ok(),
            // The row was damaged in the segment; perhaps it is here.
            None => shared.book.get(id).map(|peer| peer.id),
        })
    }

    /// Entries with the numbers that their peers have here, and whether these are the same.
    pub fn translate<'a>(&mut self, shared: &Shared, entries: Vec<Entry<'a>>) -> (Vec<Entry<'a>>, bool) {
        let mut same = true;
        let translate = |entry: Entry<'a>| {
            let peer = self.number(shared, entry.peer);
            same &= peer == Some(entry.peer);
            Some(Entry { peer: peer?, ..entry })
        };
        let here = entries.into_iter().filter_map(translate).collect();
        (here, same)
    }
}

fn restore(shared: &Shared, segment: &Segment, live: u64, back: &mut Restored) {
    let (mut damage, mut whole) = (None, false);
    let mut peers = Peers::default();
    let mut batch = Vec::new();
    match segment.read() {
        Err(error) => damage = Some(error),
        Ok(items) => {
            for item in items {
                match item {
                    Ok(Item::Peer { id, row }) => drop(peers.rows.insert(id, row)),
                    Ok(Item::Chunk { key, chunk }) => {
                        let is_ours = (segment.from.max(live)..=segment.to).contains(&key);
                        if is_ours && is_missing(shared, key) && entry::decode(&chunk).is_ok() {
                            batch.push((key, chunk));
                        }
                    }
                    Ok(Item::End { .. }) => whole = true,
                    Ok(Item::Header { .. }) => {}
                    Err(error) => damage = damage.or(Some(error)),
                }
                if batch.len() >= BATCH {
                    enter(shared, std::mem::take(&mut batch), &mut peers, back);
                }
                if shared.is_closing() {
                    return;
                }
            }
        }
    }
    enter(shared, batch, &mut peers, back);
    if !whole {
        damage = damage.or_else(|| Some(codec::CodecError::Malformed("its end is missing".into())));
    }
    if let Some(error) = damage {
        let name = segment.path.display();
        shared.note(format!("{name} is damaged: {error}; what could be read of it was, and it will be written anew"));
        if !shared.reads_only() {
            segment.set_aside();
        }
    }
}

/// Whether the log does not hold the chunk, or names by it a peer that is not known.
pub fn is_missing(shared: &Shared, key: u64) -> bool {
    let Ok(Some(chunk)) = shared.log.get(key) else { return true };
    let Ok(entries) = entry::decode(&chunk) else { return true };
    entries.iter().any(|entry| shared.book.get(entry.peer).is_none())
}

/// Into the index, and then into the log.
fn enter(shared: &Shared, batch: Vec<(u64, Vec<u8>)>, peers: &mut Peers, back: &mut Restored) {
    let mut rows = Vec::with_capacity(batch.len());
    let (mut named, mut records) = (Vec::new(), Vec::new());
    // The last word first, as in replay.
    for (key, chunk) in batch.into_iter().rev() {
        let Ok(entries) = entry::decode(&chunk) else { continue };
        let (here, same) = peers.translate(shared, entries);
        back.entries += here.len() as u64;
        back.chunks += 1;
        back.newest = back.newest.max(key);
        replay::name(shared, chunk_time(key), &here, &mut records);
        named.extend(here.iter().map(|entry| entry.peer));
        let as_here = match same {
            true => Ok(chunk.clone()),
            false => encode(&here),
        };
        if let Ok(as_here) = as_here {
            rows.push(Row { key, chunk, as_here });
        }
    }
    replay::enter(shared, &mut records);
    if shared.reads_only() || back.failed {
        return;
    }
    named.sort_unstable();
    named.dedup();
    if let Err(error) = write(shared, &named, rows) {
        shared.health().failed("restore chunks of the log", &error, shared.time.now().mono);
        back.failed = true;
    }
}

pub fn encode(entries: &[Entry<'_>]) -> Result<Vec<u8>, codec::CodecError> {
    let mut body = Vec::new();
    entries.iter().try_for_each(|entry| codec::append(&mut body, entry))?;
    codec::chunk(u32::try_from(entries.len()).unwrap_or(u32::MAX), &body)
}

/// A chunk, as it was and with the numbers that its peers have here.
struct Row {
    key: u64,
    chunk: Vec<u8>,
    as_here: Vec<u8>,
}

/// The rows of peers, written out, before the chunks that name them.
fn write(shared: &Shared, named: &[u32], rows: Vec<Row>) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    write_peers(shared, named)?;
    rows.iter().try_for_each(|row| shared.log.put_back(row.key, &row.chunk, &row.as_here))
}

/// The rows of peers, written out.
pub fn write_peers(shared: &Shared, named: &[u32]) -> Result<(), StoreError> {
    let _only = shared.rows.lock().unwrap_or_else(PoisonError::into_inner);
    for peer in named.iter().filter_map(|id| shared.book.get(*id)) {
        shared.log.put_peer(peer.id, &peer.row())?;
    }
    if let Some(below) = shared.book.reservation() {
        shared.log.reserve(below)?;
        shared.book.reserved(below);
    }
    shared.log.database.write_out()
}
