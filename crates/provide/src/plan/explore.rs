//! Finds all servers of a region, the smallest part of the keyspace around a key that holds at least k of them.
//!
//! A look-up returns the k servers closest to its target. It covers a whole subtree: a server that shares more bits
//! with the target than the farthest of the k does is closer than that one, so it is among the k. Servers that share as
//! many bits as the farthest are known only in part. Their subtree is looked up next, and so on until the region is
//! covered.

use super::allocate::Servers;
use crate::kad::{
    PeerInfo,
    keyspace::{self, Key, Prefix},
};
use std::collections::BTreeMap;

/// Most look-ups spent on one region. An even network takes 2 to 4. A region so uneven that this does not cover it is
/// allocated among the servers that were found.
pub const MAX_LOOKUPS: usize = 64;

/// Longest prefix, in bits, for which a FIND_NODE target is searched: 2^16 hashes, about 10 ms. In a network of up to
/// 600,000 servers, no region has a longer prefix.
const MAX_PREFIX: u16 = 15;

/// The target of a look-up: the bytes for FIND_NODE, and their place in the keyspace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// The key that FIND_NODE sends. Servers hash it.
    pub bytes: Vec<u8>,
    /// SHA-256 of `bytes`.
    pub key: Key,
}

impl Target {
    /// Returns the target for `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        let key = Key::for_value(&bytes);
        Self { bytes, key }
    }
}

/// The exploration of one region. Call [`Exploration::next_target`], look that target up, and pass the result to
/// [`Exploration::found`]. Repeat until there is no target left.
#[derive(Debug)]
pub struct Exploration {
    k: usize,
    seed: u64,
    lookups: usize,
    /// Subtrees that are not covered yet, the next one last.
    uncovered: Vec<Job>,
    region: Option<Prefix>,
    known: BTreeMap<Key, PeerInfo>,
}

#[derive(Debug)]
enum Job {
    First(Target),
    Subtree(Prefix),
}

impl Exploration {
    /// Returns an exploration of the region around `first`. `seed` decides the targets inside subtrees.
    pub fn new(first: Target, k: usize, seed: u64) -> Self {
        Self { k: k.max(1), seed, lookups: 0, uncovered: vec![Job::First(first)], region: None, known: BTreeMap::new() }
    }

    /// Returns the next target, or `None` if the region is covered or [`MAX_LOOKUPS`] is reached.
    pub fn next_target(&mut self) -> Option<Target> {
        while self.lookups < MAX_LOOKUPS {
            match self.uncovered.last()? {
                Job::First(target) => return Some(target.clone()),
                Job::Subtree(prefix) => match self.target_in(*prefix) {
                    Some(target) => return Some(target),
                    None => self.uncovered.pop(),
                },
            };
        }
        None
    }

    /// Takes the servers that the look-up of `target` found: the k closest, or fewer only if there are no more.
    pub fn found(&mut self, target: &Key, peers: Vec<PeerInfo>) {
        let Some(job) = self.uncovered.pop() else { return };
        self.lookups += 1;
        let mut places: Vec<Key> = peers.iter().map(|peer| Key::for_peer(&peer.id)).collect();
        self.known.extend(places.iter().copied().zip(peers));
        places.sort_by_key(|place| place.distance(target));
        let Some(farthest) = places.get(self.k - 1) else {
            // Fewer than k: these are all servers of the network.
            self.region = Some(target.prefix(0));
            self.uncovered.clear();
            return;
        };
        let shared = target.common_prefix_length(farthest);
        // All servers that share more than `shared` bits with the target are known.
        let known_from = shared.saturating_add(1).min(256);
        let top = match job {
            Job::First(_) => {
                self.region = Some(target.prefix(shared));
                shared
            }
            Job::Subtree(prefix) => prefix.len(),
        };
        for len in (top + 1..=known_from).rev() {
            self.uncovered.extend(target.prefix(len).sibling().map(Job::Subtree));
        }
    }

    /// Returns the region, once the first look-up is done. It is the whole keyspace if the whole network is known.
    pub fn region(&self) -> Option<Prefix> {
        self.region
    }

    /// Returns the count of look-ups made.
    pub fn lookups(&self) -> usize {
        self.lookups
    }

    /// Returns all servers found. Those outside the region are included, because they can replace servers that fail.
    pub fn into_servers(self) -> Servers {
        Servers::new(self.known)
    }

