//! A key with many providers, kept outside the tables. The cost of an operation does not depend on their number.

use super::record::{Secret, Slot};
use crate::{kad::seeded::Seeded, records::entry::KeyPrefix};
use hashbrown::HashTable;

/// Limit of the random draws per provider that is wanted. When they are used up, most providers have expired and are
/// not collected yet, and it is cheaper to look at all of them.
const DRAWS: usize = 8;

/// A key and its providers.
#[derive(Debug)]
pub struct Big {
    /// The key.
    pub prefix: KeyPrefix,
    /// Providers with their times, unordered. There are no gaps, so that one can be drawn at random.
    providers: Vec<(u32, u32)>,
    /// Index of each provider in `providers`.
    at: HashTable<u32>,
}

impl Big {
    /// Makes a key without providers, with room for `room`.
    pub fn new(prefix: KeyPrefix, room: usize) -> Self {
        Self { prefix, providers: Vec::with_capacity(room), at: HashTable::with_capacity(room) }
    }

    /// Returns the number of providers.
    pub fn len(&self) -> usize {
        self.providers.len()
    }

    /// Iterates over the providers and their times.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> {
        self.providers.iter().copied()
    }

    /// Returns the time of a provider.
    pub fn time(&self, secret: &Secret, peer: u32) -> Option<u32> {
        self.position(secret, peer).and_then(|at| self.providers.get(at)).map(|(_, time)| *time)
    }

    /// Returns the time of a provider so that it can be changed, or the number of other providers.
    pub fn slot(&mut self, secret: &Secret, peer: u32) -> Slot<'_> {
        let others = self.len();
        match self.position(secret, peer).and_then(|at| self.providers.get_mut(at)) {
            Some((_, time)) => Slot::Known(time),
            None => Slot::Others(others),
        }
    }

    /// Inserts a provider that is not there yet.
    pub fn insert(&mut self, secret: &Secret, peer: u32, time: u32) {
        let Self { providers, at, .. } = self;
        // Always succeeds: the limit of the providers of a key is far below.
        let Ok(end) = u32::try_from(providers.len()) else { return };
        providers.push((peer, time));
        let hash_at = |at: &u32| secret.of_peer(providers[*at as usize].0);
        at.insert_unique(secret.of_peer(peer), end, hash_at);
    }

    /// Drops a provider if `may` returns true for its time. Returns true if it was dropped.
    pub fn remove(&mut self, secret: &Secret, peer: u32, may: impl FnOnce(u32) -> bool) -> bool {
        let Self { providers, at, .. } = self;
        let Ok(found) = at.find_entry(secret.of_peer(peer), |at| providers[*at as usize].0 == peer) else {
            return false;
        };
        let hole = *found.get();
        if !may(providers[hole as usize].1) {
            return false;
        }
        found.remove();
        // The last provider moves into the gap.
        let last = providers.len() as u32 - 1;
        if hole != last
            && let Some(moved) = at.find_mut(secret.of_peer(providers[last as usize].0), |at| *at == last)
        {
            *moved = hole;
        }
        providers.swap_remove(hole as usize);
        true
    }

    /// Appends up to `most` live providers to `found`, chosen by `random`.
    pub fn choose(&self, is_live: impl Fn(u32) -> bool, most: usize, random: &mut Seeded, found: &mut Vec<(u32, u32)>) {
        let begun = found.len();
        if self.len() / 2 > most {
            for at in Draw::new(self.len(), random).take(most * DRAWS) {
                found.extend(self.providers.get(at).filter(|(_, time)| is_live(*time)));
                if found.len() - begun == most {
                    return;
                }
            }
            found.truncate(begun);
        }
        found.extend(self.providers.iter().filter(|(_, time)| is_live(*time)));
        random.choose_first(&mut found[begun..], most);
        found.truncate(begun + most);
    }

    /// Gives back memory if less than an eighth of it is used.
    pub fn shrink(&mut self, secret: &Secret) {
        let Self { providers, at, .. } = self;
        if providers.len() < providers.capacity() / 8 {
            providers.shrink_to(2 * providers.len());
            at.shrink_to(0, |at| secret.of_peer(providers[*at as usize].0));
        }
    }

    /// Returns the allocated memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.providers.capacity() * size_of::<(u32, u32)>() + self.at.allocation_size()
    }

    fn position(&self, secret: &Secret, peer: u32) -> Option<usize> {
        let is_it = |at: &u32| self.providers.get(*at as usize).is_some_and(|(other, _)| *other == peer);
        self.at.find(secret.of_peer(peer), is_it).map(|at| *at as usize)
    }
}

