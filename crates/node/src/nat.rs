//! AutoNAT: asks other peers whether they can dial us, and sets the mode by their answers (MODE-1). Other peers can ask
//! us too ([`guard`]).
//!
//! The client half is our own. libp2p's v1 client asks every connected peer, even those that dialled us and those that
//! do not speak AutoNAT, and believes any address that an answer names. Its v2 client collects candidates without bound
//! and never tests one again. Ours asks only peers that *we* dialled, one of each IP group, at their public addresses.

pub(super) mod guard;
mod observed;
mod probe;
#[cfg(test)]
mod tests;
mod wire;

pub(crate) use probe::Nonces;

use crate::{
    dialer::Command,
    framing::Budget,
    kad::{
        Dht,
        mode::{Decision, Mode, Reach, Reachability, Setting, Why},
        scope::{self, IpGroup, IpGroups, Profile},
    },
    metrics::Metrics,
    peers::{Peers, addresses::is_loopback, contacts::Witness},
    routing::upkeep::Upkeep,
    settings::Settings,
    tasks::Tasks,
};
use dhtstore_host::clock::Clock;
use futures::{StreamExt, stream};
use libp2p::Multiaddr;
use observed::{MAX_CANDIDATES, Observed};
use rand::seq::SliceRandom;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};
use wire::Said;

/// Servers asked at a time: as many as a verdict needs.
const AT_ONCE: usize = 3;

/// Addresses about which one v2 server is asked in a row. go lets a peer ask 12 times a minute.
const ADDRESSES_AT_ONE: usize = 4;

/// Minimum time between two requests to the same group.
const ASK_AGAIN: Duration = Duration::from_secs(10 * 60);

/// Minimum time between two rounds of requests while there is a verdict. go's interval is 15 minutes; this one is well
/// within the life of a vote.
const ROUND: Duration = Duration::from_secs(5 * 60);

/// Time between two looks for peers to ask, unless a new peer is identified earlier.
const LOOK: Duration = Duration::from_secs(15);

/// Pause after a new peer is identified. Peers come in bursts, and one look serves the whole burst.
const SETTLE: Duration = Duration::from_millis(200);

/// Groups remembered as asked: enough for hours of asking.
const MAX_ASKED: usize = 256;

/// Asks other peers whether this node can be dialled, and makes it a server or a client accordingly.
#[derive(Debug)]
pub(crate) struct Nat {
    pub(crate) peers: Arc<Peers>,
    /// Keeps a client findable.
    pub(crate) upkeep: Arc<Upkeep>,
    pub(crate) mode: watch::Sender<Decision>,
    pub(crate) setting: Setting,
    /// See [`pinned`].
    pub(crate) pinned: Option<Why>,
    pub(crate) ip_groups: IpGroups,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) budget: Budget,
    pub(crate) tasks: Tasks,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    /// Notified when a peer is identified.
    pub(crate) wake: Notify,
    pub(crate) nonces: Nonces,
}

/// Returns the mode of a node before any peer was asked.
pub(crate) fn first_decision(settings: &Settings) -> Decision {
    Decision::new(settings.mode, pinned(settings), Reach::Unknown)
}

/// Returns why this node is a server whatever other peers answer; `None` if their answers decide.
pub(crate) fn pinned(settings: &Settings) -> Option<Why> {
    if settings.profile == Profile::Private {
        Some(Why::PrivateNetwork)
    } else if !(settings.announce.is_empty() && settings.append_announce.is_empty()) {
        Some(Why::Announced)
    } else {
        None
    }
}

/// Returns whether other peers are asked: only where their answers decide the mode.
pub(crate) fn asks(settings: &Settings) -> bool {
    pinned(settings).is_none() && settings.mode != Setting::Client
}

/// The state of the task that asks.
#[derive(Debug, Default)]
struct Asker {
    node: Reachability<IpGroup>,
    /// One entry for each address that might be public; at most [`MAX_CANDIDATES`].
    by_address: BTreeMap<Multiaddr, Reachability<IpGroup>>,
    observed: Observed,
    /// At most [`MAX_ASKED`].
    asked: Vec<(IpGroup, Duration)>,
    last_round: Option<Duration>,
}

/// The answers of one server.
struct Heard {
    group: IpGroup,
    /// The answer for each address. Empty for v1.
    addresses: Vec<(Multiaddr, Said)>,
    node: Said,
}

impl Nat {
    /// Runs until the node stops.
    pub(crate) async fn keep_asking(self: Arc<Self>) {
        let mut asker = Asker::default();
        loop {
            // Continues after a notification or a time-out.
            let _ = timeout(LOOK, self.wake.notified()).await;
            sleep(SETTLE).await;
            self.ask_round(&mut asker).await;
            let now = self.clock.monotonic();
            let reach = asker.node.settle(now);
            self.set_mode(Decision::new(self.setting, self.pinned, reach), asker.node.votes());
            let mut confirmed = Vec::new();
            for (addr, reachability) in &mut asker.by_address {
                if reachability.settle(now) == Reach::Reachable {
                    confirmed.push(addr.clone());
                }
            }
            if self.peers.addresses.confirm(confirmed) {
                let _ = self.commands.send(Command::Announce).await;
            }
        }
    }

    /// Returns the mode in the WAN DHT, and the reason.
    pub(crate) fn decision(&self) -> Decision {
        *self.mode.borrow()
    }

