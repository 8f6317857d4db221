//! Keeps the tables filled from saved peers and the bootstrap list, and by refreshes (RT-4, RT-7).

use super::{
    admission::{Admission, UNHEARD},
    bootstrap::Bootstrap,
    tables::{MAX_PROBES, Tables},
};
use crate::{
    dialer::Dialer,
    kad::{Dht, PeerInfo, mode::Decision},
    lookup::Lookups,
    peers::{Peers, addresses::plausible},
    tasks::Tasks,
};
use dhtstore_host::clock::{Clock, UnixTime};
use dhtstore_records::tables::{NotSaved, SavedPeer, SavedTables};
use futures::{StreamExt, stream};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::sleep};
use tracing::{debug, info};

/// Checks and dials of one refresh or bootstrap at a time: half of all probes. The other half is for candidates that
/// arrive at the same time.
const AT_ONCE: usize = MAX_PROBES / 2;

/// Look-ups of one refresh at a time. Each has up to 10 requests in flight.
const LOOKUPS_AT_ONCE: usize = 3;

/// Shortest and longest pause before the bootstrap list is asked again while the tables are empty. The pause doubles
/// each time.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// Pause before the look-up of our own key after the first peer has entered a table: other peers follow at once.
const SETTLE: Duration = Duration::from_millis(200);

/// Keeps the tables filled.
#[derive(Debug)]
pub(crate) struct Upkeep {
    pub(crate) peers: Arc<Peers>,
    pub(crate) tables: Arc<Tables>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) bootstrap: Arc<Bootstrap>,
    pub(crate) lookups: Arc<Lookups>,
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) saved: Arc<dyn SavedTables>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) mode: watch::Receiver<Decision>,
    /// Whether the saved peers are probed at start.
    pub(crate) tries_saved: bool,
}

impl Upkeep {
    /// Starts the tasks, which run until the node stops.
    pub(crate) fn start(self: &Arc<Self>, tasks: &Tasks) {
        tasks.spawn_vital("routing", self.clone().keep_connected());
        for dht in Dht::ALL {
            tasks.spawn_vital("first look-up", self.clone().fill_at_first(dht));
        }
    }

    /// Asks the saved peers and the bootstrap list at start, and again whenever all tables are empty.
    async fn keep_connected(self: Arc<Self>) {
        let (mut wait, longest) = BACKOFF;
        tokio::join!(self.find_first_peers(), self.bootstrap.ask_all());
        let mut had_peers = false;
        loop {
            if self.tables.is_empty() {
                if had_peers {
                    info!("the routing tables are empty, looking for peers again");
                }
                had_peers = false;
                self.find_first_peers().await;
                if self.tables.is_empty() {
                    self.bootstrap.ask_all().await;
                }
                sleep(wait).await;
                wait = (wait * 2).min(longest);
            } else {
                had_peers = true;
                wait = BACKOFF.0;
                sleep(BACKOFF.0).await;
            }
        }
    }

    /// Looks up our own key each time the empty table gets its first peer.
    async fn fill_at_first(self: Arc<Self>, dht: Dht) {
        loop {
            self.tables.of(dht).first.notified().await;
            sleep(SETTLE).await;
            let found = self.lookups.look_up_oneself(dht).await;
            info!(dht = dht.name(), peers = self.tables.of(dht).view().len(), found, "joined");
        }
    }

    /// Probes the saved peers. If all tables are still empty after that, probes the connected peers.
    async fn find_first_peers(&self) {
        for dht in Dht::ALL {
            let saved = self.saved(dht).await;
            if saved.is_empty() {
                continue;
            }
            let tried = saved.len();
            let admitted = stream::iter(saved)
                .map(|peer| async move { self.admission.try_candidate(dht, &peer).await })
                .buffer_unordered(AT_ONCE)
                .filter(|admitted| std::future::ready(*admitted))
                .count()
                .await;
            if admitted > 0 {
                info!(dht = dht.name(), tried, admitted, "saved routing table verified");
            }
        }
        if !self.tables.is_empty() {
            return;
        }
        // A connected peer may have been refused before; an empty table takes it.
        for (peer, known) in self.peers.contacts.connected_peers() {
            for dht in Dht::ALL.into_iter().filter(|dht| known.serves(*dht)) {
                let scope = self.peers.scope(dht);
                let seen_at = known.connections.first().map(|c| &c.address);
                let addrs = plausible(scope, &known.addrs, seen_at);
                self.admission.candidate(dht, PeerInfo { id: peer, addrs });
            }
        }
    }

