//! Exports of the log: each chunk is copied once, as it is, into a segment of `exports/`, and stays there until it is
//! older than the ttl. What the log has lost is found again from there at the next start (`restore`).
//!
//! Which keys are exported is told by the names of the segments alone: a run writes what no segment stands for. So one
//! that is removed or set aside is written again, and there is no position to be lost.
//!
//! What a removal takes away stays away as far as it is exported: it stands in a later segment than what it removes.

pub mod segment;

use super::frames::{self, Item};
use super::{
    ExportReport, Shared,
    entry::{self, Entry},
    log::{chunk_key, chunk_name, chunk_time},
    time::Ledger,
};
use crate::store::{
    StoreError, codec,
    engine::{Found, Walk},
    exports::Unfinished,
    meta::Floor,
};
use segment::Segment;
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Chunks of a segment at most: some 6 million records, 250 MB. What a kill costs is to write one again.
const MAX_CHUNKS: u64 = 8192;
/// Chunks between two rests: 2 MB.
const SLICE: u64 = 64;
/// How long a rest is: an export takes at most 40 MB/s of the disk. At 1,500 records/s there are 190 MB an hour.
const REST: Duration = Duration::from_millis(50);
/// Less than this part of the ttl is not worth a segment: there are never more than some 500.
const MIN_SPAN_PART_OF_TTL: u32 = 512;

/// The segments of a store.
#[derive(Debug)]
pub struct Exports {
    dir: PathBuf,
    /// What they promised when the store was opened.
    promised: Vec<Promised>,
    /// What the log was to hold then.
    floor: Option<Floor>,
    /// The database was recovered: look through all of them.
    recovered: bool,
    /// Held by the one run; keys between which the log was dated anew, which no old segment stands for.
    moved: Mutex<Vec<(u64, u64)>>,
    /// First and last second of what was loaded since the last run: chunks that segments of these times lack.
    loaded: Mutex<Option<(u32, u32)>>,
    /// No run was since the store was opened.
    is_first: AtomicBool,
    /// Newest key exported; 0 is none.
    to: AtomicU64,
}

/// A segment, and how much of it replay has found in the log.
#[derive(Debug)]
pub struct Promised {
    /// Which.
    pub segment: Segment,
    /// Chunks.
    pub found: AtomicU64,
}

impl Exports {
    /// Lists the segments; creates nothing. `now` is log time.
    pub fn open(dir: PathBuf, floor: Option<Floor>, recovered: bool, now: u32) -> Self {
        let mut promised = Segment::list(&dir);
        // Of a time that was taken back: the log was dated anew.
        promised.retain(|segment| chunk_time(segment.to) <= now);
        let to = promised.iter().map(|segment| segment.to).max().unwrap_or(0);
        let promised =
            promised.into_iter().map(|segment| Promised { segment, found: AtomicU64::new(0) }).collect::<Vec<_>>();
        Self {
            dir,
            promised,
            floor,
            recovered,
            moved: Mutex::default(),
            loaded: Mutex::new(None),
            is_first: AtomicBool::new(true),
            to: AtomicU64::new(to),
        }
    }

