//! What stands in segments of the log and is not known to sled is taken from there, at the end of replay, while the node
//! serves already: the last half second before a kill; and everything, when sled has lost rows or could not read its file.
//!
//! Segments name their peers themselves. A chunk stays where it is and gets its row back; it is written anew only where
//! one of its peers has another number by now, or another chunk its key.

use super::{
    Shared,
    entry::{self, Entry},
    frames::{Item, Items},
    log::{
        chunk_key, chunk_time,
        segments::{Location, Unindexed},
    },
    replay,
    restore::{self, Peers},
};
use crate::store::{StoreError, codec::CodecError, engine::panic_text};
use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
};

/// Chunks behind one flush of the rows of their peers.
const BATCH: usize = 64;

/// Looks through what sled does not know. What cannot be entered now is found again by the next start.
pub fn run(shared: &Shared) {
    let outcome = catch_unwind(AssertUnwindSafe(|| try_run(shared)));
    if let Err(panic) = outcome {
        shared.damaged(format!("salvaging from log/ failed: {}", panic_text(panic.as_ref())));
    }
}

fn try_run(shared: &Shared) {
    let (counters, now) = (&shared.counters, shared.time.now());
    let lost = shared.exports.is_recovered()
        || [&counters.damaged, &counters.unknown_peers].iter().any(|n| n.load(Ordering::Relaxed) > 0);
    let mut salvage = Salvage {
        live: chunk_key(now.oldest_live(shared.ttl_s), 0),
        now: chunk_key(now.log, u32::MAX),
        shared,
        peers: Peers::default(),
        written: HashSet::new(),
        batch: Vec::new(),
        chunks: 0,
    };
    for unindexed in shared.log.unindexed(lost) {
        match salvage.look_through(&unindexed) {
            Ok(true) => shared.log.salvaged(unindexed.segment),
            Ok(false) => return,
            Err(error) => {
                // It stays, and is looked through again by the next start.
                shared.health().failed("salvage the log", &error, shared.time.now().mono);
            }
        }
    }
    let chunks = salvage.chunks;
    counters.salvaged_chunks.fetch_add(chunks, Ordering::Relaxed);
    match chunks {
        0 => {}
        _ if lost => {
            shared.note(format!("{chunks} chunks of the log were found in log/, though records/ had lost them"))
        }
        _ => tracing::info!(chunks, "the end of the log was found in log/"),
    }
}

fn unread(unindexed: &Unindexed, error: &CodecError) -> StoreError {
    StoreError::Database(format!("{}: {error}", unindexed.path.display()))
}

/// A chunk that sled does not know.
struct Found {
    key: u64,
    /// `None`: it cannot be read from there by a row, and is written anew.
    location: Option<Location>,
    chunk: Vec<u8>,
}

struct Salvage<'a> {
    shared: &'a Shared,
    /// Keys below have expired.
    live: u64,
    /// Keys above are of a time that was taken back: the log was dated anew.
    now: u64,
    peers: Peers,
    /// Peers whose rows are written.
    written: HashSet<u32>,
    batch: Vec<Found>,
    chunks: u64,
}

impl Salvage<'_> {
    /// False if the store closes before the end.
    fn look_through(&mut self, unindexed: &Unindexed) -> Result<bool, StoreError> {
        let mut items = match Items::open(&unindexed.path) {
            Ok(items) => items,
            // It may be whole: the disk does not tell, or another version has written it.
            Err(error) => return Err(unread(unindexed, &error)),
        };
        self.peers = Peers::default();
        loop {
            let item = items.next();
            let place = items.place();
            match item {
                None => break,
                Some(Ok(Item::Peer { id, row })) => drop(self.peers.rows.insert(id, row)),
                Some(Ok(Item::Chunk { key, chunk }))
                    if place.end > unindexed.from && (self.live..=self.now).contains(&key) =>
                {
                    // Else another version has written it, and the beginning that would say so is damaged.
                    if let Err(error @ CodecError::Version(_)) = entry::decode(&chunk) {
                        return Err(unread(unindexed, &error));
                    }
                    let len = u32::try_from(place.end - place.offset).unwrap_or(u32::MAX);
                    let location = Location { segment: unindexed.segment, offset: place.offset, len };
                    self.batch.push(Found { key, location: place.intact.then_some(location), chunk });
                }
                Some(Ok(_)) => {}
                Some(Err(error @ CodecError::Io(_))) => return Err(unread(unindexed, &error)),
                // A torn end, or a place that rows do not point to, else replay has told of it. What follows is read.
                Some(Err(error)) => {
                    let offset = place.offset;
                    tracing::debug!(path = %unindexed.path.display(), offset, %error, "a frame of the log cannot be read");
                }
            }
            if self.batch.len() >= BATCH {
                self.enter()?;
            }
            if self.shared.is_closing() {
                return Ok(false);
            }
        }
        self.enter()?;
        Ok(true)
    }

    /// Into sled, and into the index.
    fn enter(&mut self) -> Result<(), StoreError> {
        let shared = self.shared;
        let batch = std::mem::take(&mut self.batch);
        let mut unknown = Vec::new();
        for found in &batch {
            let held = shared.log.get(found.key).ok().flatten();
            let has_it = held.as_ref() == Some(&found.chunk) && !restore::is_missing(shared, found.key);
            if !has_it && let Ok(entries) = entry::decode(&found.chunk) {
                unknown.push((found, entries));
            }
        }
        let mut translated = Vec::new();
        for (found, entries) in unknown {
            let (entries, same) = self.peers.translate(shared, entries);
            translated.push((found, entries, same));
        }
        let named = translated.iter().flat_map(|(_, entries, _)| entries.iter().map(|entry| entry.peer));
        let mut unwritten: Vec<u32> = named.filter(|peer| self.written.insert(*peer)).collect();
        unwritten.sort_unstable();
        if !unwritten.is_empty() {
            restore::write_peers(shared, &unwritten)?;
        }
        let mut records = Vec::new();
        // The last word first, as in replay.
        for (found, entries, same) in translated.into_iter().rev() {
            self.write(found, &entries, same)?;
            replay::name(shared, chunk_time(found.key), &entries, &mut records);
            shared.exports.found(found.key);
            shared.replay.salvaged();
            self.chunks += 1;
        }
        replay::enter(shared, &mut records);
        Ok(())
    }

    fn write(&self, found: &Found, entries: &[Entry<'_>], same: bool) -> Result<(), StoreError> {
        let log = &self.shared.log;
        if let Some(location) = found.location.filter(|_| same) {
            return log.found(found.key, location, &found.chunk);
        }
        let as_here = restore::encode(entries).map_err(|e| StoreError::Database(e.to_string()))?;
        log.put_back(found.key, &found.chunk, &as_here)
    }
}