/// Iterator over the numbers below a bound in a pseudorandom order, each once. It needs no memory of the numbers that
/// it has returned.
struct Draw {
    bound: usize,
    bits: u32,
    next: u64,
    keys: [u64; 3],
}

impl Draw {
    fn new(bound: usize, random: &mut Seeded) -> Self {
        let bits = usize::BITS - bound.saturating_sub(1).leading_zeros();
        Self { bound, bits: bits.max(2), next: 0, keys: std::array::from_fn(|_| random.next()) }
    }

    /// Permutes the numbers of `bits` bits. Each step can be undone: adding, multiplying by an odd number, and xoring
    /// with a right shift. So no two numbers become one.
    fn permuted(&self, n: u64) -> u64 {
        let mask = (1 << self.bits) - 1;
        self.keys.iter().fold(n, |n, key| {
            let n = n.wrapping_add(key >> 32).wrapping_mul(key | 1) & mask;
            n ^ (n >> (self.bits / 2))
        })
    }
}

impl Iterator for Draw {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while self.next < 1 << self.bits {
            let drawn = self.permuted(self.next) as usize;
            self.next += 1;
            if drawn < self.bound {
                return Some(drawn);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::new((1, 2))
    }

    #[test]
    fn a_draw_visits_each_number_once_in_an_order_of_its_own() {
        let mut random = Seeded::new(1);
        for bound in [1, 2, 3, 64, 65, 1000, 4096, 10_007] {
            let mut drawn: Vec<usize> = Draw::new(bound, &mut random).collect();
            let again: Vec<usize> = Draw::new(bound, &mut random).collect();
            assert!(bound < 64 || drawn != again);
            drawn.sort_unstable();
            assert_eq!(drawn, (0..bound).collect::<Vec<_>>());
        }
    }

    #[test]
    fn each_live_provider_is_chosen_about_as_often_as_any_other() {
        const PROVIDERS: u32 = 1000;
        const MOST: usize = 20;
        const TIMES: u64 = 20_000;
        let mut big = Big::new([1; 12], 0);
        (0..PROVIDERS).for_each(|n| big.insert(&secret(), n, n));
        // 500 live providers are found by draws, 30 by a look at all. Of 7, fewer than are wanted, all are returned.
        for live in [500, 30, 7] {
            let mut chosen = vec![0; PROVIDERS as usize];
            for seed in 0..TIMES {
                let mut found = Vec::new();
                big.choose(|time| time >= PROVIDERS - live, MOST, &mut Seeded::new(seed), &mut found);
                found.iter().for_each(|(peer, _)| chosen[*peer as usize] += 1);
                found.sort_unstable();
                found.dedup();
                assert_eq!(found.len(), MOST.min(live as usize));
            }
            let (outlived, lives) = chosen.split_at((PROVIDERS - live) as usize);
            assert!(outlived.iter().all(|times| *times == 0));
            let expected = TIMES as f64 * MOST.min(live as usize) as f64 / f64::from(live);
            for times in lives {
                assert!((f64::from(*times) / expected - 1.0).abs() < 0.2, "{times} times, {expected} expected");
            }
        }
    }

    #[test]
    fn providers_that_go_leave_the_others_to_be_found() {
        let mut big = Big::new([1; 12], 0);
        (0..1000).for_each(|n| big.insert(&secret(), n, n));
        assert!(!big.remove(&secret(), 5, |time| time != 5) && !big.remove(&secret(), 1000, |_| true));
        for gone in (0..1000).filter(|n| n % 3 != 0) {
            assert!(big.remove(&secret(), gone, |time| time == gone));
        }
        big.shrink(&secret());
        assert_eq!(big.len(), 334);
        for n in 0..1000 {
            assert_eq!(big.time(&secret(), n), (n % 3 == 0).then_some(n));
        }
    }
}
