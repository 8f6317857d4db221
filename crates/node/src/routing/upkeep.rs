//! Keeps the tables filled: saved peers, bootstrap list, refresh (RT-4, RT-7).

use crate::{
    Shared,
    kad::{Dht, PeerInfo},
    store::{StoreError, routing::SavedPeer},
};
use futures::{StreamExt, stream};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;
use tracing::{debug, info};

/// RT-7: those that did not answer at an address of theirs for so long are checked.
pub(super) const UNHEARD: Duration = Duration::from_secs(5 * 60);

/// Checks and dials of one refresh or bootstrap at a time: half of what probes may take, the rest is for
/// candidates that come meanwhile.
const AT_ONCE: usize = super::MAX_PROBES / 2;

/// Look-ups of one refresh at a time. Each has up to 10 requests in flight.
const LOOKUPS_AT_ONCE: usize = 3;

/// How long an empty table waits before the bootstrap list is tried again: doubled each time.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// After the first peer has entered a table others follow at once; the look-up of oneself waits for them.
const SETTLE: Duration = Duration::from_millis(200);

/// The tasks that keep the tables.
pub(crate) struct Upkeep;

impl Upkeep {
    /// Runs until the node stops.
    pub(crate) fn start(shared: &Arc<Shared>) {
        shared.spawn_vital("routing", keep_connected(shared.clone()));
        for dht in Dht::ALL {
            shared.spawn_vital("first look-up", fill_at_first(shared.clone(), dht));
        }
    }
}

