//! Announces one page of keys: explores the regions that hold them, allocates the keys to servers, and sends them.

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

/// Servers that keys are sent to at the same time. The sweep of go-libp2p also uses 20 connections per worker.
const PARALLEL_SERVERS: usize = 20;
/// ADD_PROVIDERs sent before an answer is awaited. 500 of about 150 bytes are written in a few milliseconds. When a
/// stream breaks, at most this count is sent again.
const BATCH: usize = 500;
/// Time allowed for a batch. After it the batch counts as undelivered. The client pool has shorter time-outs of its
/// own.
const BATCH_TIMEOUT: Duration = Duration::from_secs(60);
/// Failures in a row after which a server is skipped for the rest of the sweep.
const FAILURES_MAX: u32 = 2;
/// Rounds in which failed servers are replaced by others. A round may take as long as a dial takes to fail.
const REPLACEMENTS_MAX: usize = 2;
/// Explored regions that are kept. A sweep moves through the keyspace and never returns to earlier ones.
const REGIONS_MAX: usize = 4;
/// Servers whose failures are remembered. At this count all are forgotten.
const REMEMBERED_FAILURES_MAX: usize = 10_000;

/// One CID to announce: its place in the keyspace, and its multihash.
pub type Item = (Key, Vec<u8>);

/// The keys for one server in one DHT, as indices of the page's items.
type Share = (Dht, PeerInfo, Vec<usize>);
type Shares = BTreeMap<PeerId, Vec<Share>>;

/// The confirmations for a page.
#[derive(Default)]
struct Confirmed {
    counts: Vec<u16>,
    /// Confirmed indices by server, sorted. A server that is in both DHTs may get a key twice, and is counted once.
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

/// The outcome of announcing a page.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PageReport {
    /// For each key, the count of servers that confirmed it. A server that is in both DHTs counts once.
    pub confirmed: Vec<u16>,
    /// The region of the last key of the page.
    pub region: Option<Prefix>,
}

/// A sweep over the keyspace: the state kept from one page to the next.
#[derive(Debug, Default)]
pub struct Sweep {
    regions: HashMap<Dht, VecDeque<(Prefix, Servers)>>,
    failures: HashMap<PeerId, u32>,
    seed: u64,
    /// Look-ups made so far.
    pub lookups: usize,
    /// Servers that confirmed at least one key.
    pub servers: HashSet<PeerId>,
}

impl Sweep {
    /// Returns a sweep that has not explored any region. `seed` decides its look-up targets.
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Announces `items`, which are in keyspace order, in every DHT that has servers. A server that fails is replaced
    /// by the next closest of its region. Returns `None` if neither DHT has a server.
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

    /// Sends each server its share and counts the confirmations. Returns the servers that did not confirm their whole
    /// share.
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
            self.servers.insert(peer);
            confirmed.add(peer, outcome.read);
        }
        failed
    }

    /// Returns the servers of all regions of `dht` that hold items, and the last of these regions. The servers are one
    /// list, because a replacement for a server of one region may come from the next.
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
                // Exploring always yields the region of its first key. Without a region the loop cannot continue.
                break;
            };
            last_region = Some(*region);
            all.extend(servers.iter().cloned());
            rest = &rest[rest.partition_point(|(key, _)| region.contains(key)).max(1)..];
        }
        (Servers::new(all), last_region)
    }

    /// Finds the servers of the region around the first item, and keeps both.
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
                // The region holds a single key, and the look-up of that key has found its k closest servers. The rest
                // of the region is not needed, so the key is kept as a region of its own.
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

/// Adds servers of the routing table to the result of a look-up that failed in part: it found fewer than k servers
/// although the table holds at least 2k. Taking those few for the whole network would place keys on the wrong servers.
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

/// Returns the shares of all servers. `plan` returns those of one DHT, by the index of the server.
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

/// The outcome of sending one server its share.
struct Outcome {
    /// Indices that it confirmed in either DHT, each once.
    read: Vec<usize>,
    /// Whether it confirmed all of them.
    complete: bool,
}

/// Sends one server its share, in each DHT.
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
