//! Decides which server gets which key: the k closest known servers get it, and the next closest where one of them
//! fails.

use crate::kad::{PeerInfo, keyspace::Key};
use libp2p_identity::PeerId;
use std::collections::{BTreeMap, HashSet};

/// The servers of a part of the keyspace, in keyspace order.
#[derive(Clone, Debug, Default)]
pub struct Servers {
    sorted: Vec<(Key, PeerInfo)>,
}

impl Servers {
    /// Returns the servers of a map from places to servers.
    pub fn new(servers: BTreeMap<Key, PeerInfo>) -> Self {
        Self { sorted: servers.into_iter().collect() }
    }

    /// Iterates over the servers, in keyspace order.
    pub fn iter(&self) -> impl Iterator<Item = &(Key, PeerInfo)> {
        self.sorted.iter()
    }

    /// Returns the count of servers.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Returns whether there are no servers.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Returns a server by its index in keyspace order.
    pub fn get(&self, index: usize) -> Option<&PeerInfo> {
        self.sorted.get(index).map(|(_, peer)| peer)
    }

    /// Returns the indices of the `k` servers closest to `key`, closest first, or of all if fewer are known.
    ///
    /// Looks only at the smallest subtree around `key` that holds k servers. All others are farther away.
    pub fn closest(&self, key: &Key, k: usize) -> Vec<usize> {
        let (mut low, mut high) = (0, self.sorted.len());
        for bit in 0..256 {
            let split = low + self.sorted[low..high].partition_point(|(place, _)| !is_set(place, bit));
            let (inner_low, inner_high) = if is_set(key, bit) { (split, high) } else { (low, split) };
            if inner_high - inner_low < k.max(1) {
                break;
            }
            (low, high) = (inner_low, inner_high);
        }
        let mut nearest: Vec<usize> = (low..high).collect();
        nearest.sort_by_key(|&index| self.sorted[index].0.distance(key));
        nearest.truncate(k);
        nearest
    }

    /// Returns the indices of the `k` servers closest to `key` that are not in `failed`.
    fn closest_without(&self, key: &Key, k: usize, failed: &HashSet<PeerId>) -> Vec<usize> {
        let mut nearest = self.closest(key, k.saturating_add(failed.len()));
        nearest.retain(|&index| !self.is_in(index, failed));
        nearest.truncate(k);
        nearest
    }

    fn is_in(&self, index: usize, peers: &HashSet<PeerId>) -> bool {
        self.get(index).is_some_and(|peer| peers.contains(&peer.id))
    }
}

fn is_set(key: &Key, bit: usize) -> bool {
    key.as_bytes()[bit / 8] & (0x80 >> (bit % 8)) != 0
}

/// Gives each key to its `k` closest servers that are not in `failed`. Returns the indices of the keys by the index of
/// the server, without servers that get none.
pub fn allocate(keys: &[Key], servers: &Servers, k: usize, failed: &HashSet<PeerId>) -> BTreeMap<usize, Vec<usize>> {
    let mut shares: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, key) in keys.iter().enumerate() {
        for server in servers.closest_without(key, k, failed) {
            shares.entry(server).or_default().push(index);
        }
    }
    shares
}

/// Replaces servers that failed after [`allocate`] had given them keys.
///
/// `failed` is the set that [`allocate`] left out, and `newly` are the servers that failed since. The result is what
/// allocating without both sets would give, minus what was given the first time.
pub fn replace(
    keys: &[Key],
    servers: &Servers,
    k: usize,
    failed: &HashSet<PeerId>,
    newly: &HashSet<PeerId>,
) -> BTreeMap<usize, Vec<usize>> {
    let all_failed: HashSet<PeerId> = failed.union(newly).copied().collect();
    let mut shares: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, key) in keys.iter().enumerate() {
        let given = servers.closest_without(key, k, failed);
        if !given.iter().any(|&server| servers.is_in(server, newly)) {
            continue;
        }
        for server in servers.closest_without(key, k, &all_failed) {
            if !given.contains(&server) {
                shares.entry(server).or_default().push(index);
            }
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::explore::tests::network;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_closest_are_those_that_sorting_all_by_distance_finds(
            size in 0usize..120, seed: u64, target: [u8; 32], k in 1usize..30,
        ) {
            let target = Key::from_bytes(target);
            let servers = Servers::new(network(size, seed));
            let mut all: Vec<usize> = (0..servers.len()).collect();
            all.sort_by_key(|&index| servers.sorted[index].0.distance(&target));
            all.truncate(k);
            prop_assert_eq!(servers.closest(&target, k), all);
        }

        #[test]
        fn every_key_is_allocated_to_k_servers_or_to_all(size in 0usize..60, seed: u64, keys: Vec<[u8; 32]>) {
            let servers = Servers::new(network(size, seed));
            let keys: Vec<Key> = keys.into_iter().map(Key::from_bytes).collect();
            let shares = allocate(&keys, &servers, 20, &HashSet::new());
            let given: usize = shares.values().map(Vec::len).sum();
            prop_assert_eq!(given, keys.len() * size.min(20));
        }

        #[test]
        fn with_replacements_every_key_is_with_the_k_closest_that_have_not_failed(
            size in 0usize..80, seed: u64, keys: Vec<[u8; 32]>, before: [bool; 80], now: [bool; 80], k in 1usize..24,
        ) {
            let servers = Servers::new(network(size, seed));
            let keys: Vec<Key> = keys.into_iter().map(Key::from_bytes).collect();
            let those = |chosen: &[bool; 80]| -> HashSet<PeerId> {
                (0..size).filter(|&index| chosen[index]).map(|index| servers.get(index).unwrap().id).collect()
            };
            let (failed, newly) = (those(&before), those(&now));
            let first = allocate(&keys, &servers, k, &failed);
            let second = replace(&keys, &servers, k, &failed, &newly);
            for (index, key) in keys.iter().enumerate() {
                let has = |shares: &BTreeMap<usize, Vec<usize>>| -> Vec<usize> {
                    let with = shares.iter().filter(|(_, share)| share.contains(&index));
                    with.map(|(server, _)| *server).filter(|&server| !servers.is_in(server, &newly)).collect()
                };
                let (had, got) = (has(&first), has(&second));
                prop_assert!(had.iter().all(|server| !got.contains(server)), "given twice");
                let mut with: Vec<usize> = had.into_iter().chain(got).collect();
                with.sort_by_key(|&server| servers.sorted[server].0.distance(key));
                let all: HashSet<PeerId> = failed.union(&newly).copied().collect();
                prop_assert_eq!(with, servers.closest_without(key, k, &all));
            }
        }
    }
}
