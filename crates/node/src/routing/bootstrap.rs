//! The bootstrap list. The whole list is asked at start, in addition to the saved peers; later one entry is asked at
//! each refresh. So the node joins the network that the operator names even if it already knows another one, and two
//! halves of a split network find each other again.

use super::{admission::Admission, tables::Tables};
use crate::{
    dialer::Dialer,
    error::RpcError,
    kad::{Dht, PeerInfo},
    lookup::Lookups,
    peers::Peers,
    protocols,
    rpc::Rpc,
    tasks::Tasks,
};
use dhtstore_host::clock::Clock;
use futures::{StreamExt, stream};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use parking_lot::{Mutex, MutexGuard};
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;
use tracing::{info, warn};

/// Entries dialled at a time.
const AT_ONCE: usize = 32;

/// How many times to check whether a dialled peer's identify message has arrived, and the pause between two checks.
const INTRODUCTION: (u32, Duration) = (50, Duration::from_millis(100));

/// Longest pause between two requests to one entry, in refreshes. The pause starts at one and doubles, whether the
/// entry answers or not; it starts at one again when its answer changes. All nodes ask the same few peers, so the pause
/// spares them. With the default interval this is 40 minutes: two sites that were cut off from each other may take that
/// long to meet again.
const MAX_PAUSE: u32 = 4;

/// The bootstrap list with the state of each peer.
#[derive(Debug)]
pub(crate) struct List(Mutex<Vec<Entry>>);

#[derive(Clone, Debug)]
struct Entry {
    peer: Option<PeerId>,
    /// As configured.
    addrs: Vec<Multiaddr>,
    state: State,
    /// Monotonic time before which the entry is not asked again.
    next: Duration,
    /// The pause after the next request, in refreshes.
    pause: u32,
}

#[derive(Clone, Debug)]
enum State {
    Untried,
    Answers,
    Fails(RpcError),
    /// The entry is this node itself.
    Own,
}

/// The state of a peer of the bootstrap list, for `stat` and `diagnose`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BootstrapPeer {
    /// Its addresses as configured.
    pub addresses: Vec<String>,
    /// Whether it answered when it was last asked; `None` if it was not asked yet.
    pub answers: Option<bool>,
    /// Why it did not answer.
    pub error: Option<String>,
}

impl Entry {
    fn is_own(&self) -> bool {
        matches!(self.state, State::Own)
    }
}

impl List {
    pub(crate) fn new(list: &[Multiaddr], own: &PeerId) -> Self {
        let entry = |(peer, addrs)| {
            let state = if peer == Some(*own) { State::Own } else { State::Untried };
            Entry { peer, addrs, state, next: Duration::ZERO, pause: 1 }
        };
        Self(Mutex::new(by_peer(list).into_iter().map(entry).collect()))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock()
    }

    /// Returns the indexes of the entries that are due and for which `wanted` holds.
    fn due(&self, now: Duration, wanted: impl Fn(&Option<PeerId>) -> bool) -> Vec<usize> {
        let entries = self.lock();
        let due = |entry: &Entry| !entry.is_own() && entry.next <= now && wanted(&entry.peer);
        entries.iter().enumerate().filter(|(_, entry)| due(entry)).map(|(index, _)| index).collect()
    }

    fn get(&self, index: usize) -> Option<(Option<PeerId>, Vec<Multiaddr>)> {
        self.lock().get(index).map(|entry| (entry.peer, entry.addrs.clone()))
    }

