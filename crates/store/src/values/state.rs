//! Changes to values: validation and comparison, expiry and re-dating. One writer at a time; rows are written before
//! memory.

use super::{
    Put, Refused,
    table::{Held, ValueBounds, ValueTable},
};
use crate::{
    StoreError,
    clock::UnixTime,
    codec,
    engine::each_row,
    kad::values::{self, Invalid},
    records::{
        RecordsState,
        log::tree,
        time::{Ledger, Move},
    },
};
use bincode::{Decode, Encode};
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::{cmp::Ordering, sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// Number of values collected between two checks whether another writer waits: some 1 ms.
const SLICE: usize = 64;

/// Result of a garbage collection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GcReport {
    /// Number of values dropped.
    pub expired: u64,
    /// Why it stopped early, if it did.
    pub paused: Option<String>,
}

/// Checks whether a value may be held under a key at the given time.
type Validate = fn(&[u8], &[u8], Duration) -> Result<(), Invalid>;

/// The rules for values: [`crate::kad::values`], or those of a test.
#[derive(Clone, Copy, Debug)]
pub struct Judge {
    pub validate: Validate,
    pub compare: fn(&[u8], &[u8], &[u8]) -> Ordering,
    pub ends: fn(&[u8], &[u8]) -> Option<Duration>,
}

/// The rules of the DHT.
pub const JUDGE: Judge = Judge { validate: values::validate, compare: values::compare, ends: values::ends };

/// What the clones of [`super::Values`] share.
#[derive(Debug)]
pub struct ValuesState {
    /// Clock, database and disk, shared with the records.
    pub records: Arc<RecordsState>,
    pub table: RwLock<ValueTable>,
    /// Held by the writer. Readers do not wait for it.
    pub writing: Mutex<()>,
    pub judge: Judge,
    pub bounds: ValueBounds,
    pub ttl_s: u32,
    pub repeat_s: u32,
    /// Limits the threads that check signatures and write rows.
    pub threads: Semaphore,
    pub notes: Vec<String>,
}

/// A row of the tree. Its key is the key of the value.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct ValueRow {
    /// Unix seconds of the last PUT_VALUE.
    pub(super) received: u32,
    pub(super) value: Vec<u8>,
}

impl ValueRow {
    /// Makes a seed for the fuzz targets.
    #[cfg(any(test, fuzzing, feature = "fuzzing"))]
    pub fn seed(received: u32, value: &[u8]) -> Self {
        Self { received, value: value.to_vec() }
    }

    /// The value.
    pub fn value(&self) -> &[u8] {
        &self.value
    }
}

