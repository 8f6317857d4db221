//! Events since start, as `stat` shows them.

use super::{Refused, index::Upsert};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

/// Events since start.
#[derive(Debug, Default)]
pub struct RecordCounters {
    /// New records.
    pub new: AtomicU64,
    /// Announcements of known records.
    pub refreshed: AtomicU64,
    /// Announcements within five minutes of the last, not written again.
    pub repeated: AtomicU64,
    /// Records taken from a dump.
    pub loaded: AtomicU64,
    /// Records removed on request.
    pub removed: AtomicU64,
    /// Records that expired.
    pub collected: AtomicU64,
    /// Records dropped because there were too many, the farthest first.
    pub evicted: AtomicU64,
    /// Records dated anew after the wall clock stepped.
    pub redated: AtomicU64,
    /// Places on disk that could not be read.
    pub damaged: AtomicU64,
    /// Entries of the log read at the start.
    pub replayed: AtomicU64,
    /// Entries of the log whose peer is not in the address book.
    pub unknown_peers: AtomicU64,
    /// Records of the log for which there is no room.
    pub replay_refused: AtomicU64,
    /// Chunks of segments of which sled did not know.
    pub salvaged_chunks: AtomicU64,
    /// Chunks that should be there and are not.
    pub lost_chunks: AtomicU64,
    /// See `Refused`.
    pub records_full: AtomicU64,
    /// See `Refused`.
    pub records_far: AtomicU64,
    /// See `Refused`.
    pub provider_full: AtomicU64,
    /// See `Refused`.
    pub key_full: AtomicU64,
    /// See `Refused`.
    pub peers_full: AtomicU64,
    /// See `Refused`.
    pub read_only: AtomicU64,
    /// See `Refused`.
    pub disk_full: AtomicU64,
    /// See `Refused`.
    pub key_too_long: AtomicU64,
}

impl RecordCounters {
    /// Counts what became of an announcement.
    pub fn count(&self, outcome: &Result<Upsert, Refused>) {
        let counter = match outcome {
            Ok(Upsert::New) => &self.new,
            Ok(Upsert::Refreshed) => &self.refreshed,
            Ok(Upsert::Kept) => &self.repeated,
            Err(Refused::RecordsFull) => &self.records_full,
            Err(Refused::RecordsFar) => &self.records_far,
            Err(Refused::ProviderFull) => &self.provider_full,
            Err(Refused::KeyFull) => &self.key_full,
            Err(Refused::PeersFull) => &self.peers_full,
            Err(Refused::ReadOnly | Refused::NotNow(_)) => &self.read_only,
            Err(Refused::DiskFull) => &self.disk_full,
            Err(Refused::KeyTooLong) => &self.key_too_long,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// All of them.
    pub fn by_name(&self) -> BTreeMap<String, u64> {
        let counters = [
            ("added_new", &self.new),
            ("added_refreshed", &self.refreshed),
            ("added_repeated", &self.repeated),
            ("loaded", &self.loaded),
            ("removed", &self.removed),
            ("collected", &self.collected),
            ("evicted", &self.evicted),
            ("redated", &self.redated),
            ("damaged", &self.damaged),
            ("replayed_entries", &self.replayed),
            ("replay_unknown_peer", &self.unknown_peers),
            ("replay_refused", &self.replay_refused),
            ("salvaged_chunks", &self.salvaged_chunks),
            ("lost_chunks", &self.lost_chunks),
            ("refused_records_full", &self.records_full),
            ("refused_records_far", &self.records_far),
            ("refused_provider_full", &self.provider_full),
            ("refused_key_full", &self.key_full),
            ("refused_peers_full", &self.peers_full),
            ("refused_read_only", &self.read_only),
            ("refused_disk_full", &self.disk_full),
            ("refused_key_too_long", &self.key_too_long),
        ];
        counters.into_iter().map(|(name, n)| (name.to_owned(), n.load(Ordering::Relaxed))).collect()
    }
}
