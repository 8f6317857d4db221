//! Decides whether a node is a server or a client (MODE-1), from what other peers say about its reachability.
//!
//! Other peers vote; each group of peers that are not independent has one vote. The verdict changes if one side has at
//! least [`NEEDED`] votes and three quarters of all votes. Otherwise it stays, so that a single liar or a single
//! failure changes nothing.

use super::Dht;
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// Minimum number of votes on one side for a verdict: as many as go's AutoNAT wants in a row.
pub const NEEDED: usize = 3;

/// Votes on the winning side needed for each vote on the other side.
const MAJORITY: usize = 3;

/// Maximum number of votes that count: the newest ones. It is low, so that a change is believed after two rounds of
/// asking.
pub const MAX_VOTES: usize = 8;

/// How long a vote counts: several rounds of asking, but short enough to forget a network that the node has left.
pub const VOTE_LIFE: Duration = Duration::from_secs(3600);

/// Whether other peers can dial us.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reach {
    /// Not proved either way.
    #[default]
    Unknown,
    /// Several peers could dial us.
    Reachable,
    /// Several peers tried to dial us and could not.
    Unreachable,
}

/// Collects votes. `G` identifies a group of peers that are not independent of each other.
#[derive(Clone, PartialEq, Debug)]
pub struct Reachability<G> {
    /// Oldest first; at most [`MAX_VOTES`], one for each group.
    votes: Vec<(G, bool, Duration)>,
    reach: Reach,
}

impl<G> Default for Reachability<G> {
    fn default() -> Self {
        Self { votes: Vec::new(), reach: Reach::Unknown }
    }
}

impl<G: PartialEq> Reachability<G> {
    /// Records that a peer of `group` tried to dial us at the monotonic time `now`. Returns the new verdict.
    pub fn vote(&mut self, group: G, reached: bool, now: Duration) -> Reach {
        self.votes.retain(|(other, ..)| *other != group);
        self.votes.push((group, reached, now));
        if self.votes.len() > MAX_VOTES {
            self.votes.remove(0);
        }
        self.settle(now)
    }

    /// Returns the verdict at `now`. It becomes unknown again when no vote of the last [`VOTE_LIFE`] supports it.
    pub fn settle(&mut self, now: Duration) -> Reach {
        self.votes.retain(|(_, _, at)| now.saturating_sub(*at) < VOTE_LIFE);
        let (yes, no) = self.votes();
        let proven = |side: usize, other: usize| side >= NEEDED && side >= MAJORITY * other;
        self.reach = match self.reach {
            _ if proven(yes, no) => Reach::Reachable,
            _ if proven(no, yes) => Reach::Unreachable,
            Reach::Reachable if yes == 0 => Reach::Unknown,
            Reach::Unreachable if no == 0 => Reach::Unknown,
            unchanged => unchanged,
        };
        self.reach
    }

    /// Returns the verdict as of the last call of [`Reachability::vote`] or [`Reachability::settle`].
    pub fn reach(&self) -> Reach {
        self.reach
    }

    /// Returns the number of votes that count: peers that could dial us, and peers that could not.
    pub fn votes(&self) -> (usize, usize) {
        let yes = self.votes.iter().filter(|(_, reached, _)| *reached).count();
        (yes, self.votes.len() - yes)
    }
}

/// The setting `mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Setting {
    /// Decided by the dials of other peers.
    #[default]
    Auto,
    /// Always a server.
    Server,
    /// Always a client.
    Client,
}

/// Server or client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Advertises the protocol and takes its streams.
    Server,
    /// Does neither, but sends requests.
    Client,
}

impl Mode {
    /// Returns the name that `stat` shows.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Server => "server",
            Mode::Client => "client",
        }
    }
}

/// Why a node is a server or a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// The operator set the mode.
    Set,
    /// On a private network every node is a server.
    PrivateNetwork,
    /// The operator set addresses at which the node can be reached.
    Announced,
    /// [`Reach::Unknown`], which never makes a node a client.
    Unknown,
    /// [`Reach::Reachable`]
    Reachable,
    /// [`Reach::Unreachable`]
    Unreachable,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Set => "set by `mode`",
            Why::PrivateNetwork => "profile \"private\"",
            Why::Announced => "`announce` or `append_announce` is set",
            Why::Unknown => "not known yet whether other peers can dial this node",
            Why::Reachable => "other peers can dial this node",
            Why::Unreachable => "other peers cannot dial this node",
        })
    }
}

/// Whether a node is a server or a client, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The mode in the WAN DHT.
    pub mode: Mode,
    /// The reason.
    pub why: Why,
}

