//! Figures of the store, for `stat` and `dump meta`.

use super::{
    Purpose, Settings, Store, StoreError, data_dir,
    data_dir::names::{EXPORTS, LOG, NODE, RECORDS},
    disk, filesystem, footprint, is_data_dir, limits,
    records::log::chunk_time,
};
use crate::{clock::UnixTime, metrics::Metrics};
use std::{path::Path, sync::Arc};

impl Store {
    /// Returns the counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.records.state.metrics
    }

    /// Returns counts, limits, bytes on disk, the floor and notes of recovery, for `stat` and `dump meta`.
    pub fn stat(&self) -> Stat {
        let state = &self.records.state;
        let mut counters = state.counters();
        let node = &self.opened.node.database.health;
        counters.insert("node_database_failures".to_owned(), node.failures());
        counters.insert("node_database_reopened".to_owned(), node.reopened());
        let (values, values_bytes) = self.values.size();
        let gc_paused = match state.replay.is_done() {
            true => state.time.unconfirmed(),
            false => Some("the log is being replayed".to_owned()),
        };
        let mut stat = Stat {
            schema: self.opened.schema,
            records: state.index.len() as u64,
            keys: state.index.keys() as u64,
            peers: state.book.len() as u64,
            provided: self.provided.len() as u64,
            values: values as u64,
            values_bytes: values_bytes as u64,
            log_chunks: state.log.count(),
            oldest: state.log.oldest().map(chunk_time),
            newest: state.log.newest().map(chunk_time),
            records_bytes_on_disk: [RECORDS, LOG]
                .iter()
                .map(|part| filesystem::bytes_below(&self.opened.dir.join(part)))
                .sum(),
            node_bytes_on_disk: filesystem::bytes_below(&self.opened.dir.join(NODE)),
            bytes_on_disk: state.disk.used(),
            disk_free: state.disk.free(),
            exports_bytes_on_disk: filesystem::bytes_below(&self.opened.dir.join(EXPORTS)),
            replayed: state.replay.progress(),
            gc_paused,
            notes: self.opened.notes.iter().cloned().chain(state.notes()).chain(node.note(NODE)).collect(),
            counters,
            log_entries: footprint::entries(state),
            oldest_age_s: None,
            log_entries_per_s: None,
            per_record: footprint::Footprint::default(),
            limits: Vec::new(),
        };
        self.put_in_relation(&mut stat, &footprint::figures(state));
        stat
    }

    /// Returns the notes of [`Store::stat`] that are about the disk or a limit at this moment. They mean no damage.
    pub(super) fn passing_notes(&self) -> Vec<String> {
        let node = self.opened.node.database.health.note(NODE);
        self.records.state.passing_notes().into_iter().chain(node).collect()
    }

    /// Fills in the figures that follow from `stat` and these.
    fn put_in_relation(&self, stat: &mut Stat, figures: &limits::Figures) {
        let state = &self.records.state;
        let per_record = |n: u64| (stat.records > 0).then(|| n as f64 / stat.records as f64);
        stat.per_record = footprint::Footprint {
            disk_bytes: per_record(stat.records_bytes_on_disk),
            index_bytes: per_record(self.records.index_bytes() as u64),
            memory_bytes: figures.memory_bytes.and_then(per_record),
            log_copies: stat.log_entries.and_then(per_record),
        };
        let age = |time: u32| u64::from(state.time.now().log.saturating_sub(time));
        stat.oldest_age_s = stat.oldest.map(age);
        let span = stat.newest.zip(stat.oldest).map(|(newest, oldest)| newest.saturating_sub(oldest));
        let span = span.filter(|seconds| *seconds > 0).map(f64::from);
        stat.log_entries_per_s = stat.log_entries.zip(span).map(|(entries, span)| entries as f64 / span);
        stat.limits = limits::of(figures, &self.opened.bounds);
    }
}

/// Returns [`Store::stat`] of the directory of a stopped node. Opens a copy and replays its log, so the directory stays
/// byte for byte as it is. Counts of events are those of the copy.
///
/// # Errors
/// As [`super::dump::stopped`].
pub fn stat_stopped(dir: &Path, settings: Settings, now: UnixTime) -> Result<Stat, StoreError> {
    if !is_data_dir(dir) {
        return Err(StoreError::NoDatabase(dir.to_owned()));
    }
    let copy = data_dir::copy_for_reading(dir, None)?;
    let store = Store::open_for(Purpose::Read, copy.path(), settings, crate::clock::ManualClock::at(now))?;
    store.records.wait_replayed();
    let mut stat = store.stat();
    // The copy may be on another disk.
    let disk = disk::Disk::new(dir, 0, 0);
    (stat.bytes_on_disk, stat.disk_free) = (disk.used(), disk.free());
    let figures = limits::Figures {
        records: stat.records,
        disk_bytes: disk.used(),
        disk_free_bytes: disk.free(),
        memory_bytes: None,
        memory_room_bytes: None,
    };
    store.put_in_relation(&mut stat, &figures);
    Ok(stat)
}

/// Figures of the store.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Stat {
    /// Schema version of the databases (migrations/).
    pub schema: u32,
    /// Number of provider records in the index, including expired ones that are not collected yet.
    pub records: u64,
    /// Number of multihashes with a provider.
    pub keys: u64,
    /// Number of peers in the address book.
    pub peers: u64,
    /// Number of own CIDs.
    pub provided: u64,
    /// Number of values, including ended ones that are not collected yet.
    #[serde(default)]
    pub values: u64,
    /// Bytes of their keys and values.
    #[serde(default)]
    pub values_bytes: u64,
    /// Number of chunks of the log, including expired ones that are not collected yet.
    pub log_chunks: u64,
    /// Time of the oldest chunk, Unix seconds.
    pub oldest: Option<u32>,
    /// Time of the newest chunk, Unix seconds.
    pub newest: Option<u32>,
    /// Size of all files below `records/` and `log/`, in bytes.
    pub records_bytes_on_disk: u64,
    /// Size of all files below `node/`, in bytes.
    pub node_bytes_on_disk: u64,
    /// Bytes that the whole data directory took on disk some seconds ago.
    #[serde(default)]
    pub bytes_on_disk: u64,
    /// Bytes free on its disk.
    #[serde(default)]
    pub disk_free: u64,
    /// Size of all files below `exports/`, in bytes.
    #[serde(default)]
    pub exports_bytes_on_disk: u64,
    /// Part of the log that is replayed: 0.0 to 1.0.
    pub replayed: f64,
    /// Why garbage collection is paused, if it is.
    pub gc_paused: Option<String>,
    /// What recovery found and did when the store was opened, and what could not be read since.
    pub notes: Vec<String>,
    /// Counts of events since the start, by name.
    pub counters: std::collections::BTreeMap<String, u64>,
    /// Approximate number of announcements in the log.
    #[serde(default)]
    pub log_entries: Option<u64>,
    /// Age of the oldest chunk of the log.
    #[serde(default)]
    pub oldest_age_s: Option<u64>,
    /// Announcements a second that the log took, on average over the time that it covers.
    #[serde(default)]
    pub log_entries_per_s: Option<f64>,
    /// Space that a record takes.
    #[serde(default)]
    pub per_record: footprint::Footprint,
    /// The limits, and how much of each is taken, the nearest first.
    #[serde(default)]
    pub limits: Vec<limits::Limit>,
}
