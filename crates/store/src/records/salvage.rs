//! Salvage: at the end of replay, chunks that have no row in `records/` are taken from the segments. The node serves
//! meanwhile. After a kill these are the chunks of the last half second. If sled has lost rows or could not read its
//! file, they may be all chunks.
//!
//! A segment holds the rows of its peers. A chunk stays where it is and gets its row back. It is written again only if
//! one of its peers now has another number, or if another chunk now has its key.
//!
//! Exports of older versions have the same format and are salvaged in the same way ([`old_exports`]).

pub mod old_exports;
mod peer_numbers;

use super::{
    RecordsState,
    entry::{self, Entry},
    indexing,
    log::{
        chunk_key, chunk_time,
        segments::{Location, Unindexed},
    },
    log_frames::{LogFrame, LogFrames},
};
use crate::{StoreError, codec::CodecError, engine::panic_text};
use peer_numbers::PeerNumbers;
use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

/// Chunks for which the rows of new peers are written out together.
const BATCH: usize = 64;

/// Salvages chunks without rows. The next start finds again those that cannot be entered now.
pub fn run(state: &RecordsState) {
    let outcome = catch_unwind(AssertUnwindSafe(|| try_run(state)));
    if let Err(panic) = outcome {
        let panic = panic_text(panic.as_ref());
        state.damaged(format!("cannot salvage chunks from log/: panicked: {panic}; the next start tries again"));
    }
}

fn try_run(state: &RecordsState) {
    let (metrics, now) = (&state.metrics, state.time.now());
    let lost = state.before.recovered || [&metrics.damaged, &metrics.unknown_peers].iter().any(|n| n.get() > 0);
    let mut salvage = Salvage {
        live: chunk_key(now.oldest_live(state.ttl_s), 0),
        now: chunk_key(now.log, u32::MAX),
        state,
        peers: PeerNumbers::default(),
        written: HashSet::new(),
        batch: Vec::new(),
        chunks: 0,
    };
    for unindexed in state.log.unindexed(lost) {
        match salvage.look_through(&File::of(&unindexed)) {
            Ok(true) => state.log.salvaged(unindexed.segment),
            Ok(false) => return,
            Err(error) => {
                // The segment stays, and the next start tries again.
                state.health().failed("salvage the log", &error, state.time.now().mono);
            }
        }
    }
    let chunks = salvage.chunks;
    if !salvage.exports() {
        return;
    }
    metrics.salvaged_chunks.add(chunks);
    match chunks {
        0 => {}
        _ if lost => state.note(format!("records/ had lost {chunks} chunks of the log; they were salvaged from log/")),
        _ => tracing::info!(chunks, "salvaged the chunks that were written last before the process ended"),
    }
}

fn unread(path: &Path, error: CodecError) -> StoreError {
    StoreError::database(path.display().to_string(), error)
}

/// A file to salvage chunks from.
struct File<'a> {
    path: &'a Path,
    /// Where chunks without rows may begin, in bytes from the start.
    from: u64,
    /// Number of the segment; `None` for an export, to whose chunks no row can point.
    segment: Option<u32>,
}

impl<'a> File<'a> {
    fn of(unindexed: &'a Unindexed) -> Self {
        Self { path: &unindexed.path, from: unindexed.from, segment: Some(unindexed.segment) }
    }
}

/// A chunk that may have no row.
struct UnindexedChunk {
    key: u64,
    is_exported: bool,
    /// Where it lies. `None` if no row can point there, so that it must be written again.
    location: Option<Location>,
    chunk: Vec<u8>,
}

struct Salvage<'a> {
    state: &'a RecordsState,
    /// Chunks with keys below this have expired.
    live: u64,
    /// Chunks with keys above this are dated in the future: the wall clock was set back, and the log was re-dated.
    now: u64,
    peers: PeerNumbers,
    /// Peers whose rows this salvage has written.
    written: HashSet<u32>,
    batch: Vec<UnindexedChunk>,
    chunks: u64,
}

