//! Decides when an own CID is due. Every key has a slot in the cycle, given by its place in the keyspace. Neighbouring
//! keys are due together, and the work of a cycle is spread evenly over it.

use crate::{clock::UnixTime, kad::keyspace::Key};
use std::time::Duration;

/// Slacks in a cycle (for a cycle of 10 h, one slack is about 9 minutes). Keys that become due within a slack are
/// announced together with those that are due now. A cycle therefore takes about this number of sweeps, however often
/// the job runs.
const SLACKS_PER_CYCLE: u32 = 64;

/// The cycle in which own CIDs are announced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cycle {
    interval_s: u64,
    slack_s: u64,
}

impl Cycle {
    /// Returns a cycle of `interval`, in whole seconds and at least one.
    pub fn new(interval: Duration) -> Self {
        let interval_s = interval.as_secs().clamp(1, u64::from(u32::MAX));
        Self { interval_s, slack_s: interval_s / u64::from(SLACKS_PER_CYCLE) }
    }

    /// Returns how long before its slot a key may be announced together with its neighbours.
    pub fn slack(&self) -> Duration {
        Duration::from_secs(self.slack_s)
    }

    /// Returns the time up to which keys must be due for a sweep that starts `now` to announce them.
    pub fn horizon(&self, now: UnixTime) -> UnixTime {
        saturate(u64::from(now.0) + self.slack_s)
    }

    /// Returns a key's slot, in seconds from the start of the cycle. It is less than the interval.
    pub fn phase(&self, key: &Key) -> u64 {
        let scaled = (u128::from(position(key)) * u128::from(self.interval_s)) >> 64;
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }

    /// Returns when a key that was last announced at `announced` is due: at its first slot after that, and never later
    /// than `announced` + interval. A key that was never announced is due at once.
    ///
    /// A slot less than a slack after the announcement is skipped, because the key was announced early with its
    /// neighbours.
    pub fn next_due(&self, key: &Key, announced: Option<UnixTime>) -> UnixTime {
        let Some(announced) = announced else { return UnixTime(0) };
        let announced = u64::from(announced.0);
        let passed = announced + self.slack_s;
        let slot = passed - passed % self.interval_s + self.phase(key);
        let slot = if slot <= passed { slot + self.interval_s } else { slot };
        saturate(slot.min(announced + self.interval_s))
    }

    /// Returns whether a key is due at `at`. An announcement dated after `now` does not count: the clock was set back.
    pub fn is_due(&self, key: &Key, announced: Option<UnixTime>, at: UnixTime, now: UnixTime) -> bool {
        let announced = announced.filter(|&announced| announced <= now);
        self.next_due(key, announced) <= at
    }

    /// Returns the ranges of the keyspace in which keys became due between `since` and `until`: at most two, bounds
    /// included. Keys that were announced or added in that time may be outside them. Returns the whole keyspace if
    /// that time spans a cycle or runs backwards.
    pub fn became_due(&self, since: UnixTime, until: UnixTime) -> Vec<(Key, Key)> {
        let (since, until) = (u64::from(since.0), u64::from(until.0));
        // A key that was announced early is due up to one slack before its slot.
        let last = until + self.slack_s;
        if until < since || last - since >= self.interval_s {
            return vec![(first_key(0), last_key(u64::MAX))];
        }
        if last == since {
            return Vec::new();
        }
        let (from, to) = ((since + 1) % self.interval_s, last % self.interval_s);
        if from <= to {
            vec![self.keys(from, to)]
        } else {
            vec![self.keys(0, to), self.keys(from, self.interval_s - 1)]
        }
    }

    /// Returns the range of keys whose slots are `from` to `to`, both included.
    fn keys(&self, from: u64, to: u64) -> (Key, Key) {
        let start = |phase: u64| (u128::from(phase) << 64).div_ceil(u128::from(self.interval_s));
        let first = u64::try_from(start(from)).unwrap_or(u64::MAX);
        let last = u64::try_from(start(to + 1) - 1).unwrap_or(u64::MAX);
        (first_key(first), last_key(last))
    }
}

/// Returns the first 64 bits of a key. They give its place in the keyspace as precisely as slots need it.
fn position(key: &Key) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&key.as_bytes()[..8]);
    u64::from_be_bytes(first)
}