impl ValuesState {
    pub(super) fn table(&self) -> RwLockReadGuard<'_, ValueTable> {
        self.table.read()
    }

    fn table_mut(&self) -> RwLockWriteGuard<'_, ValueTable> {
        self.table.write()
    }

    pub(super) fn put(&self, key: &[u8], value: &[u8]) -> Result<Put, Refused> {
        let outcome = self.try_put(key, value, None);
        let metrics = &self.records.metrics;
        let counter = match &outcome {
            Ok(Put::New) => &metrics.values_new,
            Ok(Put::Better) => &metrics.values_better,
            Ok(Put::Renewed) => &metrics.values_renewed,
            Err(Refused::Invalid(_)) => &metrics.values_invalid,
            Err(Refused::Worse) => &metrics.values_worse,
            Err(Refused::Full) => &metrics.values_full,
            Err(Refused::ReadOnly | Refused::NotNow(_)) => &metrics.values_read_only,
            Err(Refused::DiskFull) => &metrics.values_disk_full,
        };
        counter.inc();
        outcome
    }

    /// Stores a value. `received` is the time of a value from a dump. Such a value does not replace another one that is
    /// not worse, nor the same one if that was received at that time or later.
    pub(super) fn try_put(&self, key: &[u8], value: &[u8], received: Option<UnixTime>) -> Result<Put, Refused> {
        let now = self.records.time.now();
        (self.judge.validate)(key, value, seconds(now.for_ends()))?;
        let ends = ends(self.judge, key, value);
        if ends <= now.for_ends() {
            return Err(Invalid::Expired.into());
        }
        let _writing = self.writing.lock();
        if self.records.health().is_read_only() || self.records.disk.is_short() {
            return Err(Refused::ReadOnly);
        }
        let (known, evicted) = {
            let table = self.table();
            (table.get(key).cloned(), table.room_for(key, key.len() + value.len(), self.bounds))
        };
        let same = known.as_ref().is_some_and(|known| *known.value == *value);
        let live = known.as_ref().filter(|known| known.is_live(&now, self.ttl_s) && self.check(known, now.for_ends()));
        if let Some(known) = live {
            let yields = match (same, received) {
                (true, received) => received.is_some_and(|received| received <= known.received),
                (false, None) => (self.judge.compare)(key, value, &known.value) == Ordering::Less,
                (false, Some(_)) => (self.judge.compare)(key, value, &known.value) != Ordering::Greater,
            };
            if yields {
                return Err(Refused::Worse);
            }
        }
        let received = received.unwrap_or(UnixTime(now.log));
        let evicted = evicted.ok_or(Refused::Full)?;
        if known.is_none() && self.records.disk.is_full() {
            return Err(Refused::DiskFull);
        }
        let mut held =
            Held { key: key.into(), value: value.into(), received, ends, written: received.0, checked: true };
        match known.as_ref().filter(|known| same && received.0.abs_diff(known.written) < self.repeat_s) {
            Some(known) => held.written = known.written,
            None => self.write(&held).map_err(|error| self.failed("write a value", &error))?,
        }
        let put = match live {
            Some(_) if same => Put::Renewed,
            Some(_) => Put::Better,
            None => Put::New,
        };
        self.table_mut().insert(held);
        for key in evicted {
            self.forget(&key).map_err(|error| self.failed("remove a value", &error))?;
            self.records.metrics.values_evicted.inc();
        }
        Ok(put)
    }

    /// Returns whether a value is valid. Each value is checked once after a start; the next collection removes invalid
    /// ones.
    pub(super) fn check(&self, held: &Held, now_s: u32) -> bool {
        if held.checked {
            return true;
        }
        let valid = (self.judge.validate)(&held.key, &held.value, seconds(now_s)).is_ok();
        let mut table = self.table_mut();
        // Another writer may have replaced it.
        if table.get(&held.key) == Some(held) {
            let ends = if valid { held.ends } else { 0 };
            table.insert(Held { checked: valid, ends, ..held.clone() });
        }
        valid
    }

    pub(super) fn collect(&self) -> Result<GcReport, StoreError> {
        let time = &self.records.time;
        let mut report = GcReport { paused: time.unconfirmed(), ..GcReport::default() };
        while let Some(moved) = time.next_move(Ledger::Values).filter(|_| !self.records.health().is_read_only()) {
            self.redate(moved)?;
            time.done(Ledger::Values, moved);
        }
        while report.paused.is_none() {
            let _writing = self.writing.lock();
            let ended = self.table().ended(&time.now(), SLICE);
            for key in &ended {
                self.forget(key)?;
            }
            report.expired += ended.len() as u64;
            self.records.metrics.values_collected.add(ended.len() as u64);
            if ended.len() < SLICE {
                break;
            }
        }
        Ok(report)
    }

    /// Re-dates values after the base of log time has moved: those dated `from..=to` were received about now.
    fn redate(&self, moved: Move) -> Result<(), StoreError> {
        let _writing = self.writing.lock();
        let keys = self.table().received_between(moved.from, moved.to);
        for key in keys {
            let now = self.records.time.now().log;
            let Some(held) = self.table().get(&key).cloned() else { continue };
            let held = Held { received: UnixTime(now), written: now, ..held };
            self.write(&held)?;
            self.table_mut().insert(held);
        }
        Ok(())
    }

    fn write(&self, held: &Held) -> Result<(), StoreError> {
        let row = row(held)?;
        self.records.log.database.write(tree::VALUES, |tree| tree.insert(&held.key, row)).map(|_| ())
    }

    /// Removes a value from memory and from disk. The row of a degraded database is removed when that is reopened. The
    /// caller must be the only writer.
    fn forget(&self, key: &[u8]) -> Result<(), StoreError> {
        self.table_mut().remove(key);
        match self.records.log.database.write(tree::VALUES, |tree| tree.remove(key)) {
            Err(error) if !self.records.health().is_degraded() => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes the rows equal to memory.
    pub(super) fn write_anew(&self) -> Result<(), StoreError> {
        let _writing = self.writing.lock();
        let rows = self.records.log.database.read(tree::VALUES, |tree| Ok(tree.clone()))?;
        let mut gone = Vec::new();
        each_row(&rows, |key, _| gone.extend(self.table().get(key).is_none().then(|| key.to_vec())));
        drop(rows);
        for key in gone {
            self.records.log.database.write(tree::VALUES, |tree| tree.remove(&key))?;
        }
        let mut last: Option<Arc<[u8]>> = None;
        loop {
            let some = self.table().after(last.as_deref(), SLICE);
            let Some(end) = some.last() else { return Ok(()) };
            last = Some(end.key.clone());
            for held in &some {
                // The row may have an older time than memory: the time at which it was last written.
                let row = row(&Held { received: UnixTime(held.written), ..held.clone() })?;
                let known = self.records.log.database.read(tree::VALUES, |tree| tree.get(&held.key))?;
                if known.as_deref() != Some(&row[..]) {
                    self.records.log.database.write(tree::VALUES, |tree| tree.insert(&held.key, row))?;
                }
            }
        }
    }

    fn failed(&self, doing: &'static str, error: &StoreError) -> Refused {
        self.records.health().failed(doing, error, self.records.time.now().mono);
        Refused::ReadOnly
    }
}

/// Returns when a value ends by its own validity, Unix seconds; `u32::MAX` if it has no end.
pub fn ends(judge: Judge, key: &[u8], value: &[u8]) -> u32 {
    let ends = (judge.ends)(key, value).map(|ends| u32::try_from(ends.as_secs()).unwrap_or(u32::MAX));
    ends.unwrap_or(u32::MAX)
}

fn row(held: &Held) -> Result<Vec<u8>, StoreError> {
    let row = ValueRow { received: held.received.0, value: held.value.to_vec() };
    codec::frame(&row).map_err(|error| StoreError::Database(error.into()))
}

fn seconds(unix: u32) -> Duration {
    Duration::from_secs(u64::from(unix))
}
