//! Checks the segments of the log, byte by byte. No row points to the beginning of a segment or to its rows of
//! providers. Damage there still matters: if `records/` is lost later, it costs records. Also reports chunks that have
//! no row in `records/`.

use super::findings::{Findings, RECORDS_NEXT, TOLD_MAX};
use crate::{
    clock::UnixTime,
    codec::{self, CodecError},
    data_dir::names::LOG,
    engine::{Walk, Walked},
    meta::Floor,
    records::{
        book::PeerRow,
        entry::{self, Entry, KeyPrefix},
        log::{Log, chunk_key, segments},
        log_frames::{LogFrame, LogFrames},
    },
};
use libp2p_identity::PeerId;
use std::{collections::HashSet, path::Path, time::Duration};

/// Maximum number of records that are looked up in other chunks because their own chunk has no row.
const LOOKED_FOR_MAX: usize = 1_000_000;
/// Advice for damage to a segment. It says what a start does about the damage.
const SEGMENT_NEXT: &str = "start the node: it reads the rest of this file; the lost records come back when they are \
    announced again, and the file is removed when its last record has expired";

/// Checks all segments of a directory against its database.
pub fn check(
    dir: &Path,
    records: &Log,
    floor: Option<Floor>,
    (ttl, now): (Duration, UnixTime),
    findings: &mut Findings,
) {
    let ends = records.ends().unwrap_or_default();
    let keys: HashSet<u64> = Walk::forwards(records.keys(), 0, u64::MAX)
        .filter_map(|found| match found {
            Walked::Row(key, _) => Some(key),
            Walked::Lost(..) => None,
        })
        .collect();
    let ttl_s = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
    let live = chunk_key(now.0.saturating_sub(ttl_s.saturating_sub(1)), 0);
    let promised = floor.and_then(|floor| Some(floor.oldest?.max(live)..=floor.newest?));
    let mut orphans: HashSet<(KeyPrefix, u32)> = HashSet::new();
    read(
        dir,
        |number| ends.get(&number).copied(),
        findings,
        |key, entries| {
            if !promised.as_ref().is_some_and(|promised| promised.contains(&key)) || keys.contains(&key) {
                return;
            }
            for entry in entries.iter().filter(|entry| !entry.removed) {
                if orphans.len() < LOOKED_FOR_MAX {
                    orphans.insert((entry.multihash.key_prefix(), entry.peer));
                }
            }
        },
    );
    if orphans.is_empty() {
        return;
    }
    // A chunk may have been re-dated, or written again after a disk error. Another chunk then has its records.
    for found in Walk::forwards(records.chunks(), 0, u64::MAX) {
        let Walked::Row(_, chunk) = found else { continue };
        for entry in entry::decode(&chunk).unwrap_or_default() {
            orphans.remove(&(entry.multihash.key_prefix(), entry.peer));
        }
    }
    if !orphans.is_empty() {
        let found = format!("{} records in log/ have lost their row", orphans.len());
        findings.damaged("records/ log", found, RECORDS_NEXT);
    }
}

/// Checks all segments of a directory, but not the rows of its database. `records` is the database of a running store,
/// whose rows have been checked already. It is `None` if the database is missing or cannot be read.
pub fn check_alone(dir: &Path, records: Option<&Log>, findings: &mut Findings) {
    let ends = records.and_then(|log| log.ends().ok()).unwrap_or_default();
    read(dir, |number| ends.get(&number).copied(), findings, |_, _| {});
}

/// Reads every segment. `end` returns the length of a segment according to the database.
fn read(
    dir: &Path,
    end: impl Fn(u32) -> Option<u64>,
    findings: &mut Findings,
    mut chunk_of: impl FnMut(u64, &[Entry<'_>]),
) {
    let dir = dir.join(LOG);
    for (number, _) in segments::list(&dir) {
        let path = segments::path(&dir, number);
        let place = format!("log/{}", path.file_name().unwrap_or_default().to_string_lossy());
        let mut items = match LogFrames::open(&path) {
            Ok(items) => items,
            Err(error) => {
                findings.bad(&place, &error, SEGMENT_NEXT);
                continue;
            }
        };
        let (end, mut told, mut chunks, mut cut) = (end(number), 0, 0u64, false);
        while let Some(item) = items.next() {
            let at = items.extent();
            let error = match item {
                Ok(LogFrame::Chunk { key, chunk }) => match entry::decode(&chunk) {
                    Ok(entries) => {
                        chunks += 1;
                        chunk_of(key, &entries);
                        continue;
                    }
                    Err(error) => error,
                },
                Ok(LogFrame::Peer { row, .. }) => match codec::decode::<PeerRow>(&row) {
                    Ok(row) if PeerId::from_bytes(&row.peer).is_ok() => continue,
                    Ok(_) => CodecError::Malformed("a row of a provider without a peer id".into()),
                    Err(error) => error,
                },
                Ok(LogFrame::Header { .. } | LogFrame::End { .. }) => continue,
                Err(error) => error,
            };
            // A kill or a power cut may have torn the end of a segment. The torn part lies behind the length that the
            // database recorded at the last flush.
            let is_torn = at.end >= items.bytes() && end.is_none_or(|end| at.offset >= end);
            if is_torn && !matches!(error, CodecError::Io(_)) {
                cut = true;
                continue;
            }
            told += 1;
            if told <= TOLD_MAX {
                findings.bad(&format!("{place} at {}", at.offset), &error, SEGMENT_NEXT);
            }
        }
        if end.is_some_and(|end| items.bytes() < end) {
            let found = format!("{} bytes of {}", items.bytes(), end.unwrap_or_default());
            findings.damaged(&place, found, SEGMENT_NEXT);
        }
        if cut {
            let next = "a kill or a power cut came before the last flush; nothing to do";
            findings.note(&place, "ends with a frame that is incomplete", next);
        }
        if told > TOLD_MAX {
            findings.damaged(&place, format_args!("{told} such places in total"), SEGMENT_NEXT);
        }
        findings.ok(&place, format_args!("{chunks} chunks"));
    }
}
