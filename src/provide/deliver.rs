//! Announcing one page of keys: explore the regions they lie in, allocate them, send them off.

use super::plan::{
    allocate::{Servers, allocate},
    explore::{Exploration, Target},
};
use crate::{
    kad::{Dht, PeerInfo, keyspace::Key, keyspace::Prefix, table::K},
    node::{Delivery, Node},
};
use futures::StreamExt;
use libp2p::PeerId;
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    future::Future,
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
/// Regions kept while a sweep goes through the keyspace: it never comes back to those behind it.
const REGIONS_MAX: usize = 4;
/// Servers whose failures are remembered; when there are more, the memory starts afresh.
const REMEMBERED_FAILURES_MAX: usize = 10_000;

/// One CID to announce: its place and its multihash.
pub type Item = (Key, Vec<u8>);

/// What one server is to be told in one DHT: indices of the page's items.
type Share = (Dht, PeerInfo, Vec<usize>);
type Shares = BTreeMap<PeerId, Vec<Share>>;

/// What announcing needs of the network: [`Node`] in production, a model in tests and simulation.
pub trait Network: Clone + Send + Sync + 'static {
    /// How many servers of `dht` are in the routing table.
    fn servers(&self, dht: Dht) -> usize;
    /// The `n` closest to `key` in the routing table.
    fn known(&self, dht: Dht, key: &Key, n: usize) -> Vec<PeerInfo>;
    /// The k closest servers that answer, closest first, by a look-up for the key of FIND_NODE `target`.
    fn closest(&self, dht: Dht, target: &[u8]) -> impl Future<Output = Vec<PeerInfo>> + Send;
    /// Sends ADD_PROVIDERs and says how many were read.
    fn add_providers(
        &self,
        dht: Dht,
        peer: &PeerInfo,
        multihashes: &[Vec<u8>],
    ) -> impl Future<Output = Delivery> + Send;
}

impl Network for Node {
    fn servers(&self, dht: Dht) -> usize {
        self.table(dht).len()
    }

    fn known(&self, dht: Dht, key: &Key, n: usize) -> Vec<PeerInfo> {
        self.table(dht).closest(key, n).into_iter().map(|entry| entry.peer.clone()).collect()
    }

    async fn closest(&self, dht: Dht, target: &[u8]) -> Vec<PeerInfo> {
        self.closest_peers(dht, target, None).await.peers
    }

    async fn add_providers(&self, dht: Dht, peer: &PeerInfo, multihashes: &[Vec<u8>]) -> Delivery {
        Node::add_providers(self, dht, peer, multihashes).await
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

    /// Announces `items` (in keyspace order) in every DHT that has servers. `None`: there is no server anywhere.
    pub async fn announce<N: Network>(&mut self, network: &N, items: &[Item]) -> Option<PageReport> {
        let mut shares = Shares::new();
        let mut region = None;
        for dht in Dht::ALL {
            if network.servers(dht) > 0 {
                region = self.allocate(network, dht, items, &mut shares).await.or(region);
            }
        }
        if shares.is_empty() && !items.is_empty() {
            return None;
        }
        shares.retain(|peer, _| self.failures.get(peer).is_none_or(|&failures| failures < FAILURES_MAX));
        let mut confirmed = vec![0u16; items.len()];
        let mut deliveries = futures::stream::iter(shares)
            .map(|(peer, share)| async move { (peer, deliver(network, items, share).await) })
            .buffer_unordered(PARALLEL_SERVERS);
        while let Some((peer, read)) = deliveries.next().await {
            if read.is_empty() {
                if self.failures.len() >= REMEMBERED_FAILURES_MAX {
                    self.failures.clear();
                }
                *self.failures.entry(peer).or_default() += 1;
                continue;
            }
            self.failures.remove(&peer);
            self.told.insert(peer);
            for index in read {
                confirmed[index] = confirmed[index].saturating_add(1);
            }
        }
        Some(PageReport { confirmed, region })
    }

    /// Adds to `shares` what each server of `dht` is to be told. Returns the last region.
    async fn allocate<N: Network>(
        &mut self,
        network: &N,
        dht: Dht,
        items: &[Item],
        shares: &mut Shares,
    ) -> Option<Prefix> {
        let mut first = 0;
        let mut last_region = None;
        while let Some(item) = items.get(first) {
            if !self.regions.entry(dht).or_default().iter().any(|(region, _)| region.contains(&item.0)) {
                self.explore(network, dht, &items[first..]).await;
            }
            let regions = self.regions.entry(dht).or_default();
            let Some((region, servers)) = regions.iter().find(|(region, _)| region.contains(&item.0)) else {
                // Exploring always yields the region of its first key; without one there is nothing to go on with.
                return last_region;
            };
            last_region = Some(*region);
            let end = first + items[first..].partition_point(|(key, _)| region.contains(key)).max(1);
            let keys: Vec<Key> = items[first..end].iter().map(|(key, _)| *key).collect();
            for (server, indices) in allocate(&keys, servers, K) {
                let Some(peer) = servers.get(server) else { continue };
                let indices = indices.into_iter().map(|index| index + first).collect();
                merge(shares.entry(peer.id).or_default(), dht, peer, indices);
            }
            first = end;
        }
        last_region
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

fn merge(share: &mut Vec<Share>, dht: Dht, peer: &PeerInfo, indices: Vec<usize>) {
    match share.iter_mut().find(|(known, ..)| *known == dht) {
        Some((_, _, all)) => all.extend(indices),
        None => share.push((dht, peer.clone(), indices)),
    }
}

/// Tells one server its share, in each DHT. Returns the indices that it confirmed in either, each once.
async fn deliver<N: Network>(network: &N, items: &[Item], share: Vec<Share>) -> Vec<usize> {
    let mut read = Vec::new();
    for (dht, peer, indices) in share {
        for batch in indices.chunks(BATCH) {
            let multihashes: Vec<Vec<u8>> = batch.iter().map(|&index| items[index].1.clone()).collect();
            let sending = network.add_providers(dht, &peer, &multihashes);
            let Ok(delivery) = tokio::time::timeout(BATCH_TIMEOUT, sending).await else {
                tracing::debug!(dht = dht.name(), peer = %peer.id, "announcing timed out");
                break;
            };
            read.extend(batch.iter().take(delivery.confirmed).copied());
            if let Some(error) = delivery.error {
                tracing::debug!(dht = dht.name(), peer = %peer.id, %error, "announcing failed");
                break;
            }
        }
    }
    read.sort_unstable();
    read.dedup();
    read
}

#[cfg(test)]
#[path = "deliver/tests.rs"]
mod tests;