fn first_key(position: u64) -> Key {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&position.to_be_bytes());
    Key::from_bytes(bytes)
}

fn last_key(position: u64) -> Key {
    let mut bytes = [0xff; 32];
    bytes[..8].copy_from_slice(&position.to_be_bytes());
    Key::from_bytes(bytes)
}

fn saturate(seconds: u64) -> UnixTime {
    UnixTime(u32::try_from(seconds).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(bytes: [u8; 32]) -> Key {
        Key::from_bytes(bytes)
    }

    #[test]
    fn a_key_never_announced_is_due_at_once() {
        let cycle = Cycle::new(Duration::from_secs(36_000));
        assert!(cycle.is_due(&key([7; 32]), None, UnixTime(0), UnixTime(0)));
    }

    #[test]
    fn an_announcement_from_the_future_does_not_count() {
        let cycle = Cycle::new(Duration::from_secs(36_000));
        assert!(cycle.is_due(&key([7; 32]), Some(UnixTime(2000)), UnixTime(1000), UnixTime(1000)));
    }

    #[test]
    fn an_interval_of_zero_is_a_second() {
        let cycle = Cycle::new(Duration::ZERO);
        assert_eq!(cycle.next_due(&key([255; 32]), Some(UnixTime(10))), UnixTime(11));
    }

    proptest! {
        #[test]
        fn due_within_one_interval_of_the_announcement(
            bytes: [u8; 32], announced in 0u32..4_000_000_000, interval in 1u64..1_000_000,
        ) {
            let cycle = Cycle::new(Duration::from_secs(interval));
            let due = cycle.next_due(&key(bytes), Some(UnixTime(announced)));
            prop_assert!(due > UnixTime(announced));
            prop_assert!(u64::from(due.0) <= u64::from(announced) + interval);
            prop_assert!(u64::from(due.0) > u64::from(announced) + cycle.slack_s || cycle.slack_s == 0);
        }

        #[test]
        fn announced_at_its_slot_a_key_is_due_at_its_next_slot(
            bytes: [u8; 32], cycles in 1u64..1000, interval in 1u64..1_000_000,
        ) {
            let cycle = Cycle::new(Duration::from_secs(interval));
            let slot = cycles * interval + cycle.phase(&key(bytes));
            let due = cycle.next_due(&key(bytes), Some(saturate(slot)));
            prop_assert_eq!(due, saturate(slot + interval));
        }

        #[test]
        fn slots_keep_the_order_of_the_keyspace(a: [u8; 32], b: [u8; 32], interval in 1u64..1_000_000) {
            let cycle = Cycle::new(Duration::from_secs(interval));
            let (a, b) = (a.min(b), a.max(b));
            prop_assert!(cycle.phase(&key(a)) <= cycle.phase(&key(b)));
            prop_assert!(cycle.phase(&key(b)) < interval);
        }

        #[test]
        fn what_became_due_lies_in_the_ranges(
            bytes: [u8; 32], since in 0u32..2_000_000, gap in 0u32..50_000, before in 0u32..50_000,
            interval in 1u64..40_000,
        ) {
            let cycle = Cycle::new(Duration::from_secs(interval));
            let (key, until) = (key(bytes), UnixTime(since + gap));
            let announced = UnixTime(since.saturating_sub(before));
            let due = cycle.next_due(&key, Some(announced));
            if due > UnixTime(since) && due <= until {
                let ranges = cycle.became_due(UnixTime(since), until);
                prop_assert!(ranges.iter().any(|(from, to)| (from..=to).contains(&&key)), "{:?}", ranges);
            }
        }

        #[test]
        fn a_short_while_makes_a_small_part_of_the_keyspace_due(since in 0u32..2_000_000, gap in 0u32..60) {
            let cycle = Cycle::new(Duration::from_secs(36_000));
            let ranges = cycle.became_due(UnixTime(since), UnixTime(since + gap));
            let wide: u128 =
                ranges.iter().map(|(from, to)| u128::from(position(to) - position(from)) + 1).sum();
            let slots = u128::from(u64::from(gap) + cycle.slack_s);
            prop_assert!(wide <= ((slots + 1) << 64) / 36_000, "{} slots", slots);
        }
    }
}