    /// Records the outcome of asking an entry. Logs one line whenever the state changes.
    fn note(&self, index: usize, outcome: Result<PeerId, RpcError>, now: Duration, refresh: Duration) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(index) else { return };
        let state = match outcome {
            Ok(_) => State::Answers,
            // These say nothing about the peer.
            Err(RpcError::Busy(_) | RpcError::Stopped) => return,
            Err(RpcError::Own) => State::Own,
            Err(error) => State::Fails(error),
        };
        if matches!((&entry.state, &state), (State::Answers, State::Fails(_)) | (State::Fails(_), State::Answers)) {
            entry.pause = 1;
        }
        match (&entry.state, &state) {
            (State::Fails(_), State::Answers) => info!(address = %entry.addrs[0], "a bootstrap peer answers again"),
            (State::Untried | State::Answers, State::Fails(error)) => warn!(
                address = %entry.addrs[0],
                %error,
                "a bootstrap peer cannot be used; it is tried again at intervals; `dhtstore stat` shows all of them"
            ),
            _ => {}
        }
        entry.state = state;
        entry.next = now + refresh * entry.pause;
        entry.pause = (entry.pause * 2).min(MAX_PAUSE);
    }

    /// Returns the state of each peer, without this node itself.
    pub(crate) fn status(&self) -> Vec<BootstrapPeer> {
        let entries = self.lock();
        let others = entries.iter().filter(|entry| !entry.is_own());
        let status = |entry: &Entry| BootstrapPeer {
            addresses: entry.addrs.iter().map(ToString::to_string).collect(),
            answers: match entry.state {
                State::Untried | State::Own => None,
                State::Answers => Some(true),
                State::Fails(_) => Some(false),
            },
            error: match &entry.state {
                State::Fails(error) => Some(error.to_string()),
                _ => None,
            },
        };
        others.map(status).collect()
    }
}

/// Joins the network through the peers of the list.
#[derive(Debug)]
pub(crate) struct Bootstrap {
    pub(crate) list: List,
    pub(crate) peers: Arc<Peers>,
    pub(crate) tables: Arc<Tables>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) rpc: Arc<Rpc>,
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) lookups: Arc<Lookups>,
    pub(crate) tasks: Tasks,
    pub(crate) clock: Arc<dyn Clock>,
    /// Interval of refreshing the tables.
    pub(crate) refresh: Duration,
}

impl Bootstrap {
    /// Asks the whole list. Called at start, and while all tables are empty.
    pub(super) async fn ask_all(&self) {
        let all = self.list.due(Duration::MAX, |_| true);
        stream::iter(all).for_each_concurrent(AT_ONCE, |index| self.ask(index)).await;
    }

    /// Starts to ask one entry of the list, chosen at random among those that are due and neither connected nor in a
    /// table. Waits up to a tenth of the refresh interval first, because all nodes of a network may have been started
    /// at the same time.
    pub(super) fn ask_one(self: &Arc<Self>) {
        let known = |peer: &PeerId| {
            self.peers.connections.is_connected(peer) || Dht::ALL.iter().any(|dht| self.tables.of(*dht).contains(peer))
        };
        let due = self.list.due(self.clock.monotonic(), |peer| !peer.as_ref().is_some_and(known));
        let Some(&index) = due.choose(&mut rand::rng()) else { return };
        let bootstrap = self.clone();
        let pause = self.refresh.mul_f64(rand::random::<f64>() / 10.0);
        self.tasks.spawn(async move {
            sleep(pause).await;
            bootstrap.ask(index).await;
        });
    }

    async fn ask(&self, index: usize) {
        let Some((peer, addrs)) = self.list.get(index) else { return };
        let outcome = self.join_through(peer, addrs).await;
        self.list.note(index, outcome, self.clock.monotonic(), self.refresh);
    }

    /// Connects to a peer and joins its network: the peers that it names as closest to this node become candidates, and
    /// a look-up of our own key finds the rest.
    async fn join_through(&self, peer: Option<PeerId>, addrs: Vec<Multiaddr>) -> Result<PeerId, RpcError> {
        let id = self.dialer.dial(peer, addrs.clone()).await?;
        let serves = self.introduced(&id).await;
        let mut failure = Some(RpcError::Protocol("the DHT; the connection works, but it is not a DHT server"));
        for dht in serves {
            match self.enter_through(dht, id).await {
                Ok(()) => failure = None,
                Err(error) => failure = failure.map(|_| error),
            }
        }
        failure.map_or(Ok(id), Err)
    }

