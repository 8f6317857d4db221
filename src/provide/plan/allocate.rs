//! Which server gets which key: each key goes to the k closest of the servers known around it.

use crate::kad::{PeerInfo, keyspace::Key};
use std::collections::BTreeMap;

/// Servers of a part of the keyspace, in keyspace order.
#[derive(Clone, Debug, Default)]
pub struct Servers {
    sorted: Vec<(Key, PeerInfo)>,
}

impl Servers {
    /// Each server once, by its place.
    pub fn new(servers: BTreeMap<Key, PeerInfo>) -> Self {
        Self { sorted: servers.into_iter().collect() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// A server by its place in keyspace order.
    pub fn get(&self, index: usize) -> Option<&PeerInfo> {
        self.sorted.get(index).map(|(_, peer)| peer)
    }

    /// Indices of the `k` closest to `key`, closest first; fewer when fewer are known. Looks only into the
    /// smallest subtree around `key` that holds k: everything outside it is farther away.
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
}

fn is_set(key: &Key, bit: usize) -> bool {
    key.as_bytes()[bit / 8] & (0x80 >> (bit % 8)) != 0
}

/// For each server (by index) the keys (by index) of which it is one of the `k` closest; servers without any left out.
pub fn allocate(keys: &[Key], servers: &Servers, k: usize) -> BTreeMap<usize, Vec<usize>> {
    let mut shares: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, key) in keys.iter().enumerate() {
        for server in servers.closest(key, k) {
            shares.entry(server).or_default().push(index);
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provide::plan::explore::tests::network;
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
            let shares = allocate(&keys, &servers, 20);
            let told: usize = shares.values().map(Vec::len).sum();
            prop_assert_eq!(told, keys.len() * size.min(20));
        }
    }
}
