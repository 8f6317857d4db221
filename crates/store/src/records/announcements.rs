//! Announcements and removals on their way through the record store.

use super::{
    Added, RecordsState, Refused,
    book::{BookFull, Peer},
    entry::{Entry, Hashed, MAX_MULTIHASH, key_prefix},
    index::{Full, Upsert},
};
use crate::kad::{Dht, PeerInfo};
use dhtstore_host::metrics::Counter;
use libp2p_identity::PeerId;

/// While the data directory takes over nine tenths of its budget, a repeat is logged only after the ttl divided by
/// this. So the log has at most this number of live copies of a record.
const CROWDED_PART_OF_TTL: u32 = 4;

impl RecordsState {
    pub(crate) fn add(&self, multihash: &[u8], provider: &PeerInfo, via: Dht) -> Result<Added, Refused> {
        let outcome = self.try_add(multihash, provider, via);
        self.counted(&outcome).inc();
        outcome.map(|upsert| if upsert == Upsert::New { Added::New } else { Added::Refreshed })
    }

    fn counted(&self, outcome: &Result<Upsert, Refused>) -> &Counter {
        let metrics = &self.metrics;
        match outcome {
            Ok(Upsert::New) => &metrics.new,
            Ok(Upsert::Refreshed) => &metrics.refreshed,
            Ok(Upsert::Kept) => &metrics.repeated,
            Err(Refused::RecordsFull) => &metrics.records_full,
            Err(Refused::RecordsFar) => &metrics.records_far,
            Err(Refused::ProviderFull) => &metrics.provider_full,
            Err(Refused::KeyFull) => &metrics.key_full,
            Err(Refused::PeersFull) => &metrics.peers_full,
            Err(Refused::ReadOnly | Refused::NotNow(_)) => &metrics.read_only,
            Err(Refused::DiskFull) => &metrics.disk_full,
            Err(Refused::KeyTooLong) => &metrics.key_too_long,
        }
    }

    fn try_add(&self, multihash: &[u8], provider: &PeerInfo, via: Dht) -> Result<Upsert, Refused> {
        if multihash.len() > MAX_MULTIHASH {
            return Err(Refused::KeyTooLong);
        }
        if self.health().is_read_only() || self.disk.is_short() {
            return Err(Refused::ReadOnly);
        }
        let now = self.time.now();
        // Without room for records, a new peer would only fill the book.
        let disk_full = self.disk.is_full();
        let may_enter = !self.index.is_full() && !disk_full;
        let peer = self.book.announce(provider, via, &now, may_enter).map_err(|BookFull| match may_enter {
            true => Refused::PeersFull,
            false if disk_full => Refused::DiskFull,
            false => Refused::RecordsFull,
        })?;
        // The reason why a new record cannot enter, even if the index has room.
        let barred = self.barred(&peer, disk_full);
        let repeat_s =
            if self.disk.is_near() { self.repeat_s.max(self.ttl_s / CROWDED_PART_OF_TTL) } else { self.repeat_s };
        let fresh = |time: u32| time <= now.log && now.log - time < repeat_s;
        let hashed = Hashed::new(multihash);
        let log = || self.pending.append(&now, Entry { multihash: hashed, peer: peer.id, removed: false });
        let upsert = self.index.add(&hashed.key_prefix(), peer.id, barred.is_none(), fresh, log);
        if upsert == Ok(Upsert::New) {
            peer.count(1);
        }
        upsert.map_err(|full| refused(full, barred))
    }

    /// Returns the reason why new records of this provider are refused, if there is one. Refreshes are still taken.
    pub(super) fn barred(&self, peer: &Peer, disk_full: bool) -> Option<Refused> {
        if disk_full {
            return Some(Refused::DiskFull);
        }
        (peer.records() >= self.max_per_provider).then_some(Refused::ProviderFull)
    }

    pub(super) fn remove(&self, multihash: &[u8], provider: &PeerId) -> bool {
        let now = self.time.now();
        let Some(peer) = self.book.name(provider, &now).filter(|_| multihash.len() <= MAX_MULTIHASH) else {
            return false;
        };
        let log = || match self.health().is_closed() || !self.pending.has_room() && self.health().is_degraded() {
            // The removal cannot be logged, so the record may come back with a restart.
            true => now.log,
            false => {
                self.pending.append(&now, Entry { multihash: Hashed::new(multihash), peer: peer.id, removed: true })
            }
        };
        let removed = self.index.remove(&key_prefix(multihash), peer.id, !self.replay.is_done(), log);
        if removed {
            peer.count(-1);
            self.metrics.removed.inc();
        }
        removed
    }
}

/// Returns the refusal for a limit of the index that was reached. `barred` is the reason why new records were refused.
pub(super) fn refused(full: Full, barred: Option<Refused>) -> Refused {
    match full {
        Full::Records => Refused::RecordsFull,
        Full::Far => Refused::RecordsFar,
        Full::Key => Refused::KeyFull,
        Full::Barred => barred.unwrap_or(Refused::RecordsFull),
    }
}
