//! The iterative look-up (LKP-1, LKP-2) as a state machine: it takes events and returns the peer to ask next.

use super::{
    PeerInfo,
    keyspace::{Distance, Key},
    scope::IpGroups,
    table::{K, MAX_ADDRESSES, MAX_PER_IP_GROUP},
};
use libp2p_identity::PeerId;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Maximum number of requests in flight (LKP-1).
pub const ALPHA: usize = 10;
/// Number of the closest peers that must have answered before a search ends (LKP-1).
pub const BETA: usize = 3;

/// Maximum number of candidates remembered; the farthest not yet asked is dropped first. Ten times the number that is
/// useful on the public network, and some 500 KB at most.
pub const MAX_CANDIDATES: usize = 1_000;

/// Number of closest peers of the routing table to start from: more than k, so that a look-up whose closest peers are
/// silent does not run out of candidates. The others are asked only if needed.
pub const SEEDS: usize = 3 * K;

/// A silent peer's stand-in is asked after the patience divided by this number. Otherwise it would be asked only after
/// the whole patience, and a stand-in that is silent too would delay the look-up by the patience once more.
const STAND_IN_DIVISOR: u32 = 4;

/// When a look-up has found enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Goal {
    /// The beta closest reachable peers have answered.
    Search,
    /// The k closest reachable peers have answered, as needed to place records.
    Closest,
}

/// Limits of one look-up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Maximum number of requests in flight to peers that are not silent yet; at least 1.
    pub alpha: usize,
    /// Number of closest peers that must have answered for [`Goal::Search`]; at most `k`.
    pub beta: usize,
    /// Number of closest peers to find; at least 1.
    pub k: usize,
    /// Time after which a silent peer no longer delays the end, and no longer takes one of the alpha places. A late
    /// answer still counts.
    pub patience: Duration,
    /// If set, at most [`MAX_PER_IP_GROUP`] peers of one IP group are taken from an answer (LKP-2). For public DHTs.
    pub ip_diversity: Option<IpGroups>,
    /// Maximum number of peers asked.
    pub max_asked: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { alpha: ALPHA, beta: BETA, k: K, patience: Duration::from_secs(1), ip_diversity: None, max_asked: 500 }
    }
}

/// What to do now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// Send the request to this peer, then call [`Lookup::answered`] or [`Lookup::failed`].
    Ask(PeerInfo),
    /// Wait for an event, at most until this time.
    Wait {
        /// When to call again at the latest, on the same clock as `now` and after it. `None`: only after an event.
        until: Option<Duration>,
    },
    /// The look-up has ended. Requests still in flight may be dropped; if their answers are reported, they count.
    Done,
}

/// One look-up.
#[derive(Debug)]
pub struct Lookup {
    target: Key,
    local: Key,
    goal: Goal,
    settings: Settings,
    /// All peers heard of, by distance from the target.
    candidates: BTreeMap<Distance, Candidate>,
    in_flight: BTreeSet<Distance>,
    asked: usize,
    done: bool,
}

#[derive(Debug)]
struct Candidate {
    peer: PeerInfo,
    state: State,
    /// Number of referrals from a seed.
    hops: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    HeardOf,
    InFlight { since: Duration },
    Answered,
    Failed,
}

impl Lookup {
    /// Creates a look-up of `target` that starts from `seeds`, the closest peers of the routing table. `local` is never
    /// asked.
    pub fn new(target: Key, local: PeerId, seeds: Vec<PeerInfo>, goal: Goal, settings: Settings) -> Self {
        let settings = Settings { alpha: settings.alpha.max(1), k: settings.k.max(1), ..settings };
        let mut lookup = Self {
            target,
            local: Key::for_peer(&local),
            goal,
            settings,
            candidates: BTreeMap::new(),
            in_flight: BTreeSet::new(),
            asked: 0,
            done: false,
        };
        for seed in seeds {
            lookup.heard_of(seed, 0);
        }
        lookup
    }

    /// Returns the next step. Call it until it returns `Wait` or `Done`; a peer of `Ask` counts as asked at `now`.
    /// `now` must never go back.
    pub fn next(&mut self, now: Duration) -> Next {
        if self.done {
            return Next::Done;
        }
        let candidate = match self.scan(now) {
            Scan::Complete => {
                self.done = true;
                return Next::Done;
            }
            Scan::Incomplete(candidate) => candidate,
        };
        if let Some(distance) = candidate
            && self.places_taken(now) < self.settings.alpha
            && let Some(candidate) = self.candidates.get_mut(&distance)
        {
            candidate.state = State::InFlight { since: now };
            self.in_flight.insert(distance);
            self.asked += 1;
            return Next::Ask(candidate.peer.clone());
        }
        Next::Wait { until: self.next_deadline(now) }
    }

    /// Goes through the candidates, closest first. Returns whether the goal is reached, and if not, the peer to ask.
    ///
    /// Skips failed and silent peers as if they had never been named. Of the others, the k closest are asked, plus one
    /// stand-in for each that is slow to answer.
    fn scan(&self, now: Duration) -> Scan {
        let enough = match self.goal {
            Goal::Search => self.settings.beta.min(self.settings.k),
            Goal::Closest => self.settings.k,
        };
        let (mut answered, mut places, mut undecided) = (0, 0, false);
        for (distance, candidate) in &self.candidates {
            match candidate.state {
                State::Failed => {}
                State::Answered => {
                    answered += 1;
                    places += 1;
                }
                State::InFlight { since } => {
                    let age = now.saturating_sub(since);
                    undecided |= age < self.settings.patience;
                    places += usize::from(age < self.stand_in_after());
                }
                State::HeardOf if self.asked >= self.settings.max_asked => {}
                State::HeardOf => return Scan::Incomplete(Some(*distance)),
            }
            if !undecided && answered >= enough {
                return Scan::Complete;
            }
            if places >= self.settings.k {
                break;
            }
        }
        if undecided { Scan::Incomplete(None) } else { Scan::Complete }
    }

