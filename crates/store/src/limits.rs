//! How close the store is to its limits. Callers that keep figures over time can compute how fast it approaches them.

use serde::{Deserialize, Serialize};

/// The current figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Provider records.
    pub records: u64,
    /// Bytes that the data directory takes on disk.
    pub disk_bytes: u64,
    /// Bytes free on its disk.
    pub disk_free_bytes: u64,
    /// Resident bytes of the process, if the system reports them.
    pub memory_bytes: Option<u64>,
    /// Bytes of memory that the process could take in addition.
    pub memory_room_bytes: Option<u64>,
}

/// The limits of the store; 0 is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bounds {
    /// `records.max`.
    pub records: u64,
    /// `store.max_disk`, in bytes.
    pub disk_bytes: u64,
    /// `store.reserve`, in bytes.
    pub reserve_bytes: u64,
}

/// A limit, and how much of it is taken.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Limit {
    /// Name of a setting, or `memory` for the memory of the machine.
    pub limit: String,
    /// `records` or `bytes`.
    pub unit: String,
    /// The limit.
    pub max: u64,
    /// What counts towards it now.
    pub now: u64,
}

impl Limit {
    /// Returns the part of it that is taken: 1.0 is all.
    pub fn taken(&self) -> f64 {
        if self.max == 0 { 1.0 } else { self.now as f64 / self.max as f64 }
    }
}

/// Returns all limits that exist, the nearest first.
pub fn of(now: &Figures, bounds: &Bounds) -> Vec<Limit> {
    let limit = |name: &str, unit: &str, max: u64, now: u64| Limit { limit: name.into(), unit: unit.into(), max, now };
    let mut limits = Vec::with_capacity(4);
    if bounds.records > 0 {
        limits.push(limit("records.max", "records", bounds.records, now.records));
    }
    if bounds.disk_bytes > 0 {
        limits.push(limit("store.max_disk", "bytes", bounds.disk_bytes, now.disk_bytes));
    }
    // The part of the disk that the directory can take.
    let most = (now.disk_bytes + now.disk_free_bytes).saturating_sub(bounds.reserve_bytes);
    limits.push(limit("store.reserve", "bytes", most, now.disk_bytes));
    if let (Some(memory), Some(room)) = (now.memory_bytes, now.memory_room_bytes) {
        limits.push(limit("memory", "bytes", memory + room, memory));
    }
    limits.sort_by(|a, b| b.taken().total_cmp(&a.taken()));
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_limit_comes_first_and_what_limits_nothing_is_left_out() {
        let now = Figures {
            records: 4_000_000,
            disk_bytes: 1 << 30,
            disk_free_bytes: 100 << 30,
            memory_bytes: Some(1 << 30),
            memory_room_bytes: Some(7 << 30),
        };
        let bounds = Bounds { records: 20_000_000, disk_bytes: 2 << 30, reserve_bytes: 1 << 30 };
        let names = |limits: &[Limit]| limits.iter().map(|limit| limit.limit.clone()).collect::<Vec<_>>();
        let all = of(&now, &bounds);
        assert_eq!(names(&all), ["store.max_disk", "records.max", "memory", "store.reserve"]);
        assert_eq!((all[3].max, all[3].now), (100 << 30, 1 << 30));
        let unlimited = of(&Figures { memory_bytes: None, ..now }, &Bounds::default());
        assert_eq!(names(&unlimited), ["store.reserve"]);
    }

    #[test]
    fn a_limit_of_nothing_is_taken_whole() {
        assert_eq!(of(&Figures::default(), &Bounds { reserve_bytes: 5, ..Bounds::default() })[0].taken(), 1.0);
    }
}
