//! The routing tables of both DHTs. Writers take a lock; readers use a snapshot.

#[cfg(test)]
mod tests;

use crate::kad::{
    Dht, PeerInfo,
    scope::{IpGroups, Profile},
    table::{Entry, Offer, RoutingTable, Settings, TableView},
};
use arc_swap::ArcSwap;
use libp2p::{Multiaddr, PeerId};
use parking_lot::{Mutex, MutexGuard};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Notify, Semaphore};

/// Most probes under way at a time, for both tables. Each may be a dial. Further candidates are dropped; they come
/// again with their next identify message.
pub(crate) const MAX_PROBES: usize = 64;

/// Maximum number of candidates per table whose failure is remembered: as many as may be connected by default. Beyond
/// it, a candidate that failed may be probed again at once.
const MAX_PAUSED: usize = 4096;

/// Both tables.
#[derive(Debug)]
pub(crate) struct Tables {
    wan: Table,
    lan: Table,
    pub(crate) probes: Arc<Semaphore>,
    profile: Profile,
    ip_groups: IpGroups,
}

impl Tables {
    pub(crate) fn new(local: PeerId, profile: Profile, ip_groups: &IpGroups) -> Self {
        let table = |dht| {
            let ip_diversity = profile.ip_diversity(dht).then(|| ip_groups.clone());
            Table::new(local, Settings { ip_diversity })
        };
        let probes = Arc::new(Semaphore::new(MAX_PROBES));
        Self { wan: table(Dht::Wan), lan: table(Dht::Lan), probes, profile, ip_groups: ip_groups.clone() }
    }

    /// Returns how IP diversity groups addresses in `dht`; `None` if `dht` has no IP diversity (RT-6, LKP-2).
    pub(crate) fn ip_diversity(&self, dht: Dht) -> Option<IpGroups> {
        self.profile.ip_diversity(dht).then(|| self.ip_groups.clone())
    }

    pub(crate) fn of(&self, dht: Dht) -> &Table {
        match dht {
            Dht::Wan => &self.wan,
            Dht::Lan => &self.lan,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        Dht::ALL.into_iter().all(|dht| self.of(dht).view().is_empty())
    }
}

/// The table of one DHT. Writers take a lock, always briefly; readers use a snapshot.
#[derive(Debug)]
pub(crate) struct Table {
    table: Mutex<RoutingTable>,
    view: ArcSwap<TableView>,
    /// Peers with a probe or a check under way, so that each has one at a time. The number of such tasks bounds this
    /// set.
    probing: Mutex<HashSet<PeerId>>,
    /// Candidates that could not be dialled, and the time until which they are not probed again. At most
    /// [`MAX_PAUSED`].
    paused: Mutex<HashMap<PeerId, Duration>>,
    /// Peers of the table that were last checked because their connection ended, and when.
    checked_left: Mutex<HashMap<PeerId, Duration>>,
    /// Notified when the empty table gets its first peer.
    pub(crate) first: Notify,
}

impl Table {
    fn new(local: PeerId, settings: Settings) -> Self {
        let table = RoutingTable::new(local, settings);
        let view = ArcSwap::new(table.view());
        Self {
            table: Mutex::new(table),
            view,
            probing: Mutex::default(),
            paused: Mutex::default(),
            checked_left: Mutex::default(),
            first: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, RoutingTable> {
        self.table.lock()
    }

    /// Publishes a snapshot of the table. Called under its lock, so that an older snapshot never replaces a newer one.
    fn publish(&self, table: &RoutingTable) {
        self.view.store(table.view());
    }

    pub(crate) fn view(&self) -> Arc<TableView> {
        self.view.load_full()
    }

    pub(crate) fn buckets(&self) -> Vec<(u16, Vec<Entry>)> {
        self.lock().buckets()
    }

    pub(crate) fn contains(&self, peer: &PeerId) -> bool {
        self.view.load().get(peer).is_some()
    }

    pub(crate) fn offer(&self, peer: &PeerInfo, now: Duration) -> Offer {
        let mut table = self.lock();
        let offer = table.offer(peer, now);
        if offer == Offer::Known {
            self.publish(&table);
        }
        offer
    }

    /// Adds a peer that answered at the first of its addresses and whose connections are at `seen_at`. Returns whether
    /// it is in the table now.
    pub(crate) fn admit(&self, peer: &PeerInfo, seen_at: &[Multiaddr], now: Duration) -> bool {
        let mut table = self.lock();
        let was_empty = table.is_empty();
        if table.admit_seen_at(peer, seen_at, now).is_err() {
            return false;
        }
        self.publish(&table);
        if was_empty {
            self.first.notify_one();
        }
        true
    }

    /// Records that the peer answered us or asked us something.
    pub(crate) fn heard(&self, peer: &PeerId, now: Duration) {
        // Most peers that ask are clients: do not take the lock for them.
        if self.contains(peer) {
            self.lock().heard(peer, now);
        }
    }

    /// Records that the peer answered at `addr`, an address that we dialled.
    pub(crate) fn reached(&self, peer: &PeerId, addr: &Multiaddr, now: Duration) {
        if self.contains(peer) {
            let mut table = self.lock();
            table.heard(peer, now);
            table.reached(peer, addr, now);
            self.publish(&table);
        }
    }

    pub(crate) fn set_addresses(&self, peer: &PeerId, addrs: &[Multiaddr]) {
        let mut table = self.lock();
        table.set_addresses(peer, addrs);
        self.publish(&table);
    }

    /// Removes a peer and returns whether it was in the table.
    pub(crate) fn remove(&self, peer: &PeerId) -> bool {
        let mut table = self.lock();
        let removed = table.remove(peer);
        if removed {
            self.publish(&table);
        }
        removed
    }

    pub(crate) fn due_for_check(&self, now: Duration, unheard_for: Duration) -> Vec<PeerInfo> {
        self.lock().due_for_check(now, unheard_for)
    }

    pub(crate) fn refresh_targets(&self, seed: u64) -> Vec<Vec<u8>> {
        self.lock().refresh_targets(seed)
    }

    /// Marks a peer as being probed. Returns false if it already is.
    pub(crate) fn begin_probe(&self, peer: PeerId) -> bool {
        self.probing.lock().insert(peer)
    }

    pub(crate) fn end_probe(&self, peer: &PeerId) {
        self.probing.lock().remove(peer);
    }

    /// Prevents probes of a candidate until the time `until`.
    pub(crate) fn pause(&self, peer: PeerId, now: Duration, until: Duration) {
        let mut paused = self.paused.lock();
        if paused.len() >= MAX_PAUSED {
            paused.retain(|_, until| *until > now);
        }
        if paused.len() < MAX_PAUSED {
            paused.insert(peer, until);
        }
    }

    /// Returns whether a table peer whose connection ended may be checked now: not within `seldom` of its last such
    /// check.
    pub(crate) fn may_check_left(&self, peer: PeerId, now: Duration, seldom: Duration) -> bool {
        let mut checked = self.checked_left.lock();
        checked.retain(|peer, _| self.contains(peer));
        if checked.get(&peer).is_some_and(|at| now.saturating_sub(*at) < seldom) {
            return false;
        }
        checked.insert(peer, now);
        true
    }

    pub(crate) fn is_paused(&self, peer: &PeerId, now: Duration) -> bool {
        let paused = self.paused.lock();
        paused.get(peer).is_some_and(|until| *until > now)
    }
}
