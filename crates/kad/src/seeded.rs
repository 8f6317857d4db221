//! Random numbers that depend only on a seed, because this crate has no randomness of its own.

/// The generator SplitMix64 (Steele, Lea, Flood 2014): good enough to spread choices, but not for secrets.
#[derive(Clone, Debug)]
pub struct Seeded(u64);

impl Seeded {
    /// Creates a generator. The same seed gives the same numbers on every machine.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next 64 bits.
    #[expect(clippy::should_implement_trait, reason = "endless, so an Option would be noise")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `bound`, or 0 if `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        // The bias of the multiplication is below bound / 2^64.
        let wide = u128::from(self.next()) * bound as u128;
        (wide >> 64) as usize
    }

    /// Shuffles `items` (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let chosen = self.below(last + 1);
            items.swap(last, chosen);
        }
    }

    /// Moves `count` of `items`, chosen at random, to the front, in random order.
    pub fn choose_first<T>(&mut self, items: &mut [T], count: usize) {
        if count >= items.len() {
            return;
        }
        for first in 0..count {
            let chosen = first + self.below(items.len() - first);
            items.swap(first, chosen);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_item_is_chosen_about_as_often_as_any_other() {
        let mut random = Seeded::new(3);
        let mut chosen = [0; 10];
        for _ in 0..10_000 {
            let mut items: Vec<usize> = (0..10).collect();
            random.choose_first(&mut items, 3);
            items[..3].iter().for_each(|item| chosen[*item] += 1);
        }
        assert!(chosen.iter().all(|times| (2_800..3_200).contains(times)), "{chosen:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_order_and_another_seed_another() {
        let order = |seed| {
            let mut items: Vec<u32> = (0..100).collect();
            Seeded::new(seed).shuffle(&mut items);
            items
        };
        assert_eq!(order(7), order(7));
        assert_ne!(order(7), order(8));
        let mut sorted = order(7);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn below_reaches_every_number_and_no_other() {
        let mut random = Seeded::new(1);
        let mut seen = [0; 5];
        for _ in 0..5_000 {
            seen[random.below(5)] += 1;
        }
        assert!(seen.iter().all(|&count| count > 800), "{seen:?}");
        assert_eq!(random.below(0), 0);
    }
}
