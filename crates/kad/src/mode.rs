//! Server or client (MODE-1): what other peers say of our reachability, and what follows from it.
//!
//! Others vote, one vote for each independent group of them. A majority of three quarters among at least [`NEEDED`]
//! changes the verdict; anything less leaves it as it is, so that single liars and single failures change nothing.

use super::Dht;
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// Votes on one side that a verdict takes: as many as go's AutoNAT wants in a row.
pub const NEEDED: usize = 3;

/// One vote against outweighs so many in favour.
const MAJORITY: usize = 3;

/// Votes that count, the newest: few, so that a change is believed after two rounds of asking.
pub const MAX_VOTES: usize = 8;

/// How long a vote counts: longer than several rounds of asking, short enough to forget another network.
pub const VOTE_LIFE: Duration = Duration::from_secs(3600);

/// Whether others can dial us.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reach {
    /// Not proven either way.
    #[default]
    Unknown,
    /// Proven by several.
    Reachable,
    /// Several tried and could not.
    Unreachable,
}

/// Collects votes. `G` names a group of peers that are not independent of each other.
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
    /// Somebody of `group` tried to dial us at the monotonic time `now`. The verdict after it.
    pub fn vote(&mut self, group: G, reached: bool, now: Duration) -> Reach {
        self.votes.retain(|(other, ..)| *other != group);
        self.votes.push((group, reached, now));
        if self.votes.len() > MAX_VOTES {
            self.votes.remove(0);
        }
        self.settle(now)
    }

    /// The verdict at `now`: unknown again once nobody who supports it has been heard for [`VOTE_LIFE`].
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

    /// The verdict as last settled.
    pub fn reach(&self) -> Reach {
        self.reach
    }

    /// Votes that count: how many could dial us, how many could not.
    pub fn votes(&self) -> (usize, usize) {
        let yes = self.votes.iter().filter(|(_, reached, _)| *reached).count();
        (yes, self.votes.len() - yes)
    }
}

/// The setting `mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Setting {
    /// As other peers' dials show.
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
    /// Does neither, and asks all the same.
    Client,
}

impl Mode {
    /// As `stat` shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Server => "server",
            Mode::Client => "client",
        }
    }
}

/// Why a node is what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// The operator says so.
    Set,
    /// On a network of one's own everybody serves.
    PrivateNetwork,
    /// The operator names addresses at which it is reached.
    Announced,
    /// [`Reach::Unknown`], which never makes a client.
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
            Why::Unknown => "no peer has told yet whether it can dial this node",
            Why::Reachable => "other peers can dial this node",
            Why::Unreachable => "other peers cannot dial this node",
        })
    }
}

/// Server or client, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// What the node is in the WAN DHT.
    pub mode: Mode,
    /// Why.
    pub why: Why,
}

impl Decision {
    /// `pinned` is why an `auto` node is a server whatever others say, if it is.
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

    /// Whether the protocol of `dht` is advertised and taken. Who cannot be dialled from outside still serves its local
    /// network (LAN-1).
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
                // One vote never turns a verdict into its contrary without a majority of three quarters.
                if reach != last && reach == Reach::Unreachable {
                    prop_assert!(against >= NEEDED && against >= 3 * for_us);
                }
                if reach != last && reach == Reach::Reachable {
                    prop_assert!(for_us >= NEEDED && for_us >= 3 * against);
                }
                // Whoever says the contrary of all others cannot be alone in it.
                prop_assert!(reach != Reach::Unreachable || against > 0);
                prop_assert!(reach != Reach::Reachable || for_us > 0);
                last = reach;
            }
            prop_assert_eq!(reachability.settle(now + VOTE_LIFE), Reach::Unknown);
        }
    }
}