    fn stand_in_after(&self) -> Duration {
        self.settings.patience / STAND_IN_DIVISOR
    }

    fn requested_at(&self) -> impl Iterator<Item = Duration> {
        self.in_flight.iter().filter_map(|distance| match self.candidates.get(distance)?.state {
            State::InFlight { since } => Some(since),
            _ => None,
        })
    }

    /// Returns the number of requests in flight to peers that are not silent.
    fn places_taken(&self, now: Duration) -> usize {
        self.requested_at().filter(|since| now.saturating_sub(*since) < self.settings.patience).count()
    }

    /// Returns when the next request in flight gets a stand-in or counts as silent.
    fn next_deadline(&self, now: Duration) -> Option<Duration> {
        self.requested_at()
            .flat_map(|since| [self.stand_in_after(), self.settings.patience].map(|after| since.saturating_add(after)))
            .filter(|deadline| *deadline > now)
            .min()
    }

    /// Reports the closer peers that `peer` answered with. At most 2k of them are used. Ignored if it was not asked.
    pub fn answered(&mut self, peer: &PeerId, closer: Vec<PeerInfo>) {
        let distance = self.distance(peer);
        if !self.in_flight.remove(&distance) {
            return;
        }
        let Some(candidate) = self.candidates.get_mut(&distance) else { return };
        candidate.state = State::Answered;
        let hops = candidate.hops + 1;

        let mut per_group = BTreeMap::new();
        for peer in closer.into_iter().take(2 * self.settings.k) {
            if let Some(ip_groups) = &self.settings.ip_diversity {
                let groups: BTreeSet<_> = peer.addrs.iter().filter_map(|addr| ip_groups.of(addr)).collect();
                if groups.iter().any(|group| per_group.get(group).is_some_and(|&count| count >= MAX_PER_IP_GROUP)) {
                    continue;
                }
                for group in groups {
                    *per_group.entry(group).or_insert(0) += 1;
                }
            }
            self.heard_of(peer, hops);
        }
    }

    /// Reports that `peer` cannot be reached, or that its answer cannot be used. The next closest takes its place.
    pub fn failed(&mut self, peer: &PeerId) {
        let distance = self.distance(peer);
        self.in_flight.remove(&distance);
        if let Some(candidate) = self.candidates.get_mut(&distance)
            && candidate.state != State::Answered
        {
            candidate.state = State::Failed;
        }
    }

    /// Ends the look-up, because the caller's own goal is met.
    pub fn stop(&mut self) {
        self.done = true;
    }

    /// Returns the k closest peers that have answered, closest first.
    pub fn closest(&self) -> Vec<PeerInfo> {
        self.closest_in(|state| state == State::Answered)
    }

    /// Returns the k closest peers heard of, except those that failed; closest first.
    pub fn closest_heard_of(&self) -> Vec<PeerInfo> {
        self.closest_in(|state| state != State::Failed)
    }

    fn closest_in(&self, wanted: impl Fn(State) -> bool) -> Vec<PeerInfo> {
        let wanted = self.candidates.values().filter(|candidate| wanted(candidate.state));
        wanted.take(self.settings.k).map(|candidate| candidate.peer.clone()).collect()
    }

    /// Returns the number of peers asked so far.
    pub fn asked(&self) -> usize {
        self.asked
    }

    /// Returns the peers that were asked and have neither answered nor failed, closest first.
    pub fn in_flight(&self) -> impl Iterator<Item = &PeerId> {
        self.in_flight.iter().filter_map(|distance| Some(&self.candidates.get(distance)?.peer.id))
    }

    /// Returns the length of the longest chain of referrals to a peer that answered; a seed counts 0.
    pub fn hops(&self) -> usize {
        let answered = self.candidates.values().filter(|candidate| candidate.state == State::Answered);
        answered.map(|candidate| candidate.hops).max().unwrap_or(0)
    }

    fn distance(&self, peer: &PeerId) -> Distance {
        Key::for_peer(peer).distance(&self.target)
    }

    /// Adds a candidate. A peer without addresses counts too: the caller may know some.
    fn heard_of(&mut self, mut peer: PeerInfo, hops: usize) {
        let key = Key::for_peer(&peer.id);
        if key == self.local {
            return;
        }
        peer.addrs.truncate(MAX_ADDRESSES);
        let distance = key.distance(&self.target);
        if let Some(known) = self.candidates.get_mut(&distance) {
            // The peer that named it first may have been wrong about its addresses, or lying.
            for addr in peer.addrs {
                if known.peer.addrs.len() < MAX_ADDRESSES && !known.peer.addrs.contains(&addr) {
                    known.peer.addrs.push(addr);
                }
            }
            return;
        }
        self.candidates.insert(distance, Candidate { peer, state: State::HeardOf, hops });
        // Peers already asked are never dropped; there are at most `max_asked`.
        if self.candidates.len() > MAX_CANDIDATES.max(2 * self.settings.max_asked) {
            let farthest = self.candidates.iter().rev().find(|(_, candidate)| candidate.state == State::HeardOf);
            if let Some(distance) = farthest.map(|(distance, _)| *distance) {
                self.candidates.remove(&distance);
            }
        }
    }
}

/// The result of going through the candidates.
enum Scan {
    /// The goal is reached, or no peer is left to ask or to wait for.
    Complete,
    /// The goal is not reached. This candidate, if any, is the next to ask when there is room.
    Incomplete(Option<Distance>),
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
