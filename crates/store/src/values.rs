//! Values of other peers (`/pk/`, `/ipns/`): all of them in memory, each with a row in the tree `values` of `records/`.
//!
//! There are few values compared with provider records, so reads never touch the disk and rows are written one by one.
//! Only valid values are stored, and none is served past its ttl or its own end (VAL-5), collected or not. A worse
//! value never replaces a better one, since writers go one at a time.
//!
//! Anybody can make any number of names. So at its limits the store keeps the values closest to the node in the
//! keyspace, where look-ups search for them. A value of a held key is always accepted, and the farthest value is
//! dropped; a new key that is itself the farthest is refused.

mod state;
mod table;
#[cfg(test)]
mod tests;

pub use dhtstore_records::values::{Put, Refused};
pub use state::GcReport;
pub(super) use state::ValueRow;
pub use table::{Held, ValueBounds};

use super::{
    Settings, StoreError,
    blocking::blocking,
    codec,
    engine::each_row,
    records::{RecordsState, log::tree},
};
use crate::{clock::UnixTime, kad::keyspace::Key};
use parking_lot::{Mutex, RwLock};
use state::{JUDGE, Judge, ValuesState, ends};
use std::{sync::Arc, time::Duration};
use table::ValueTable;
use tokio::sync::Semaphore;

/// A repeat of the same value within this time is not written again ...
const REPEAT: Duration = Duration::from_secs(300);
/// ... or within the ttl divided by this, if that is shorter. After a crash a value may end earlier by that time.
const REPEAT_PART_OF_TTL: u32 = 10;

/// The store of values. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Values {
    state: Arc<ValuesState>,
}

impl Values {
    /// Reads all rows; damaged ones are skipped, counted and noted.
    pub(super) fn open(records: Arc<RecordsState>, settings: &Settings) -> Result<Self, StoreError> {
        Self::open_with(records, settings, JUDGE)
    }

    fn open_with(records: Arc<RecordsState>, settings: &Settings, judge: Judge) -> Result<Self, StoreError> {
        let ttl_s = super::records::seconds(settings.values_ttl);
        let tree = records.log.database.read(tree::VALUES, |tree| Ok(tree.clone()))?;
        let metrics = records.metrics.clone();
        let mut table = ValueTable::new(Key::from_bytes(settings.position), ttl_s);
        let mut damage = None;
        let unread = each_row(&tree, |key, bytes| match codec::read_frame::<ValueRow>(&mut &*bytes) {
            Ok(Some(ValueRow { received, value })) => {
                let ends = ends(judge, key, &value);
                let (key, value) = (key.into(), value.into());
                let received_at = UnixTime(received);
                table.insert(Held { key, value, received: received_at, ends, written: received, checked: false });
            }
            bad => {
                metrics.values_damaged.inc();
                damage = Some(bad.err().map_or_else(|| "an empty row".to_owned(), |error| error.to_string()));
            }
        });
        let mut notes = Vec::new();
        if let Some(error) = damage {
            notes.push(format!("{} rows of values are damaged ({error})", metrics.values_damaged.get()));
        }
        if let Some(error) = unread {
            metrics.values_damaged.inc();
            notes.push(format!("some values cannot be read from records/: {error}"));
        }
        let state = ValuesState {
            records,
            table: RwLock::new(table),
            writing: Mutex::default(),
            judge,
            bounds: ValueBounds { max: settings.max_values, max_bytes: settings.max_values_bytes },
            ttl_s,
            repeat_s: super::records::seconds(REPEAT).min(ttl_s / REPEAT_PART_OF_TTL),
            threads: Semaphore::new(threads()),
            notes,
        };
        Ok(Self { state: Arc::new(state) })
    }

    /// Validates a value and stores it if no better one is held; a repeat renews its time. Runs on blocking threads, a
    /// few at a time; further calls wait. The row is written within half a second, and fsynced by the next flush.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn put(&self, key: Vec<u8>, value: Vec<u8>) -> Result<Put, Refused> {
        let state = self.state.clone();
        let Ok(_thread) = self.state.threads.acquire().await else { return Err(Refused::ReadOnly) };
        // This fails if sled panics, or if the runtime is shutting down.
        tokio::task::spawn_blocking(move || state.put(&key, &value)).await.unwrap_or(Err(Refused::ReadOnly))
    }

    /// Stores a value like [`Values::put`], for threads.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn put_blocking(&self, key: &[u8], value: &[u8]) -> Result<Put, Refused> {
        self.state.put(key, value)
    }

    /// Stores a value of a dump, with its time, validated like any other. Returns false if the same value is held with
    /// this time or a later one, or another value that is not worse.
    ///
    /// # Errors
    /// [`Refused`].
    pub(super) fn load(&self, key: &[u8], value: &[u8], received: UnixTime) -> Result<bool, Refused> {
        match self.state.try_put(key, value, Some(received)) {
            Ok(_) => Ok(true),
            Err(Refused::Worse) => Ok(false),
            Err(refused) => Err(refused),
        }
    }

    /// Returns the value of `key`, if one is held and still valid. Reads memory only. The signature of a value from
    /// before the last start is checked when it is first read.
    pub fn get(&self, key: &[u8]) -> Option<Held> {
        let now = self.state.records.time.now();
        let held = self.state.table().get(key).cloned()?;
        (held.is_live(&now, self.state.ttl_s) && self.state.check(&held, now.for_ends())).then_some(held)
    }

    /// Removes values that have ended, at a cost proportional to their number. Removes nothing while the wall clock is
    /// in doubt.
    ///
    /// # Errors
    /// [`StoreError::Database`]; values that have ended are not served even then.
    pub async fn collect_garbage(&self) -> Result<GcReport, StoreError> {
        let state = self.state.clone();
        blocking(move || state.collect()).await
    }

    /// Returns the number of values, and the bytes of their keys and values. Both include ended values that are not
    /// collected yet.
    pub fn size(&self) -> (usize, usize) {
        let table = self.state.table();
        (table.len(), table.bytes())
    }

    /// Returns up to `limit` values behind `key`, those closest to the node first, and whether each is still served.
    pub fn after(&self, key: Option<&[u8]>, limit: usize) -> Vec<(Held, bool)> {
        let now = self.state.records.time.now();
        let held = self.state.table().after(key, limit);
        held.into_iter()
            .map(|held| (held.is_live(&now, self.state.ttl_s), held))
            .map(|(live, held)| (held, live))
            .collect()
    }

    /// Returns how long a value is served after its last PUT_VALUE, in seconds.
    pub(super) fn ttl_s(&self) -> u32 {
        self.state.ttl_s
    }

    /// Returns when `held` is no longer served.
    pub fn ends(&self, held: &Held) -> UnixTime {
        UnixTime(held.received.0.saturating_add(self.state.ttl_s).min(held.ends))
    }

    /// Makes the rows of a reopened database equal to memory.
    pub(super) fn write_anew(&self) -> Result<(), StoreError> {
        self.state.write_anew()
    }

    /// Returns notes on damage.
    pub(super) fn notes(&self) -> &[String] {
        &self.state.notes
    }
}

/// Returns half the number of processors, so that signatures to check leave the other half to everything else.
fn threads() -> usize {
    (std::thread::available_parallelism().map_or(1, usize::from) / 2).max(1)
}