    async fn saved(&self, dht: Dht) -> Vec<PeerInfo> {
        if !self.tries_saved {
            return Vec::new();
        }
        let scope = self.peers.scope(dht);
        let allowed = self.saved.load(dht).await.into_iter().map(|SavedPeer { mut peer, .. }| {
            peer.addrs.retain(|addr| scope.allows(addr));
            peer
        });
        allowed.filter(|peer| peer.id != self.peers.local && !peer.addrs.is_empty()).collect()
    }

    /// See [`crate::Node::refresh_routing`].
    pub(crate) async fn refresh(&self) -> String {
        if self.tables.is_empty() {
            self.find_first_peers().await;
        }
        self.bootstrap.ask_one();
        let mut outcome = Vec::new();
        for dht in Dht::ALL {
            let (checked, removed) = self.check_silent(dht).await;
            if !self.tables.of(dht).view().is_empty() {
                self.refill(dht).await;
                if self.mode.borrow().serves(dht) {
                    self.lookups.look_up_oneself(dht).await;
                } else {
                    self.stay_findable(dht).await;
                }
            }
            let peers = self.tables.of(dht).view().len();
            outcome.push(format!("{}: {peers} peers, {checked} checked, {removed} removed", dht.name()));
        }
        outcome.join("; ")
    }

    /// Checks the peers that were not reached recently and removes those that do not answer (RT-4). Returns the number
    /// of checked and of removed peers.
    async fn check_silent(&self, dht: Dht) -> (usize, usize) {
        let silent = self.tables.of(dht).due_for_check(self.clock.monotonic(), UNHEARD);
        let checked = silent.len();
        let stayed = stream::iter(silent)
            .map(|peer| async move { self.admission.check_twice(dht, &peer).await })
            .buffer_unordered(AT_ONCE)
            .filter(|stays| std::future::ready(*stays))
            .count()
            .await;
        (checked, checked - stayed)
    }

    /// Runs a look-up inside each bucket that has room (RT-7). Peers that answer enter the table.
    async fn refill(&self, dht: Dht) {
        let tables = self.tables.clone();
        // A target in the deepest bucket needs some 60,000 hashes.
        let targets = tokio::task::spawn_blocking(move || tables.of(dht).refresh_targets(rand::random())).await;
        stream::iter(targets.unwrap_or_default())
            .for_each_concurrent(LOOKUPS_AT_ONCE, |target| async move {
                self.lookups.search(dht, &target).await;
            })
            .await;
    }

    /// Connects to the servers closest to this node, and keeps these connections until the next call (CLI-1). A client
    /// is in no routing table; other peers find it through the closest servers while it is connected to them.
    pub(crate) async fn stay_findable(&self, dht: Dht) {
        let closest = self.lookups.closest(dht, &self.peers.local.to_bytes(), None).await.peers;
        let ids = closest.iter().map(|peer| peer.id);
        let kept = match dht {
            Dht::Wan => ids.collect(),
            Dht::Lan => ids.chain(self.peers.connections.kept()).collect(),
        };
        self.peers.connections.keep(kept);
        let connected = stream::iter(closest)
            .map(|peer| async move { self.dialer.dial(Some(peer.id), self.peers.dialable(dht, &peer)).await.is_ok() })
            .buffer_unordered(AT_ONCE)
            .filter(|connected| std::future::ready(*connected))
            .count()
            .await;
        debug!(dht = dht.name(), connected, "connected to the closest servers");
    }

    /// See [`crate::Node::save_routing`]. An empty table never replaces a saved one: its peers may come back.
    pub(crate) async fn save(&self) -> Result<String, NotSaved> {
        let mut outcome = Vec::new();
        let (now, wall) = (self.clock.monotonic(), self.clock.wall());
        for dht in Dht::ALL {
            let entries = self.tables.of(dht).buckets().into_iter().flat_map(|(_, entries)| entries);
            let peers: Vec<SavedPeer> = entries
                .map(|entry| {
                    let ago = u32::try_from(now.saturating_sub(entry.heard).as_secs()).unwrap_or(u32::MAX);
                    SavedPeer { peer: entry.peer, heard: UnixTime(wall.0.saturating_sub(ago)) }
                })
                .collect();
            outcome.push(format!("{}: {} peers", dht.name(), peers.len()));
            if !peers.is_empty() {
                self.saved.save(dht, peers).await?;
            }
        }
        Ok(outcome.join("; "))
    }
}