    /// Replay has found this chunk.
    pub fn found(&self, key: u64) {
        let behind = self.promised.partition_point(|promised| promised.segment.from <= key);
        let promised = behind.checked_sub(1).and_then(|at| self.promised.get(at));
        if let Some(promised) = promised.filter(|promised| key <= promised.segment.to) {
            promised.found.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Chunks of these seconds come into the log now, perhaps behind what is exported.
    pub fn loaded(&self, first: u32, last: u32) {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let (from, to) = loaded.unwrap_or((first, last));
        *loaded = Some((from.min(first), to.max(last)));
    }

    /// Segments that hold less than replay has found: what was loaded before the last stop is not in them.
    fn outgrown(&self) -> impl Iterator<Item = (u64, u64)> {
        let found = |promised: &Promised| promised.found.load(Ordering::Relaxed);
        let outgrown = self.promised.iter().filter(move |promised| found(promised) > promised.segment.chunks);
        outgrown.map(|promised| (promised.segment.from, promised.segment.to))
    }

    /// What there was when the store was opened.
    pub fn promised(&self) -> &[Promised] {
        &self.promised
    }

    /// What the log was to hold when the store was opened.
    pub fn floor(&self) -> Option<Floor> {
        self.floor
    }

    /// Whether the database was recovered when the store was opened.
    pub fn is_recovered(&self) -> bool {
        self.recovered
    }

    /// The time of the newest chunk exported.
    pub fn exported_to(&self) -> Option<u32> {
        Some(chunk_time(self.to.load(Ordering::Relaxed))).filter(|time| *time > 0)
    }
}

/// Writes what is not exported yet, and removes what is older than the ttl. Blocking, slow on purpose; one at a time.
pub fn run(shared: &Shared) -> Result<ExportReport, StoreError> {
    let mut moved = shared.exports.moved.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(reason) = waits(shared) {
        return Ok(ExportReport { paused: Some(reason), ..ExportReport::default() });
    }
    while let Some(step) = shared.time.next_move(Ledger::Exports) {
        // The second before the first of these is where the log went on.
        moved.push((chunk_key(step.from.saturating_sub(1), 0), chunk_key(step.to, u32::MAX)));
        shared.time.done(Ledger::Exports, step);
    }
    let exports = &shared.exports;
    let loaded = exports.loaded.lock().unwrap_or_else(PoisonError::into_inner).take();
    moved.extend(loaded.map(|(first, last)| (chunk_key(first, 0), chunk_key(last, u32::MAX))));
    if exports.is_first.swap(false, Ordering::Relaxed) {
        moved.extend(exports.outgrown());
    }
    let mut report = ExportReport::default();
    let outcome = export(shared, &moved, &mut report);
    shared.counters.exported_chunks.fetch_add(report.chunks, Ordering::Relaxed);
    shared.counters.exported_bytes.fetch_add(report.bytes, Ordering::Relaxed);
    if outcome.is_err() {
        shared.counters.export_failures.fetch_add(1, Ordering::Relaxed);
    } else if report.paused.is_none() {
        moved.clear();
    }
    outcome.map(|()| report)
}

/// Why nothing can be exported at present.
fn waits(shared: &Shared) -> Option<String> {
    if !shared.replay.is_done() {
        return Some("the log is being replayed".into());
    }
    if shared.health().is_read_only() {
        return Some("the database does not take writes".into());
    }
    if shared.disk.is_short() {
        return shared.disk.notes().into_iter().next();
    }
    shared.time.next_move(Ledger::Records).map(|_| "the log is being dated anew".into())
}

fn export(shared: &Shared, moved: &[(u64, u64)], report: &mut ExportReport) -> Result<(), StoreError> {
    let dir = &shared.exports.dir;
    let now = shared.time.now().log;
    let is_stale = |segment: &Segment| {
        chunk_time(segment.to) > now || moved.iter().any(|(from, to)| segment.from <= *to && segment.to >= *from)
    };
    let (stale, mut kept): (Vec<_>, Vec<_>) = Segment::list(dir).into_iter().partition(is_stale);
    let first = chunk_key(now.saturating_sub(shared.ttl_s - 1), 0);
    let last = shared.log.newest().map_or(0, |newest| newest.min(chunk_key(now, u32::MAX)));
    let gaps = gaps(&kept, first, last);
    for (from, to) in gaps {
        let is_little = chunk_time(last) - chunk_time(from).min(chunk_time(last)) < shared.ttl_s / MIN_SPAN_PART_OF_TTL;
        // Of a damaged segment in the middle, even the least.
        if is_little && to == last && !kept.is_empty() && stale.is_empty() {
            continue;
        }
        let outcome = copy(shared, dir, (from, to), report, &mut kept);
        let newest = kept.iter().map(|segment| segment.to).max().unwrap_or(0);
        shared.exports.to.store(newest, Ordering::Relaxed);
        outcome?;
        if report.paused.is_some() {
            return Ok(());
        }
    }
    let mut old: Vec<Segment> = stale.into_iter().filter(|s| kept.iter().all(|k| k.path != s.path)).collect();
    // A step of the clock that may be taken back deletes nothing.
    if shared.time.unconfirmed().is_none() {
        let outlived = |s: &Segment| chunk_time(s.to).saturating_add(shared.ttl_s) <= now;
        old.extend(kept.into_iter().chain(Segment::list_damaged(dir)).filter(outlived));
    }
    report.removed = old.len() as u64;
    old.iter().for_each(Segment::remove);
    Ok(())
}

/// The keys of `first..=last` that no segment stands for.
fn gaps(segments: &[Segment], first: u64, last: u64) -> Vec<(u64, u64)> {
    let mut gaps = Vec::new();
    let mut next = first;
    for segment in segments.iter().filter(|segment| segment.to >= first) {
        if segment.from > next {
            gaps.push((next, segment.from - 1));
        }
        next = next.max(segment.to.saturating_add(1));
    }
    gaps.push((next, last));
    gaps.retain(|(from, to)| from <= to);
    gaps.iter_mut().for_each(|(_, to)| *to = last.min(*to));
    gaps.retain(|(from, to)| from <= to);
    gaps
}

/// A segment under way.
struct Open {
    file: Unfinished,
    from: u64,
    to: u64,
    chunks: u64,
    peers: HashSet<u32>,
}

impl Open {
    fn begin(dir: &Path, from: u64) -> Result<Self, StoreError> {
        let mut file = Unfinished::create(dir, "records.unfinished")?;
        file.put_bytes(&frames::begin(from)?)?;
        Ok(Self { file, from, to: from, chunks: 0, peers: HashSet::new() })
    }

    fn put(&mut self, shared: &Shared, key: u64, chunk: &[u8], entries: &[Entry<'_>]) -> Result<(), StoreError> {
        for entry in entries {
            if !self.peers.contains(&entry.peer)
                && let Some(peer) = shared.book.get(entry.peer)
            {
                let row = codec::encode(&peer.row()).map_err(|e| StoreError::Database(e.to_string()))?;
                self.file.put(&Item::Peer { id: entry.peer, row })?;
                self.peers.insert(entry.peer);
            }
        }
        self.file.put(&Item::Chunk { key, chunk: chunk.to_vec() })?;
        self.to = key;
        self.chunks += 1;
        Ok(())
    }

    fn finish(mut self, report: &mut ExportReport) -> Result<Segment, StoreError> {
        let (from, to, chunks) = (self.from, self.to, self.chunks);
        let peers = self.peers.len() as u64;
        self.file.put(&Item::End { to, chunks, peers })?;
        let (path, bytes) = self.file.finish(&Segment::name(from, to, chunks))?;
        report.segments += 1;
        report.chunks += chunks;
        report.peers += peers;
        report.bytes += bytes;
        Ok(Segment { from, to, chunks, path })
    }
}

/// Copies the chunks of `from..=to` into one or more segments.
fn copy(
    shared: &Shared,
    dir: &Path,
    (from, to): (u64, u64),
    report: &mut ExportReport,
    kept: &mut Vec<Segment>,
) -> Result<(), StoreError> {
    let mut open: Option<Open> = None;
    let mut next = from;
    let mut walked = 0;
    for found in Walk::forwards(shared.log.chunks(), from, to) {
        match found {
            Found::Row(key, chunk) => {
                // Damaged since it was replayed; what it held may be in memory, but not here.
                let Ok(entries) = entry::decode(&chunk) else {
                    shared.damaged(format!("{} is damaged, and not exported", chunk_name(key)));
                    continue;
                };
                let segment = match &mut open {
                    Some(segment) => segment,
                    None => open.insert(Open::begin(dir, next)?),
                };
                segment.put(shared, key, &chunk, &entries)?;
                next = key.saturating_add(1);
            }
            Found::Lost(_, _, StoreError::Degraded(_)) => {
                report.paused = Some("the database is being opened anew".into());
                return Ok(());
            }
            Found::Lost(lost_from, lost_to, error) => {
                shared.health().failed("export the log", &error, shared.time.now().mono);
                shared.damaged(format!("{} to {} cannot be read: {error}", chunk_name(lost_from), chunk_name(lost_to)));
                // No segment stands for what was not read.
                if let Some(segment) = open.take() {
                    kept.push(segment.finish(report)?);
                }
                next = lost_to.saturating_add(1);
            }
        }
        if let Some(segment) = open.take_if(|segment| segment.chunks >= MAX_CHUNKS) {
            kept.push(segment.finish(report)?);
        }
        walked += 1;
        if walked % SLICE == 0 {
            thread::sleep(REST);
        }
        if shared.is_closing() || shared.health().is_read_only() {
            report.paused = Some("the store is closing, or its disk has failed".into());
            return Ok(());
        }
    }
    if let Some(segment) = open {
        kept.push(segment.finish(report)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(from: u64, to: u64) -> Segment {
        Segment { from, to, chunks: 1, path: PathBuf::from(Segment::name(from, to, 1)) }
    }

    #[test]
    fn gaps_are_what_no_segment_stands_for() {
        assert_eq!(gaps(&[], 5, 9), [(5, 9)]);
        assert_eq!(gaps(&[], 5, 4), []);
        assert_eq!(gaps(&[segment(0, 9)], 5, 9), []);
        assert_eq!(gaps(&[segment(0, 6)], 5, 9), [(7, 9)]);
        assert_eq!(gaps(&[segment(6, 7), segment(7, 8)], 5, 9), [(5, 5), (9, 9)]);
        assert_eq!(gaps(&[segment(0, 3), segment(20, u64::MAX)], 5, 9), [(5, 9)]);
        assert_eq!(gaps(&[segment(0, 30), segment(7, 8)], 5, 9), []);
    }

    #[test]
    fn a_segment_is_known_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let name = Segment::name(7 << 32, 9 << 32 | 1, 12);
        for name in [&name, "records-7-3-1.export", "records-x-9-1.export", "records-1-2.export", "node-1-2.export"] {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        let found = Segment::list(dir.path());
        assert_eq!(found, [Segment { from: 7 << 32, to: 9 << 32 | 1, chunks: 12, path: dir.path().join(&name) }]);
        // Damage is an error among the items: what is whole behind it is read all the same.
        assert!(found[0].read().unwrap().next().unwrap().is_err());
        found[0].set_aside();
        assert_eq!(Segment::list(dir.path()), []);
        assert_eq!(Segment::list_damaged(dir.path()).len(), 1);
    }
}