/// At start the saved peers and the bootstrap list; the same whenever all tables are empty.
async fn keep_connected(shared: Arc<Shared>) {
    let (mut wait, longest) = BACKOFF;
    tokio::join!(shared.find_first_peers(), shared.ask_bootstrap_list());
    let mut had_peers = false;
    loop {
        if shared.routing.is_empty() {
            if had_peers {
                info!("the routing tables are empty, looking for peers again");
            }
            had_peers = false;
            shared.find_first_peers().await;
            if shared.routing.is_empty() {
                shared.ask_bootstrap_list().await;
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

/// A look-up of oneself as soon as there is somebody to ask.
async fn fill_at_first(shared: Arc<Shared>, dht: Dht) {
    loop {
        shared.routing.of(dht).first.notified().await;
        sleep(SETTLE).await;
        let found = shared.look_up_oneself(dht).await;
        info!(dht = dht.name(), peers = shared.routing.of(dht).view().len(), found, "joined");
    }
}

impl Shared {
    /// Tries the saved peers, and where they do not help those that are connected.
    pub(crate) async fn find_first_peers(self: &Arc<Self>) {
        for dht in Dht::ALL {
            let saved = self.saved(dht).await;
            if saved.is_empty() {
                continue;
            }
            let tried = saved.len();
            let admitted = stream::iter(saved)
                .map(|peer| async move { self.try_candidate(dht, &peer).await })
                .buffer_unordered(AT_ONCE)
                .filter(|admitted| std::future::ready(*admitted))
                .count()
                .await;
            if admitted > 0 {
                info!(dht = dht.name(), tried, admitted, "saved routing table verified");
            }
        }
        if !self.routing.is_empty() {
            return;
        }
        // Whoever is connected already may have been unfit before: with an empty table it no longer is.
        for (peer, known) in self.book.connected_peers() {
            for dht in Dht::ALL.into_iter().filter(|dht| known.serves(*dht)) {
                let scope = self.settings.profile.scope(dht);
                let seen_at = known.connections.first().map(|c| &c.address);
                let addrs = crate::addresses::plausible(scope, &known.addrs, seen_at);
                self.candidate(dht, PeerInfo { id: peer, addrs });
            }
        }
    }

    async fn saved(&self, dht: Dht) -> Vec<PeerInfo> {
        if !self.settings.saved_peers {
            return Vec::new();
        }
        let routing = self.store.routing.clone();
        let scope = self.settings.profile.scope(dht);
        // The database may have to read.
        let saved = tokio::task::spawn_blocking(move || routing.load(dht)).await.unwrap_or_default();
        let allowed = saved.into_iter().map(|SavedPeer { mut peer, .. }| {
            peer.addrs.retain(|addr| scope.allows(addr));
            peer
        });
        allowed.filter(|peer| peer.id != self.local && !peer.addrs.is_empty()).collect()
    }

    /// The `routing-refresh` job.
    pub(crate) async fn refresh_routing(self: &Arc<Self>) -> String {
        if self.routing.is_empty() {
            self.find_first_peers().await;
        }
        self.ask_of_bootstrap_list();
        let mut outcome = Vec::new();
        for dht in Dht::ALL {
            let (checked, removed) = self.check_silent(dht).await;
            if !self.routing.of(dht).view().is_empty() {
                self.refill(dht).await;
                if self.decision().serves(dht) {
                    self.look_up_oneself(dht).await;
                } else {
                    self.stay_findable(dht).await;
                }
            }
            let peers = self.routing.of(dht).view().len();
            outcome.push(format!("{}: {peers} peers, {checked} checked, {removed} removed", dht.name()));
        }
        outcome.join("; ")
    }

    /// RT-4: checks those that were not reached lately, removes those that do not answer. How many of each.
    async fn check_silent(self: &Arc<Self>, dht: Dht) -> (usize, usize) {
        let silent = self.routing.of(dht).due_for_check(self.clock.monotonic(), UNHEARD);
        let checked = silent.len();
        let stayed = stream::iter(silent)
            .map(|peer| async move { self.check_twice(dht, &peer).await })
            .buffer_unordered(AT_ONCE)
            .filter(|stays| std::future::ready(*stays))
            .count()
            .await;
        (checked, checked - stayed)
    }

    /// RT-7: a look-up inside each bucket that has room. Whoever answers enters.
    async fn refill(self: &Arc<Self>, dht: Dht) {
        let shared = self.clone();
        // A target far down needs some 60,000 hashes.
        let targets = tokio::task::spawn_blocking(move || shared.routing.of(dht).refresh_targets(rand::random())).await;
        stream::iter(targets.unwrap_or_default())
            .for_each_concurrent(LOOKUPS_AT_ONCE, |target| async move {
                self.search(dht, &target).await;
            })
            .await;
    }

    /// How many of the closest to us answered.
    pub(super) async fn look_up_oneself(self: &Arc<Self>, dht: Dht) -> usize {
        self.closest(dht, &self.local.to_bytes(), None).await.peers.len()
    }

    /// CLI-1: a client is in nobody's table; it is found through the servers closest to it, as long as they are connected.
    /// Connects to them, and keeps these connections until next time.
    pub(crate) async fn stay_findable(self: &Arc<Self>, dht: Dht) {
        let closest = self.closest(dht, &self.local.to_bytes(), None).await.peers;
        let ids = closest.iter().map(|peer| peer.id);
        let kept = match dht {
            Dht::Wan => ids.collect(),
            Dht::Lan => ids.chain(self.connections.kept()).collect(),
        };
        self.connections.keep(kept);
        let connected = stream::iter(closest)
            .map(|peer| async move {
                let scope = self.settings.profile.scope(dht);
                let addrs = peer.addrs.into_iter().filter(|addr| scope.allows(addr)).collect();
                self.dial(Some(peer.id), addrs).await.is_ok()
            })
            .buffer_unordered(AT_ONCE)
            .filter(|connected| std::future::ready(*connected))
            .count()
            .await;
        debug!(dht = dht.name(), connected, "connected to the closest servers");
    }

    /// The `routing-snapshot` job. An empty table never replaces a saved one: the peers may be back tomorrow.
    pub(crate) async fn save_routing(&self) -> Result<String, StoreError> {
        let mut outcome = Vec::new();
        let (now, wall) = (self.clock.monotonic(), self.clock.wall());
        for dht in Dht::ALL {
            let entries = self.routing.of(dht).buckets().into_iter().flat_map(|(_, entries)| entries);
            let peers: Vec<SavedPeer> = entries
                .map(|entry| {
                    let ago = u32::try_from(now.saturating_sub(entry.heard).as_secs()).unwrap_or(u32::MAX);
                    SavedPeer { peer: entry.peer, heard: crate::clock::UnixTime(wall.0.saturating_sub(ago)) }
                })
                .collect();
            outcome.push(format!("{}: {} peers", dht.name(), peers.len()));
            if !peers.is_empty() {
                self.store.routing.save(dht, peers).await?;
            }
        }
        Ok(outcome.join("; "))
    }
}
