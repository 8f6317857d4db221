//! Announcing one page of keys: explore the regions they lie in, allocate them, send them off.

use super::plan::{
    allocate::{Servers, allocate, replace},
    explore::{Exploration, Target},
};
use crate::{
    kad::{
        Dht, PeerInfo,
        keyspace::{Key, Prefix},
        table::K,
    },
    network::Network,
};
use futures::StreamExt;
use libp2p_identity::PeerId;
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    time::Duration,
};

/// Servers that are sent to at the same time: go's sweep uses 20 connections per worker too.
const PARALLEL_SERVERS: usize = 20;
/// ADD_PROVIDERs behind which an answer is awaited. 500 of some 150 bytes are written in a few milliseconds, and so
/// much is repeated at most when a stream breaks.
const BATCH: usize = 500;
/// A batch that takes longer counts as undelivered; the client pool has time-outs of its own below this.
const BATCH_TIMEOUT: Duration = Duration::from_secs(60);
/// After so many failures in a row a server is left alone for the rest of the sweep.
const FAILURES_MAX: u32 = 2;
/// How often those that stand in for failed servers are replaced in turn. Each round may take as long as a dial takes to
/// fail.
const REPLACEMENTS_MAX: usize = 2;
/// Regions kept while a sweep goes through the keyspace: it never comes back to those behind it.
const REGIONS_MAX: usize = 4;
/// Servers whose failures are remembered; when there are more, the memory starts afresh.
const REMEMBERED_FAILURES_MAX: usize = 10_000;

/// One CID to announce: its place and its multihash.
pub type Item = (Key, Vec<u8>);

/// What one server is to be told in one DHT: indices of the page's items.
type Share = (Dht, PeerInfo, Vec<usize>);
type Shares = BTreeMap<PeerId, Vec<Share>>;

/// Who has confirmed what of a page.
#[derive(Default)]
struct Confirmed {
    counts: Vec<u16>,
    /// Indices by server, sorted: one that stands in in the other DHT may be told a key again.
    by: HashMap<PeerId, Vec<usize>>,
}

impl Confirmed {
    fn add(&mut self, peer: PeerId, read: Vec<usize>) {
        let known = self.by.entry(peer).or_default();
        for &index in &read {
            if known.binary_search(&index).is_err() {
                self.counts[index] = self.counts[index].saturating_add(1);
            }
        }
        known.extend(read);
        known.sort_unstable();
    }
}

/// What became of a page.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PageReport {
    /// For each key how many servers confirmed it. A server that is in both DHTs counts once.
    pub confirmed: Vec<u16>,
    /// The region in which the last key of the page was announced.
    pub region: Option<Prefix>,
}

/// What is kept from one page of a sweep to the next.
#[derive(Debug, Default)]
pub struct Sweep {
    regions: HashMap<Dht, VecDeque<(Prefix, Servers)>>,
    failures: HashMap<PeerId, u32>,
    seed: u64,
    /// Look-ups made.
    pub lookups: usize,
    /// Servers that confirmed anything.
    pub told: HashSet<PeerId>,
}

impl Sweep {
    /// A sweep that knows nothing of the network. `seed` chooses look-up targets.
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Announces `items` (in keyspace order) in every DHT that has servers. A server that fails is replaced by the next
    /// closest of its region. `None`: there is no server anywhere.
    pub async fn announce<N: Network>(&mut self, network: &N, items: &[Item]) -> Option<PageReport> {
        let mut servers = Vec::new();
        let mut region = None;
        for dht in Dht::ALL {
            if network.servers(dht) > 0 {
                let (found, last_region) = self.explore_all(network, dht, items).await;
                servers.push((dht, found));
                region = last_region.or(region);
            }
        }
        if servers.iter().all(|(_, servers)| servers.is_empty()) && !items.is_empty() {
            return None;
        }
        let keys: Vec<Key> = items.iter().map(|(key, _)| *key).collect();
        let left_alone = self.failures.iter().filter(|&(_, &failures)| failures >= FAILURES_MAX);
        let mut failed: HashSet<PeerId> = left_alone.map(|(peer, _)| *peer).collect();
        let mut confirmed = Confirmed { counts: vec![0; items.len()], ..Confirmed::default() };
        let first = shares(&servers, |servers| allocate(&keys, servers, K, &failed));
        let mut newly = self.deliver_all(network, items, first, &mut confirmed).await;
        for _ in 0..REPLACEMENTS_MAX {
            if newly.is_empty() {
                break;
            }
            let stand_ins = shares(&servers, |servers| replace(&keys, servers, K, &failed, &newly));
            failed.extend(newly);
            newly = self.deliver_all(network, items, stand_ins, &mut confirmed).await;
        }
        Some(PageReport { confirmed: confirmed.counts, region })
    }

    /// Tells each server its share and counts what they confirm. Returns those that did not confirm all of it.
    async fn deliver_all<N: Network>(
        &mut self,
        network: &N,
        items: &[Item],
        shares: Shares,
        confirmed: &mut Confirmed,
    ) -> HashSet<PeerId> {
        let mut failed = HashSet::new();
        let mut deliveries = futures::stream::iter(shares)
            .map(|(peer, share)| async move { (peer, deliver(network, items, share).await) })
            .buffer_unordered(PARALLEL_SERVERS);
        while let Some((peer, outcome)) = deliveries.next().await {
            if !outcome.complete {
                failed.insert(peer);
            }
            if outcome.read.is_empty() {
                if self.failures.len() >= REMEMBERED_FAILURES_MAX {
                    self.failures.clear();
                }
                *self.failures.entry(peer).or_default() += 1;
                continue;
            }
            self.failures.remove(&peer);
            self.told.insert(peer);
            confirmed.add(peer, outcome.read);
        }
        failed
    }