    /// Asks a connected server for the peers closest to this node, and probes them.
    async fn enter_through(&self, dht: Dht, id: PeerId) -> Result<(), RpcError> {
        let peer = PeerInfo { id, addrs: self.rpc.known_addresses(&id) };
        let answer = self.rpc.find_node(dht, &peer, &self.peers.local.to_bytes()).await?;
        // The peers that it names count even if it finds no place in the table itself.
        let unknown = answer.closer.into_iter().filter(|peer| !self.tables.of(dht).contains(&peer.id));
        let entered = stream::iter(unknown)
            .map(|peer| async move { self.admission.try_candidate(dht, &peer).await })
            .buffer_unordered(AT_ONCE)
            .filter(|entered| std::future::ready(*entered))
            .count()
            .await;
        if entered > 0 {
            self.lookups.look_up_oneself(dht).await;
        }
        Ok(())
    }

    /// Returns the DHTs that a connected peer serves. Waits for its identify message.
    async fn introduced(&self, peer: &PeerId) -> Vec<Dht> {
        let (tries, pause) = INTRODUCTION;
        for _ in 0..tries {
            if let Some(protocols) = self.peers.contacts.protocols(peer).filter(|protocols| !protocols.is_empty()) {
                return Dht::ALL.into_iter().filter(|dht| protocols.contains(&protocols::of(*dht))).collect();
            }
            sleep(pause).await;
        }
        Vec::new()
    }
}

/// Groups addresses by peer. An address without `/p2p/…` is a group of its own.
fn by_peer(addrs: &[Multiaddr]) -> Vec<(Option<PeerId>, Vec<Multiaddr>)> {
    let mut peers: Vec<(Option<PeerId>, Vec<Multiaddr>)> = Vec::new();
    for addr in addrs {
        let peer = match addr.iter().last() {
            Some(Protocol::P2p(peer)) => Some(peer),
            _ => None,
        };
        match peers.iter_mut().find(|(other, _)| peer.is_some() && *other == peer) {
            Some((_, addrs)) => addrs.push(addr.clone()),
            None => peers.push((peer, vec![addr.clone()])),
        }
    }
    peers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_bootstrap_peer_are_tried_together() {
        let (a, b) = (PeerId::random(), PeerId::random());
        let list: Vec<Multiaddr> = [
            format!("/ip4/192.0.2.1/tcp/1/p2p/{a}"),
            format!("/ip4/192.0.2.2/tcp/1/p2p/{b}"),
            format!("/ip4/192.0.2.1/udp/1/quic-v1/p2p/{a}"),
            "/ip4/192.0.2.3/tcp/1".to_owned(),
            "/ip4/192.0.2.4/tcp/1".to_owned(),
        ]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
        let peers = by_peer(&list);
        assert_eq!(peers.len(), 4);
        assert_eq!(peers[0], (Some(a), vec![list[0].clone(), list[2].clone()]));
        assert_eq!(peers[3], (None, vec![list[4].clone()]));
    }

    #[test]
    fn an_entry_is_asked_less_and_less_often_whether_it_answers_or_not_and_this_node_never() {
        let (own, other) = (PeerId::random(), PeerId::random());
        let list = [own, other].map(|peer| format!("/ip4/192.0.2.1/tcp/1/p2p/{peer}").parse().unwrap());
        let bootstrap = List::new(&list, &own);
        let refresh = Duration::from_secs(600);
        let mut now = Duration::ZERO;
        let fails = || Err(RpcError::dial("refused"));
        for (answers, refreshes) in [
            (true, 1),
            (true, 2),
            (true, 4),
            (true, 4),
            (false, 1),
            (false, 2),
            (false, 4),
            (false, 4),
            (true, 1),
            (false, 1),
        ] {
            assert_eq!(bootstrap.due(now, |_| true), [1]);
            assert!(bootstrap.due(now, |_| false).is_empty());
            bootstrap.note(1, if answers { Ok(other) } else { fails() }, now, refresh);
            assert!(bootstrap.due(now + refresh * refreshes - Duration::from_secs(1), |_| true).is_empty());
            now += refresh * refreshes;
        }
        let [status] = bootstrap.status().try_into().unwrap();
        assert_eq!((status.answers, status.error.as_deref()), (Some(false), Some("cannot be dialled: refused")));
    }
}
