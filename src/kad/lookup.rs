//! The iterative look-up (LKP-1, LKP-2) as a state machine: told what happened, it says whom to ask next.

use super::{PeerInfo, keyspace::Key};
use libp2p::PeerId;
use std::time::Duration;

/// Requests in flight (LKP-1).
pub const ALPHA: usize = 10;
/// A search ends when this many of the closest have answered (LKP-1).
pub const BETA: usize = 3;

/// When a look-up has found enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Goal {
    /// Ends when the beta closest reachable peers have answered.
    Search,
    /// Ends when the k closest have answered: needed to place records.
    Closest,
}

/// Limits of one look-up.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Settings {
    pub alpha: usize,
    pub beta: usize,
    pub k: usize,
    /// A peer silent for so long no longer holds up the end nor takes one of the alpha places; its late answer still counts.
    pub patience: Duration,
    /// Drop peers of one IP group beyond the limit in a response (LKP-2): on public DHTs.
    pub ip_diversity: bool,
    /// At most this many peers are asked.
    pub max_asked: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { alpha: ALPHA, beta: BETA, k: 20, patience: Duration::from_secs(1), ip_diversity: false, max_asked: 500 }
    }
}

/// What to do now.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Next {
    Ask(PeerInfo),
    /// Nothing to do before an event, or before this time.
    Wait {
        until: Option<Duration>,
    },
    Done,
}

/// One look-up.
#[derive(Debug)]
pub struct Lookup {}

#[expect(unused_variables, missing_docs)]
impl Lookup {
    pub fn new(target: Key, local: PeerId, seeds: Vec<PeerInfo>, goal: Goal, settings: Settings) -> Self {
        todo!()
    }
    /// Call until it returns `Wait` or `Done`; `Ask` counts as asked at `now`.
    pub fn next(&mut self, now: Duration) -> Next {
        todo!()
    }
    /// `peer` answered with these closer peers (at most 2k of them are looked at).
    pub fn answered(&mut self, peer: &PeerId, closer: Vec<PeerInfo>) {
        todo!()
    }
    pub fn failed(&mut self, peer: &PeerId) {
        todo!()
    }
    /// The caller's own goal is met.
    pub fn stop(&mut self) {
        todo!()
    }
    /// The k closest that have answered, closest first.
    pub fn closest(&self) -> Vec<PeerInfo> {
        todo!()
    }
    /// The k closest heard of, answered or not, the failed left out.
    pub fn closest_heard_of(&self) -> Vec<PeerInfo> {
        todo!()
    }
    pub fn asked(&self) -> usize {
        todo!()
    }
    /// Longest chain of referrals from a seed (0) to a peer that answered.
    pub fn hops(&self) -> usize {
        todo!()
    }
}