    fn target_in(&self, prefix: Prefix) -> Option<Target> {
        let (first, last) = prefix.bounds();
        let searched = (prefix.len() <= MAX_PREFIX)
            .then(|| keyspace::preimage(&first, prefix.len(), self.seed.wrapping_add(self.lookups as u64)))
            .flatten();
        // If the prefix is too long to search, the target is the id of a known server below the prefix: it hashes to
        // that server's place.
        let bytes = searched.or_else(|| self.known.range(first..=last).next().map(|(_, peer)| peer.id.to_bytes()))?;
        Some(Target::new(bytes)).filter(|target| prefix.contains(&target.key))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use libp2p_identity::PeerId;
    use multihash::Multihash;
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    /// Returns `size` servers at places that `seed` decides.
    pub(crate) fn network(size: usize, seed: u64) -> BTreeMap<Key, PeerInfo> {
        (0..size as u64)
            .map(|number| {
                let digest = Sha256::digest([seed.to_be_bytes(), number.to_be_bytes()].concat());
                let id = PeerId::from_multihash(Multihash::wrap(0x12, &digest).unwrap()).unwrap();
                (Key::for_peer(&id), PeerInfo { id, addrs: Vec::new() })
            })
            .collect()
    }

    fn closest(network: &BTreeMap<Key, PeerInfo>, target: &Key, k: usize) -> Vec<PeerInfo> {
        let mut all: Vec<_> = network.iter().collect();
        all.sort_by_key(|(place, _)| place.distance(target));
        all.into_iter().take(k).map(|(_, peer)| peer.clone()).collect()
    }

    fn explore(network: &BTreeMap<Key, PeerInfo>, first: &[u8], k: usize) -> (Prefix, usize, Servers) {
        let mut exploration = Exploration::new(Target::new(first.to_vec()), k, 1);
        while let Some(target) = exploration.next_target() {
            exploration.found(&target.key, closest(network, &target.key, k));
        }
        (exploration.region().unwrap(), exploration.lookups(), exploration.into_servers())
    }

    #[test]
    fn a_network_of_fewer_than_k_is_known_after_one_look_up() {
        let (region, lookups, servers) = explore(&network(19, 1), b"key", 20);
        assert_eq!((region.len(), lookups, servers.len()), (0, 1, 19));
    }

    #[test]
    fn a_network_of_nobody_is_known_too() {
        let (region, lookups, servers) = explore(&network(0, 1), b"key", 20);
        assert_eq!((region.len(), lookups, servers.len()), (0, 1, 0));
    }

    #[test]
    fn a_region_of_a_network_of_10_000_takes_few_look_ups() {
        let network = network(10_000, 1);
        let lookups: usize = (0..20u8).map(|first| explore(&network, &[first], 20).1).sum();
        assert!(lookups <= 20 * 5, "{lookups} look-ups for 20 regions");
    }

    #[test]
    fn a_lopsided_network_ends_within_the_budget() {
        let lopsided: BTreeMap<_, _> =
            network(5000, 3).into_iter().filter(|(place, _)| place.as_bytes()[0] != 0).collect();
        for first in 0..50u8 {
            assert!(explore(&lopsided, &[first], 20).1 <= MAX_LOOKUPS);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_key_of_the_region_finds_its_true_k_closest(
            size in 0usize..600, seed: u64, first: [u8; 8], k in 1usize..24, keys: [[u8; 8]; 8],
        ) {
            let network = network(size, seed);
            let (region, _, servers) = explore(&network, &first, k);
            prop_assert!(region.contains(&Key::for_value(&first)));
            let inside = network.keys().filter(|place| region.contains(place)).count();
            prop_assert!(inside >= k.min(size));
            for content in keys {
                let random = *Key::for_value(&content).as_bytes();
                // Move the key into the region.
                let mut bytes = random;
                let (bound, _) = region.bounds();
                for bit in 0..usize::from(region.len()) {
                    let mask = 0x80 >> (bit % 8);
                    bytes[bit / 8] = bytes[bit / 8] & !mask | bound.as_bytes()[bit / 8] & mask;
                }
                let key = Key::from_bytes(bytes);
                let found: Vec<PeerInfo> =
                    servers.closest(&key, k).into_iter().map(|index| servers.get(index).unwrap().clone()).collect();
                prop_assert_eq!(found, closest(&network, &key, k));
            }
        }
    }
}