impl Decision {
    /// Decides the mode. `pinned` is the reason, if there is one, that makes a node set to `auto` a server whatever
    /// other peers say.
    pub fn new(setting: Setting, pinned: Option<Why>, reach: Reach) -> Self {
        let (mode, why) = match (setting, pinned, reach) {
            (Setting::Server, ..) => (Mode::Server, Why::Set),
            (Setting::Client, ..) => (Mode::Client, Why::Set),
            (Setting::Auto, Some(why), _) => (Mode::Server, why),
            (Setting::Auto, None, Reach::Unknown) => (Mode::Server, Why::Unknown),
            (Setting::Auto, None, Reach::Reachable) => (Mode::Server, Why::Reachable),
            (Setting::Auto, None, Reach::Unreachable) => (Mode::Client, Why::Unreachable),
        };
        Self { mode, why }
    }

    /// Returns whether the node advertises and accepts the protocol of `dht`. A node that cannot be dialled from
    /// outside still serves its local network (LAN-1).
    pub fn serves(self, dht: Dht) -> bool {
        self.mode == Mode::Server || (dht == Dht::Lan && self.why != Why::Set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn after(votes: &[(u8, bool)]) -> Reach {
        let mut reachability = Reachability::default();
        votes
            .iter()
            .enumerate()
            .map(|(at, (group, yes))| reachability.vote(*group, *yes, MINUTE * at as u32))
            .last()
            .unwrap()
    }

    #[test]
    fn mode_1_three_independent_peers_decide_and_no_fewer() {
        assert_eq!(after(&[(1, false), (2, false)]), Reach::Unknown);
        assert_eq!(after(&[(1, false), (1, false), (1, false), (1, false)]), Reach::Unknown, "one group, one vote");
        assert_eq!(after(&[(1, false), (2, false), (3, false)]), Reach::Unreachable);
        assert_eq!(after(&[(1, true), (2, true), (3, true)]), Reach::Reachable);
        assert_eq!(after(&[(1, false), (2, false), (3, true), (4, false), (5, true)]), Reach::Unreachable);
        assert_eq!(after(&[(1, false), (2, false), (3, true), (4, true), (5, false)]), Reach::Unknown);
    }

    #[test]
    fn mode_1_a_verdict_stands_until_the_contrary_is_proven_or_it_is_old() {
        let mut reachability = Reachability::default();
        for group in 0..3 {
            reachability.vote(group, false, Duration::ZERO);
        }
        assert_eq!(reachability.vote(3, true, MINUTE), Reach::Unreachable);
        assert_eq!(reachability.vote(4, true, MINUTE), Reach::Unreachable);
        for group in 0..2 {
            reachability.vote(group, true, MINUTE * 2);
        }
        assert_eq!(reachability.votes(), (4, 1));
        assert_eq!(reachability.reach(), Reach::Reachable);
        assert_eq!(reachability.settle(MINUTE + VOTE_LIFE), Reach::Reachable);
        assert_eq!(reachability.settle(MINUTE * 2 + VOTE_LIFE), Reach::Unknown);
    }

    #[test]
    fn mode_1_unknown_is_a_server_and_so_are_private_and_announced_nodes() {
        let decide = Decision::new;
        for reach in [Reach::Unknown, Reach::Reachable, Reach::Unreachable] {
            assert_eq!(decide(Setting::Auto, Some(Why::PrivateNetwork), reach).mode, Mode::Server);
            assert_eq!(decide(Setting::Auto, Some(Why::Announced), reach).mode, Mode::Server);
            assert_eq!(decide(Setting::Server, None, reach).mode, Mode::Server);
            let client = decide(Setting::Client, Some(Why::Announced), reach);
            assert!(Dht::ALL.into_iter().all(|dht| !client.serves(dht)));
        }
        assert_eq!(decide(Setting::Auto, None, Reach::Unknown).mode, Mode::Server);
        let client = decide(Setting::Auto, None, Reach::Unreachable);
        assert_eq!(Dht::ALL.map(|dht| client.serves(dht)), [false, true], "LAN-1: its own network can dial it");
    }

    proptest! {
        #[test]
        fn mode_1_holds_under_any_sequence_of_votes(votes in prop::collection::vec((0u8..12, any::<bool>(), 0u64..1800), 0..200)) {
            let (mut reachability, mut now) = (Reachability::default(), Duration::ZERO);
            let (mut again, mut last) = (Reachability::default(), Reach::Unknown);
            for (group, yes, passed) in votes {
                now += Duration::from_secs(passed);
                let reach = reachability.vote(group, yes, now);
                prop_assert_eq!(reach, again.vote(group, yes, now), "deterministic");
                let (for_us, against) = reachability.votes();
                prop_assert!(for_us + against <= MAX_VOTES);
                // A verdict changes only with a majority of three quarters.
                if reach != last && reach == Reach::Unreachable {
                    prop_assert!(against >= NEEDED && against >= 3 * for_us);
                }
                if reach != last && reach == Reach::Reachable {
                    prop_assert!(for_us >= NEEDED && for_us >= 3 * against);
                }
                // A verdict needs at least one vote for it.
                prop_assert!(reach != Reach::Unreachable || against > 0);
                prop_assert!(reach != Reach::Reachable || for_us > 0);
                last = reach;
            }
            prop_assert_eq!(reachability.settle(now + VOTE_LIFE), Reach::Unknown);
        }
    }
}
