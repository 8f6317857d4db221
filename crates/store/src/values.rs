//! Values of others (`/pk/`, `/ipns/`): all of them in memory, each with a row in the tree `values` of `records/`.
//!
//! There are few beside provider records, so that reads never touch the disk and rows are written one by one. Nothing
//! enters that was not validated, and nothing is served past its ttl or its own end (VAL-5), collected or not. A worse
//! value never takes the place of a better one: writers go one at a time.
//!
//! Names are free to make, so at its bounds the store keeps what is closest to the node in the keyspace, where look-ups
//! come for it: a value of a key that is held is always taken, and what is farthest gives way; a newcomer that is itself
//! the farthest is refused.

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
/// ... but never more than this part of the ttl: a crash takes back so much of it.
const REPEAT_PART_OF_TTL: u32 = 10;

/// The store of values. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Values {
    state: Arc<ValuesState>,
}

impl Values {
    /// Reads all rows; those that are damaged are passed over, counted and told.
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

    /// Validates a value and takes it if no better one is held; the same again renews its time. Off the async threads,
    /// few at a time: others wait. On disk within half a second, or with the next flush.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn put(&self, key: Vec<u8>, value: Vec<u8>) -> Result<Put, Refused> {
        let state = self.state.clone();
        let Ok(_thread) = self.state.threads.acquire().await else { return Err(Refused::ReadOnly) };
        // A panic there is one of sled, or of the runtime that ends.
        tokio::task::spawn_blocking(move || state.put(&key, &value)).await.unwrap_or(Err(Refused::ReadOnly))
    }

    /// [`Values::put`] for threads.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn put_blocking(&self, key: &[u8], value: &[u8]) -> Result<Put, Refused> {
        self.state.put(key, value)
    }

    /// Takes a value of another time, from a dump: validated as any. False if the same is held with that time or a later
    /// one, or another that is not worse.
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

    /// The value of `key`, if one is held and still valid. Memory only. Of a value from before the last start the
    /// signature is checked at the first reading.
    pub fn get(&self, key: &[u8]) -> Option<Held> {
        let now = self.state.records.time.now();
        let held = self.state.table().get(key).cloned()?;
        (held.is_live(&now, self.state.ttl_s) && self.state.check(&held, now.for_ends())).then_some(held)
    }

    /// Removes what has ended, at the cost of what goes. Deletes nothing while the wall clock is in doubt.
    ///
    /// # Errors
    /// [`StoreError::Database`]; what has ended is not served all the same.
    pub async fn collect_garbage(&self) -> Result<GcReport, StoreError> {
        let state = self.state.clone();
        blocking(move || state.collect()).await
    }

    /// How many, and the bytes of keys and values; ended ones that are not collected yet included.
    pub fn size(&self) -> (usize, usize) {
        let table = self.state.table();
        (table.len(), table.bytes())
    }

    /// Up to `limit` behind `key`, those closest to the node first, and whether each is still served.
    pub fn after(&self, key: Option<&[u8]>, limit: usize) -> Vec<(Held, bool)> {
        let now = self.state.records.time.now();
        let held = self.state.table().after(key, limit);
        held.into_iter()
            .map(|held| (held.is_live(&now, self.state.ttl_s), held))
            .map(|(live, held)| (held, live))
            .collect()
    }

    /// How long a value is served after its last PUT_VALUE, in seconds.
    pub(super) fn ttl_s(&self) -> u32 {
        self.state.ttl_s
    }

    /// When `held` is served no longer.
    pub fn ends(&self, held: &Held) -> UnixTime {
        UnixTime(held.received.0.saturating_add(self.state.ttl_s).min(held.ends))
    }

    /// Makes the rows what memory is, once the database was opened anew.
    pub(super) fn write_anew(&self) -> Result<(), StoreError> {
        self.state.write_anew()
    }

    /// What was found damaged.
    pub(super) fn notes(&self) -> &[String] {
        &self.state.notes
    }
}

/// Half of the processors: whoever sends signatures to check leaves the others to everybody else.
fn threads() -> usize {
    (std::thread::available_parallelism().map_or(1, usize::from) / 2).max(1)
}
