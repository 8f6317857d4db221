//! Remembers servers that read only one request of each stream.

use libp2p::PeerId;
use parking_lot::Mutex;
use std::{collections::HashMap, time::Duration};

/// How long such a server is remembered. Then it is tested again, because it may have been updated. A test costs three
/// streams.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// Most servers remembered, some 100 bytes each. Beyond it the one detected first is forgotten, and tested again.
const MAX_REMEMBERED: usize = 4096;

/// The servers that read only one request of each stream, and when they were detected.
#[derive(Debug, Default)]
pub(super) struct Singles {
    found: Mutex<HashMap<PeerId, Duration>>,
}

impl Singles {
    pub(super) fn contains(&self, peer: &PeerId, now: Duration) -> bool {
        let found = self.found.lock();
        found.get(peer).is_some_and(|&at| now.saturating_sub(at) < REMEMBERED)
    }

    pub(super) fn insert(&self, peer: PeerId, now: Duration) {
        let mut found = self.found.lock();
        if found.len() >= MAX_REMEMBERED
            && !found.contains_key(&peer)
            && let Some(oldest) = found.iter().min_by_key(|&(_, at)| *at).map(|(peer, _)| *peer)
        {
            found.remove(&oldest);
        }
        found.insert(peer, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_remembered_for_a_day_and_no_more_of_them_than_the_bound() {
        let singles = Singles::default();
        let first = PeerId::random();
        singles.insert(first, Duration::ZERO);
        assert!(singles.contains(&first, REMEMBERED - Duration::from_secs(1)));
        assert!(!singles.contains(&first, REMEMBERED));
        for second in 1..=MAX_REMEMBERED as u64 {
            singles.insert(PeerId::random(), Duration::from_secs(second));
        }
        assert_eq!(singles.found.lock().len(), MAX_REMEMBERED);
        assert!(!singles.contains(&first, Duration::ZERO), "the one detected first makes room");
    }
}