    /// The servers of every region of `dht` in which items lie, and the last region. All in one: the stand-ins of one
    /// region's servers are found in the next.
    async fn explore_all<N: Network>(&mut self, network: &N, dht: Dht, items: &[Item]) -> (Servers, Option<Prefix>) {
        let mut all = BTreeMap::new();
        let mut last_region = None;
        let mut rest = items;
        while let Some((key, _)) = rest.first() {
            if !self.regions.entry(dht).or_default().iter().any(|(region, _)| region.contains(key)) {
                self.explore(network, dht, rest).await;
            }
            let regions = self.regions.entry(dht).or_default();
            let Some((region, servers)) = regions.iter().find(|(region, _)| region.contains(key)) else {
                // Exploring always yields the region of its first key; without one there is nothing to go on with.
                break;
            };
            last_region = Some(*region);
            all.extend(servers.iter().cloned());
            rest = &rest[rest.partition_point(|(key, _)| region.contains(key)).max(1)..];
        }
        (Servers::new(all), last_region)
    }

    /// Finds the servers of the region around the first of `items`.
    async fn explore<N: Network>(&mut self, network: &N, dht: Dht, items: &[Item]) {
        let Some((key, multihash)) = items.first() else { return };
        let first = Target { key: *key, bytes: multihash.clone() };
        self.seed = self.seed.wrapping_add(1);
        let mut exploration = Exploration::new(first, K, self.seed);
        while let Some(target) = exploration.next_target() {
            let mut peers = network.closest(dht, &target.bytes).await;
            complete(network, dht, &target.key, &mut peers);
            exploration.found(&target.key, peers);
            self.lookups += 1;
            let region = exploration.region();
            if region.is_some_and(|region| !items.get(1).is_some_and(|(next, _)| region.contains(next))) {
                // A single key: its own look-up found its k closest, the rest of the region does not matter. It is
                // kept as a region of that key alone.
                let alone = key.prefix(256);
                return self.remember(dht, alone, exploration.into_servers());
            }
        }
        if let Some(region) = exploration.region() {
            self.remember(dht, region, exploration.into_servers());
        }
    }

    fn remember(&mut self, dht: Dht, region: Prefix, servers: Servers) {
        tracing::debug!(dht = dht.name(), bits = region.len(), servers = servers.len(), "explored a region");
        let regions = self.regions.entry(dht).or_default();
        if regions.len() >= REGIONS_MAX {
            regions.pop_front();
        }
        regions.push_back((region, servers));
    }
}

/// A look-up that brings fewer than k although the table holds 2k and more has failed in part: believing that this
/// was the whole network would place keys on the wrong servers. What the table knows makes up for it.
fn complete<N: Network>(network: &N, dht: Dht, target: &Key, peers: &mut Vec<PeerInfo>) {
    if peers.len() >= K || network.servers(dht) < 2 * K {
        return;
    }
    for known in network.known(dht, target, K) {
        if !peers.iter().any(|peer| peer.id == known.id) {
            peers.push(known);
        }
    }
    peers.sort_by_key(|peer| Key::for_peer(&peer.id).distance(target));
    peers.truncate(K);
}

/// What each server is to be told: `plan` says it for the servers of one DHT, by their index.
fn shares(servers: &[(Dht, Servers)], plan: impl Fn(&Servers) -> BTreeMap<usize, Vec<usize>>) -> Shares {
    let mut shares = Shares::new();
    for (dht, servers) in servers {
        for (server, indices) in plan(servers) {
            if let Some(peer) = servers.get(server) {
                shares.entry(peer.id).or_default().push((*dht, peer.clone(), indices));
            }
        }
    }
    shares
}

/// What one server did with its share.
struct Outcome {
    /// Indices that it confirmed, in either DHT, each once.
    read: Vec<usize>,
    /// It confirmed everything.
    complete: bool,
}

/// Tells one server its share, in each DHT.
async fn deliver<N: Network>(network: &N, items: &[Item], share: Vec<Share>) -> Outcome {
    let mut read = Vec::new();
    let mut wanted: Vec<usize> = Vec::new();
    for (dht, peer, indices) in share {
        for batch in indices.chunks(BATCH) {
            let multihashes: Vec<Vec<u8>> = batch.iter().map(|&index| items[index].1.clone()).collect();
            let sending = network.add_providers(dht, &peer, &multihashes);
            let Ok(delivery) = tokio::time::timeout(BATCH_TIMEOUT, sending).await else {
                tracing::debug!(dht = dht.name(), peer = %peer.id, "announcing timed out");
                break;
            };
            read.extend(delivery.read.iter().filter_map(|&at| batch.get(at)));
            if let Some(error) = delivery.error {
                tracing::debug!(dht = dht.name(), peer = %peer.id, %error, "announcing failed");
                break;
            }
        }
        wanted.extend(indices);
    }
    for indices in [&mut read, &mut wanted] {
        indices.sort_unstable();
        indices.dedup();
    }
    Outcome { complete: read.len() == wanted.len(), read }
}

#[cfg(test)]
mod tests;