    async fn ask_round(&self, asker: &mut Asker) {
        let now = self.clock.monotonic();
        let listeners = self.peers.addresses.listeners();
        // If all listeners are on loopback, the network is one machine, and loopback addresses count as public.
        let one_machine = listeners.iter().all(is_loopback);
        let counts = |addr: &Multiaddr| match scope::reach(addr) {
            Some(scope::Reach::Public) => true,
            Some(scope::Reach::Loopback) => one_machine,
            _ => false,
        };
        let mut witnesses = Vec::new();
        for witness in self.peers.contacts.witnesses() {
            let Some(group) = self.ip_groups.of(&witness.address).filter(|_| counts(&witness.address)) else {
                continue;
            };
            if let Some(seen) = &witness.observed {
                asker.observed.note(group, seen, now);
            }
            witnesses.push((group, witness));
        }
        let candidates = asker.observed.candidates(&listeners, counts);
        asker.by_address.retain(|addr, _| candidates.contains(addr));
        let chosen = asker.choose(witnesses, now);
        if chosen.is_empty() || listeners.is_empty() {
            return;
        }
        asker.last_round = Some(now);
        let heard: Vec<Heard> = stream::iter(chosen)
            .map(|(group, witness)| self.ask_one(group, witness, &listeners, &candidates))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let now = self.clock.monotonic();
        for Heard { group, addresses, node } in heard {
            for (addr, said) in addresses {
                if said != Said::Nothing {
                    asker.by_address.entry(addr).or_default().vote(group, said == Said::Reached, now);
                }
            }
            debug_assert!(asker.by_address.len() <= MAX_CANDIDATES);
            match node {
                Said::Nothing => {}
                said => {
                    let reached = said == Said::Reached;
                    if reached {
                        self.metrics.reached_back.inc()
                    } else {
                        self.metrics.not_reached_back.inc()
                    }
                    asker.node.vote(group, reached, now);
                }
            }
        }
    }

    async fn ask_one(
        &self,
        group: IpGroup,
        witness: Witness,
        listeners: &[Multiaddr],
        candidates: &[Multiaddr],
    ) -> Heard {
        let Witness { peer, connection, v1, v2, .. } = witness;
        let mut heard = Heard { group, addresses: Vec::new(), node: Said::Nothing };
        if v2 {
            for addr in candidates.iter().take(ADDRESSES_AT_ONE) {
                match self.ask_v2(peer, connection, addr).await {
                    Ok(said) => heard.addresses.push((addr.clone(), said)),
                    Err(error) => {
                        debug!(%peer, %addr, %error, "asked to be dialled back");
                        break;
                    }
                }
            }
            let said = |wanted| heard.addresses.iter().any(|(_, said)| *said == wanted);
            heard.node = match (said(Said::Reached), said(Said::NotReached)) {
                (true, _) => Said::Reached,
                (false, true) => Said::NotReached,
                (false, false) => Said::Nothing,
            };
        }
        if v1 && heard.node == Said::Nothing {
            let addrs: Vec<Multiaddr> = candidates.iter().chain(listeners).cloned().collect();
            match self.ask_v1(peer, connection, &addrs).await {
                Ok(said) => heard.node = said,
                Err(error) => debug!(%peer, %error, "asked to be dialled back"),
            }
        }
        debug!(%peer, node = ?heard.node, addresses = ?heard.addresses, "asked to be dialled back");
        heard
    }

    pub(super) fn set_mode(&self, decision: Decision, (could, could_not): (usize, usize)) {
        let before = *self.mode.borrow();
        if before == decision {
            return;
        }
        self.mode.send_replace(decision);
        if before.mode == decision.mode {
            return info!(mode = ?decision.mode, why = %decision.why, could, could_not, "reachability");
        }
        self.metrics.mode_changes.inc();
        match decision.mode {
            Mode::Client => {
                warn!(
                    could,
                    could_not,
                    "client mode: other peers cannot dial this node, so it no longer serves the public DHT; look-ups \
                     and announcements still work; forward its port (4001 unless set otherwise, TCP and UDP) to this \
                     machine and open it in the firewall, or set `announce` to the address where peers can reach it"
                );
                // CLI-1: from now on other peers find us through the peers that are connected to us.
                let upkeep = self.upkeep.clone();
                self.tasks.spawn(async move { upkeep.stay_findable(Dht::Wan).await });
            }
            Mode::Server => {
                info!(why = %decision.why, could, could_not, "server mode");
                self.peers.connections.keep(HashSet::new());
            }
        }
    }
}

impl Asker {
    /// Returns the peers to ask now, one of each group; none while the verdict is fresh.
    fn choose(&mut self, mut witnesses: Vec<(IpGroup, Witness)>, now: Duration) -> Vec<(IpGroup, Witness)> {
        let since = |at: Duration| now.saturating_sub(at);
        self.asked.retain(|(_, at)| since(*at) < ASK_AGAIN);
        if self.node.reach() != Reach::Unknown && self.last_round.is_some_and(|at| since(at) < ROUND) {
            return Vec::new();
        }
        // At random, so that no peer can arrange to be asked.
        witnesses.shuffle(&mut rand::rng());
        let mut chosen: Vec<(IpGroup, Witness)> = Vec::new();
        for (group, witness) in witnesses {
            let asked = self.asked.iter().any(|(other, _)| *other == group);
            if asked || chosen.len() == AT_ONCE || self.asked.len() == MAX_ASKED {
                continue;
            }
            self.asked.push((group, now));
            chosen.push((group, witness));
        }
        chosen
    }
}
