//! The iterative look-up (LKP-1, LKP-2) as a state machine: told what happened, it says whom to ask next.

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

/// Requests in flight (LKP-1).
pub const ALPHA: usize = 10;
/// A search ends when this many of the closest have answered (LKP-1).
pub const BETA: usize = 3;

/// Candidates that are remembered: the farthest not yet asked give way. Ten times what a look-up of the public
/// network hears of usefully, and some 500 KB at most.
pub const MAX_CANDIDATES: usize = 1_000;

/// How many of the closest peers of the routing table to start from: more than k, so that a look-up whose closest
/// are mute does not run out of candidates. Asked only if it comes to them.
pub const SEEDS: usize = 3 * K;

/// After this part of the patience a silent peer's stand-in is asked as well. Without it a mute peer's stand-in starts
/// only once patience is over, and where that one is mute too the look-up takes one patience more.
const STAND_IN_DIVISOR: u32 = 4;

/// When a look-up has found enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Goal {
    /// Ends when the beta closest reachable peers have answered.
    Search,
    /// Ends when the k closest have answered: needed to place records.
    Closest,
}

/// Limits of one look-up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// At most this many requests in flight to peers that are not silent yet; at least 1.
    pub alpha: usize,
    /// How many of the closest must have answered for [`Goal::Search`]; at most `k`.
    pub beta: usize,
    /// How many closest peers are sought; at least 1.
    pub k: usize,
    /// A peer silent for so long no longer holds up the end nor takes one of the alpha places; its late answer still counts.
    pub patience: Duration,
    /// Drop peers of one IP group, as made by these, beyond the limit in a response (LKP-2): on public DHTs.
    pub ip_diversity: Option<IpGroups>,
    /// At most this many peers are asked.
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
    /// Send the request to this peer; report [`Lookup::answered`] or [`Lookup::failed`].
    Ask(PeerInfo),
    /// Nothing to do before an event, or before this time.
    Wait {
        /// When to call again at the latest; a time after `now`, on the same clock.
        until: Option<Duration>,
    },
    /// The end. Requests still in flight may be dropped; if their answers are reported nevertheless, they count.
    Done,
}

/// One look-up.
#[derive(Debug)]
pub struct Lookup {
    target: Key,
    local: Key,
    goal: Goal,
    settings: Settings,
    /// Everybody heard of, by distance from the target.
    candidates: BTreeMap<Distance, Candidate>,
    in_flight: BTreeSet<Distance>,
    asked: usize,
    done: bool,
}

#[derive(Debug)]
struct Candidate {
    peer: PeerInfo,
    state: State,
    /// Referrals from a seed.
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
    /// A look-up of `target` that starts from `seeds`: the closest peers of the routing table. `local` is never asked.
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

    /// Call until it returns `Wait` or `Done`; `Ask` counts as asked at `now`. Times never go back.
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

    /// Goes through the candidates, closest first: is the goal reached, and if not, who is to be asked?
    ///
    /// The failed and the silent are passed over, as if nobody had named them. Of the k closest others all are asked,
    /// and for each that hesitates the next closest as well.
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

    /// Requests in flight that are not silent.
    fn places_taken(&self, now: Duration) -> usize {
        self.requested_at().filter(|since| now.saturating_sub(*since) < self.settings.patience).count()
    }

    /// When the next request in flight gets a stand-in or is given up waiting for.
    fn next_deadline(&self, now: Duration) -> Option<Duration> {
        self.requested_at()
            .flat_map(|since| [self.stand_in_after(), self.settings.patience].map(|after| since.saturating_add(after)))
            .filter(|deadline| *deadline > now)
            .min()
    }

    /// `peer` answered with these closer peers (at most 2k of them are looked at). Ignored if it was not asked.
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

    /// `peer` cannot be reached, or its answer was none. The next closest takes its place.
    pub fn failed(&mut self, peer: &PeerId) {
        let distance = self.distance(peer);
        self.in_flight.remove(&distance);
        if let Some(candidate) = self.candidates.get_mut(&distance)
            && candidate.state != State::Answered
        {
            candidate.state = State::Failed;
        }
    }

    /// The caller's own goal is met.
    pub fn stop(&mut self) {
        self.done = true;
    }

    /// The k closest that have answered, closest first.
    pub fn closest(&self) -> Vec<PeerInfo> {
        self.closest_in(|state| state == State::Answered)
    }

    /// The k closest heard of, answered or not, the failed left out.
    pub fn closest_heard_of(&self) -> Vec<PeerInfo> {
        self.closest_in(|state| state != State::Failed)
    }

    fn closest_in(&self, wanted: impl Fn(State) -> bool) -> Vec<PeerInfo> {
        let wanted = self.candidates.values().filter(|candidate| wanted(candidate.state));
        wanted.take(self.settings.k).map(|candidate| candidate.peer.clone()).collect()
    }

    /// Peers asked so far.
    pub fn asked(&self) -> usize {
        self.asked
    }

    /// Peers asked that have neither answered nor failed, closest first.
    pub fn in_flight(&self) -> impl Iterator<Item = &PeerId> {
        self.in_flight.iter().filter_map(|distance| Some(&self.candidates.get(distance)?.peer.id))
    }

    /// Longest chain of referrals from a seed (0) to a peer that answered.
    pub fn hops(&self) -> usize {
        let answered = self.candidates.values().filter(|candidate| candidate.state == State::Answered);
        answered.map(|candidate| candidate.hops).max().unwrap_or(0)
    }

    fn distance(&self, peer: &PeerId) -> Distance {
        Key::for_peer(peer).distance(&self.target)
    }

    /// A peer without addresses is a candidate, too: the caller may know some.
    fn heard_of(&mut self, mut peer: PeerInfo, hops: usize) {
        let key = Key::for_peer(&peer.id);
        if key == self.local {
            return;
        }
        peer.addrs.truncate(MAX_ADDRESSES);
        let distance = key.distance(&self.target);
        if let Some(known) = self.candidates.get_mut(&distance) {
            // Who named it first may have been wrong about its addresses, or lying.
            for addr in peer.addrs {
                if known.peer.addrs.len() < MAX_ADDRESSES && !known.peer.addrs.contains(&addr) {
                    known.peer.addrs.push(addr);
                }
            }
            return;
        }
        self.candidates.insert(distance, Candidate { peer, state: State::HeardOf, hops });
        // Those asked are never more than `max_asked`.
        if self.candidates.len() > MAX_CANDIDATES.max(2 * self.settings.max_asked) {
            let farthest = self.candidates.iter().rev().find(|(_, candidate)| candidate.state == State::HeardOf);
            if let Some(distance) = farthest.map(|(distance, _)| *distance) {
                self.candidates.remove(&distance);
            }
        }
    }
}

/// What a look at all candidates shows.
enum Scan {
    /// The goal is reached, or nobody is left to be asked or waited for.
    Complete,
    /// It is not; this candidate, if any, is to be asked when there is room.
    Incomplete(Option<Distance>),
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
