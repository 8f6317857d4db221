//! Values in memory, ordered by their distance from the node and by when they end. No IO, no clock.

use crate::{
    clock::UnixTime,
    kad::keyspace::{Distance, Key},
    records::time::Now,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A value that is held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// The key, as PUT_VALUE named it.
    pub key: Arc<[u8]>,
    /// A public key or an IPNS record.
    pub value: Arc<[u8]>,
    /// When it was last put.
    pub received: UnixTime,
    /// The first second at which its own validity has ended; `u32::MAX` if it has no end.
    pub ends: u32,
    /// The time in its row on disk.
    pub(super) written: u32,
    /// True if it was validated since the store was opened.
    pub(super) checked: bool,
}

impl Held {
    /// Returns whether it may be served.
    pub(super) fn is_live(&self, now: &Now, ttl_s: u32) -> bool {
        now.is_live(self.received.0, ttl_s) && now.for_ends() < self.ends
    }

    fn bytes(&self) -> usize {
        self.key.len() + self.value.len()
    }

    fn deadline(&self, ttl_s: u32) -> u32 {
        self.received.0.saturating_add(ttl_s).min(self.ends)
    }
}

/// The limits of the store of values.
#[derive(Clone, Copy, Debug)]
pub struct ValueBounds {
    /// Number of values.
    pub max: usize,
    /// Bytes of keys and values.
    pub max_bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub struct ValueTable {
    near: Key,
    ttl_s: u32,
    rows: BTreeMap<Distance, Held>,
    /// Values by the time at which they may be collected.
    deadlines: BTreeSet<(u32, Distance)>,
    bytes: usize,
}

impl ValueTable {
    /// Makes an empty table whose distances count from `near`.
    pub fn new(near: Key, ttl_s: u32) -> Self {
        Self { near, ttl_s, rows: BTreeMap::new(), deadlines: BTreeSet::new(), bytes: 0 }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns the bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn get(&self, key: &[u8]) -> Option<&Held> {
        self.rows.get(&self.distance(key))
    }

    /// Adds a value, in place of the one with the same key.
    pub fn insert(&mut self, held: Held) {
        self.remove(&held.key);
        let distance = self.distance(&held.key);
        self.bytes += held.bytes();
        self.deadlines.insert((held.deadline(self.ttl_s), distance));
        self.rows.insert(distance, held);
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<Held> {
        let distance = self.distance(key);
        let held = self.rows.remove(&distance)?;
        self.bytes -= held.bytes();
        self.deadlines.remove(&(held.deadline(self.ttl_s), distance));
        Some(held)
    }

    /// Returns the keys that must be dropped to stay within `bounds` once `key` takes `bytes`: those farthest from the
    /// node, as many as needed. `None` if `key` is new and is itself the farthest.
    pub fn room_for(&self, key: &[u8], bytes: usize, bounds: ValueBounds) -> Option<Vec<Arc<[u8]>>> {
        let own = self.distance(key);
        let known = self.rows.get(&own);
        let (mut rows, mut total) = match known {
            Some(held) => (self.rows.len(), self.bytes - held.bytes() + bytes),
            None => (self.rows.len() + 1, self.bytes + bytes),
        };
        let mut gone = Vec::new();
        for (distance, held) in self.rows.iter().rev() {
            if rows <= bounds.max && total <= bounds.max_bytes {
                break;
            }
            if *distance == own {
                continue;
            }
            if known.is_none() && *distance < own {
                return None;
            }
            rows -= 1;
            total -= held.bytes();
            gone.push(held.key.clone());
        }
        // A value that exceeds the bounds by itself is kept if its key is held already.
        let fits = known.is_some() || rows <= bounds.max && total <= bounds.max_bytes;
        fits.then_some(gone)
    }

    /// Returns up to `limit` keys whose values have ended, in the order in which they ended.
    pub fn ended(&self, now: &Now, limit: usize) -> Vec<Arc<[u8]>> {
        let ended = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now.log).take(limit);
        ended.filter_map(|(_, distance)| Some(self.rows.get(distance)?.key.clone())).collect()
    }

    /// Returns the keys of values received `from..=to`.
    pub fn received_between(&self, from: u32, to: u32) -> Vec<Arc<[u8]>> {
        self.rows.values().filter(|held| (from..=to).contains(&held.received.0)).map(|held| held.key.clone()).collect()
    }

    /// Returns up to `limit` values behind `key`, closest to the node first; from the first if `None`.
    pub fn after(&self, key: Option<&[u8]>, limit: usize) -> Vec<Held> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = key.map_or(Unbounded, |key| Excluded(self.distance(key)));
        self.rows.range((from, Unbounded)).take(limit).map(|(_, held)| held.clone()).collect()
    }

    fn distance(&self, key: &[u8]) -> Distance {
        Key::for_value(key).distance(&self.near)
    }
}