impl Salvage<'_> {
    /// Salvages chunks from the exports of older versions, then removes these. Returns false if the store closes before
    /// the end.
    fn exports(&mut self) -> bool {
        let (paths, before) = (old_exports::list(&self.state.before.exports), self.chunks);
        let mut taken = Vec::with_capacity(paths.len());
        for path in &paths {
            match self.look_through(&File { path, from: 0, segment: None }) {
                Ok(true) => taken.push(path),
                Ok(false) => return false,
                Err(error) => self.state.note(format!("{error}; the next start tries again to salvage it")),
            }
        }
        if self.chunks > before {
            let chunks = self.chunks - before;
            self.state.metrics.salvaged_chunks.add(chunks);
            self.state.note(format!("{chunks} chunks of the log were salvaged from exports/ of an older version"));
        }
        if !taken.is_empty() && !self.state.reads_only() && self.state.flush_log().is_ok() {
            taken.into_iter().for_each(|path| old_exports::remove(path));
        }
        true
    }

    /// Salvages chunks from a file. Returns false if the store closes before the end.
    fn look_through(&mut self, file: &File<'_>) -> Result<bool, StoreError> {
        let mut items = match LogFrames::open(file.path) {
            Ok(items) => items,
            // The file may be whole: the disk may have failed, or another version may have written it.
            Err(error) => return Err(unread(file.path, error)),
        };
        self.peers = PeerNumbers::default();
        loop {
            let item = items.next();
            let extent = items.extent();
            match item {
                None => break,
                Some(Ok(LogFrame::Peer { id, row })) => drop(self.peers.rows.insert(id, row)),
                Some(Ok(LogFrame::Chunk { key, chunk }))
                    if extent.end > file.from && (self.live..=self.now).contains(&key) =>
                {
                    // If the header is damaged, only this shows that another version has written the file.
                    if let Err(error @ CodecError::Version(_)) = entry::decode(&chunk) {
                        return Err(unread(file.path, error));
                    }
                    let len = u32::try_from(extent.end - extent.offset).unwrap_or(u32::MAX);
                    let location = |segment| Location { segment, offset: extent.offset, len };
                    let location = file.segment.filter(|_| extent.intact).map(location);
                    self.batch.push(UnindexedChunk { key, is_exported: file.segment.is_none(), location, chunk });
                }
                Some(Ok(_)) => {}
                Some(Err(error @ CodecError::Io(_))) => return Err(unread(file.path, error)),
                // This is a torn end, or a place to which no row points: replay has reported all others. Go on behind
                // it.
                Some(Err(error)) => {
                    let offset = extent.offset;
                    tracing::debug!(path = %file.path.display(), offset, %error, "cannot read a frame of the log; \
                        salvage goes on behind it");
                }
            }
            if self.batch.len() >= BATCH {
                self.enter()?;
            }
            if self.state.is_closing() {
                return Ok(false);
            }
        }
        self.enter()?;
        Ok(true)
    }

    /// Enters the batch into the log and into the index.
    fn enter(&mut self) -> Result<(), StoreError> {
        let state = self.state;
        let batch = std::mem::take(&mut self.batch);
        let mut unknown = Vec::new();
        for found in &batch {
            let held = || state.log.get(found.key).ok().flatten();
            // For an export the key alone decides: its chunk may have other numbers for the same peers.
            let has_it = !peer_numbers::is_missing(state, found.key)
                && (found.is_exported || held().as_ref() == Some(&found.chunk));
            if !has_it && let Ok(entries) = entry::decode(&found.chunk) {
                unknown.push((found, entries));
            }
        }
        let mut translated = Vec::new();
        for (found, entries) in unknown {
            let (entries, same) = self.peers.translate(state, entries);
            translated.push((found, entries, same));
        }
        let named = translated.iter().flat_map(|(_, entries, _)| entries.iter().map(|entry| entry.peer));
        let mut unwritten: Vec<u32> = named.filter(|peer| self.written.insert(*peer)).collect();
        unwritten.sort_unstable();
        if !unwritten.is_empty() {
            peer_numbers::write(state, &unwritten)?;
        }
        let mut records = Vec::new();
        // The newest first, as in replay.
        for (found, entries, same) in translated.into_iter().rev() {
            self.write(found, &entries, same)?;
            indexing::name(state, chunk_time(found.key), &entries, &mut records);
            state.replay.count();
            self.chunks += 1;
        }
        indexing::enter(state, &mut records);
        Ok(())
    }

    fn write(&self, found: &UnindexedChunk, entries: &[Entry<'_>], same: bool) -> Result<(), StoreError> {
        let log = &self.state.log;
        if let Some(location) = found.location.filter(|_| same) {
            return log.found(found.key, location, &found.chunk);
        }
        let as_here = peer_numbers::encode(entries).map_err(|e| StoreError::Database(e.into()))?;
        log.put_back(found.key, &found.chunk, &as_here)
    }
}
