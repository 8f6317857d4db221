//! Look-ups over the network: runs the state machine of [`crate::kad::lookup`].

#[cfg(test)]
mod tests;
pub mod values;

use crate::{
    error::RpcError,
    holdings::Holdings,
    kad::{
        Dht, PeerInfo,
        keyspace::Key,
        lookup::{Goal, Lookup, Next, SEEDS, Settings},
        rules::target_key,
    },
    peers::Peers,
    routing::tables::Tables,
    rpc::{NodeAnswer, ProvidersAnswer, Rpc, ValueAnswer},
    tasks::Tasks,
};
use dhtstore_host::clock::Clock;
use dhtstore_records::{Stores, values::Values};
use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use libp2p::PeerId;
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::sleep};

/// An event of a look-up, for `-v` and for streaming results. The control protocol has its own form of it.
#[derive(Clone, Debug)]
pub enum Event {
    /// A request is sent.
    Asking {
        /// `wan` or `lan`.
        dht: String,
        /// The peer that is asked.
        peer: String,
    },
    /// A peer answered.
    Answered {
        /// `wan` or `lan`.
        dht: String,
        /// The peer that answered.
        peer: String,
        /// Number of closer peers in the answer.
        closer: usize,
        /// Number of providers in the answer.
        providers: usize,
        /// Time until the answer in ms, dial included.
        took_ms: u64,
    },
    /// A peer did not answer, or its answer cannot be used.
    Failed {
        /// `wan` or `lan`.
        dht: String,
        /// The peer that was asked.
        peer: String,
        /// The reason.
        error: String,
    },
    /// A new provider was found.
    Provider {
        /// `wan` or `lan`; `local` if it comes from this node's store.
        dht: String,
        /// The provider.
        provider: String,
        /// Its addresses; may be empty.
        addresses: Vec<String>,
        /// The server that named it.
        from: String,
    },
    /// A server holds a value of the key.
    Value {
        /// `wan` or `lan`.
        dht: String,
        /// The server.
        peer: String,
        /// A description of the value and its rank, or why it is invalid.
        held: String,
    },
    /// A value was sent to a server.
    Put {
        /// `wan` or `lan`.
        dht: String,
        /// The server.
        peer: String,
        /// Why the server did not confirm; `None` if it did.
        error: Option<String>,
    },
}

/// The outcome of a look-up.
#[derive(Clone, Debug)]
pub struct Closest {
    /// The k closest peers that answered, closest first.
    pub peers: Vec<PeerInfo>,
    /// Number of peers asked.
    pub asked: usize,
    /// Length of the longest chain of referrals that led to an answer.
    pub hops: usize,
}

/// A request that a look-up sends to every peer.
#[derive(Clone, Debug)]
enum Question {
    Node(Arc<[u8]>),
    Providers(Arc<[u8]>),
    Value(Arc<[u8]>),
}

/// The answer to one request of a look-up, of any type.
#[derive(Debug, Default)]
struct Answer {
    closer: Vec<PeerInfo>,
    /// The peer that FIND_NODE asked for, if the answer names it.
    sought: Option<PeerInfo>,
    providers: Vec<PeerInfo>,
    value: Option<Vec<u8>>,
}

impl From<ProvidersAnswer> for Answer {
    fn from(ProvidersAnswer { providers, closer }: ProvidersAnswer) -> Self {
        Self { providers, closer, ..Self::default() }
    }
}

impl From<ValueAnswer> for Answer {
    fn from(ValueAnswer { value, closer }: ValueAnswer) -> Self {
        Self { value, closer, ..Self::default() }
    }
}

impl From<NodeAnswer> for Answer {
    fn from(NodeAnswer { sought, closer }: NodeAnswer) -> Self {
        Self { sought, closer, ..Self::default() }
    }
}

/// Receives the events of a look-up. A slow receiver slows the look-up down; a closed one does not.
type Events = Option<mpsc::Sender<Event>>;

/// Makes [`Lookups::drive`] continue without an event.
const GO_ON: (bool, Vec<Event>) = (true, Vec::new());

async fn tell(events: &Events, event: impl FnOnce() -> Event) {
    if let Some(events) = events {
        let _ = events.send(event()).await;
    }
}

/// Runs look-ups.
#[derive(Debug)]
pub(crate) struct Lookups {
    peers: Arc<Peers>,
    tables: Arc<Tables>,
    rpc: Arc<Rpc>,
    holdings: Holdings,
    values: Arc<dyn Values>,
    tasks: Tasks,
    clock: Arc<dyn Clock>,
}

impl Lookups {
    pub(crate) fn new(
        peers: Arc<Peers>,
        tables: Arc<Tables>,
        rpc: Arc<Rpc>,
        stores: &Stores,
        tasks: Tasks,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let holdings = Holdings::new(peers.local, stores);
        Self { peers, tables, rpc, holdings, values: stores.values.clone(), tasks, clock }
    }

    /// Creates a look-up that begins with `seeds` and follows the rules of `dht` (LKP-2).
    fn lookup_from(&self, dht: Dht, target: Key, seeds: Vec<PeerInfo>, goal: Goal) -> Lookup {
        let settings = Settings { ip_diversity: self.tables.ip_diversity(dht), ..Settings::default() };
        Lookup::new(target, self.peers.local, seeds, goal, settings)
    }

    /// Runs a look-up to its end. `each` gets every answer and returns whether to continue, and the events to send.
    async fn drive(
        &self,
        dht: Dht,
        target: Key,
        goal: Goal,
        question: Question,
        events: &Events,
        mut each: impl FnMut(&PeerInfo, &Answer) -> (bool, Vec<Event>) + Send,
    ) -> Lookup {
        let view = self.tables.of(dht).view();
        let seeds = view.closest(&target, SEEDS).into_iter().map(|entry| entry.peer.clone()).collect();
        drop(view);
        let mut lookup = self.lookup_from(dht, target, seeds, goal);
        let mut in_flight = FuturesUnordered::new();
        loop {
            let now = self.clock.monotonic();
            let until = match lookup.next(now) {
                Next::Done => return lookup,
                Next::Ask(peer) => {
                    tell(events, || Event::Asking { dht: dht.name().to_owned(), peer: peer.id.to_string() }).await;
                    let asked = ask(self.rpc.clone(), self.clock.clone(), dht, peer, question.clone());
                    // In a task of its own: a peer that fails after the end of the look-up still gets checked.
                    let asked = self.tasks.spawn(asked);
                    in_flight.push(asked);
                    continue;
                }
                Next::Wait { until } => until,
            };
            let wait = until.map_or(Duration::MAX, |until| until.saturating_sub(now));
            let answered = tokio::select! {
                answered = in_flight.next(), if !in_flight.is_empty() => answered,
                () = sleep(wait) => continue,
            };
            // The task was cancelled: the node is shutting down.
            let Some(Ok(Some((peer, answer, took)))) = answered else { return lookup };
            match answer {
                Ok(answer) => {
                    tell(events, || Event::Answered {
                        dht: dht.name().to_owned(),
                        peer: peer.id.to_string(),
                        closer: answer.closer.len(),
                        providers: answer.providers.len(),
                        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                    })
                    .await;
                    let (go_on, news) = each(&peer, &answer);
                    for event in news {
                        tell(events, || event).await;
                    }
                    if !go_on {
                        lookup.stop();
                    }
                    lookup.answered(&peer.id, answer.closer);
                }
                Err(error) => {
                    tell(events, || Event::Failed {
                        dht: dht.name().to_owned(),
                        peer: peer.id.to_string(),
                        error: error.to_string(),
                    })
                    .await;
                    lookup.failed(&peer.id);
                }
            }
        }
    }

    /// Returns the k servers closest to `target`. All of them have answered.
    pub(crate) async fn closest(&self, dht: Dht, target: &[u8], events: Events) -> Closest {
        let question = Question::Node(target.into());
        let lookup = self.drive(dht, target_key(target), Goal::Closest, question, &events, |_, _| GO_ON).await;
        Closest { peers: lookup.closest(), asked: lookup.asked(), hops: lookup.hops() }
    }

    /// Runs a look-up to fill the routing table. Ends when the [`BETA`](crate::kad::lookup::BETA) closest have
    /// answered.
    pub(crate) async fn search(&self, dht: Dht, target: &[u8]) {
        let question = Question::Node(target.into());
        self.drive(dht, target_key(target), Goal::Search, question, &None, |_, _| GO_ON).await;
    }

    /// Looks up our own key. Returns the number of closest peers that answered.
    pub(crate) async fn look_up_oneself(&self, dht: Dht) -> usize {
        self.closest(dht, &self.peers.local.to_bytes(), None).await.peers.len()
    }

    /// Returns the providers that this node knows; none while the store cannot be read.
    async fn held(&self, multihash: &[u8], limit: usize) -> Vec<PeerInfo> {
        let Ok(held) = self.holdings.of(multihash, limit, rand::random()).await else { return Vec::new() };
        let own = held.own.then(|| {
            let mut addrs: Vec<_> = Dht::ALL.into_iter().flat_map(|dht| self.peers.provider_addresses(dht)).collect();
            addrs.sort();
            addrs.dedup();
            PeerInfo { id: self.peers.local, addrs }
        });
        let others = held.others.into_iter().map(|held| PeerInfo { id: held.peer, addrs: held.addrs.to_vec() });
        own.into_iter().chain(others).take(limit).collect()
    }

    /// See [`crate::Node::find_providers`].
    pub(crate) async fn find_providers(&self, multihash: &[u8], limit: usize, events: Events) -> Vec<PeerInfo> {
        let mut found = Providers { found: Vec::new(), limit };
        for provider in self.held(multihash, limit).await {
            if found.add(&provider) {
                tell(&events, || provider_event("local", &provider, &self.peers.local)).await;
            }
        }
        if found.is_full() {
            return found.found;
        }
        let found = Mutex::new(found);
        let searches = Dht::ALL.into_iter().map(|dht| {
            let (found, events) = (&found, &events);
            async move {
                let question = Question::Providers(multihash.into());
                let each = |from: &PeerInfo, answer: &Answer| {
                    let mut found = found.lock();
                    let new = answer.providers.iter().filter(|provider| found.add(provider));
                    let news = new.map(|provider| provider_event(dht.name(), provider, &from.id)).collect();
                    (!found.is_full(), news)
                };
                // All of the k closest are asked: any of them may hold the record.
                self.drive(dht, Key::for_content(multihash), Goal::Closest, question, events, each).await;
            }
        });
        join_all(searches).await;
        found.into_inner().found
    }

    /// See [`crate::Node::find_peer`].
    pub(crate) async fn find_peer(&self, peer: &PeerId, events: Events) -> Option<PeerInfo> {
        if *peer == self.peers.local {
            return Some(PeerInfo { id: *peer, addrs: self.peers.addresses.of_any().into_iter().collect() });
        }
        let tables = Dht::ALL.map(|dht| self.tables.of(dht).view());
        let in_table = tables.iter().find_map(|table| Some(table.get(peer)?.peer.addrs.clone()));
        let known = in_table.unwrap_or_else(|| self.rpc.known_addresses(peer));
        if !known.is_empty() {
            return Some(PeerInfo { id: *peer, addrs: known });
        }
        let target = peer.to_bytes();
        let found = Mutex::new(None);
        let searches = Dht::ALL.into_iter().map(|dht| {
            let (found, events, target) = (&found, &events, &target);
            async move {
                let each = |_: &PeerInfo, answer: &Answer| {
                    let mut found = found.lock();
                    if let Some(sought) = &answer.sought {
                        found.get_or_insert_with(|| sought.clone());
                    }
                    (found.is_none(), Vec::new())
                };
                let question = Question::Node(target.as_slice().into());
                self.drive(dht, target_key(target), Goal::Search, question, events, each).await;
            }
        });
        join_all(searches).await;
        found.into_inner()
    }
}

async fn ask(
    rpc: Arc<Rpc>,
    clock: Arc<dyn Clock>,
    dht: Dht,
    peer: PeerInfo,
    question: Question,
) -> (PeerInfo, Result<Answer, RpcError>, Duration) {
    let begun = clock.monotonic();
    let answer = match question {
        Question::Node(target) => rpc.find_node(dht, &peer, &target).await.map(Answer::from),
        Question::Providers(multihash) => rpc.get_providers(dht, &peer, &multihash).await.map(Answer::from),
        Question::Value(key) => rpc.get_value(dht, &peer, &key).await.map(Answer::from),
    };
    let took = clock.monotonic().saturating_sub(begun);
    (peer, answer, took)
}

/// The providers found so far, in the order in which they were found.
struct Providers {
    found: Vec<PeerInfo>,
    limit: usize,
}

impl Providers {
    /// Adds a provider and returns whether it is new. A known one without addresses gets those of `provider`.
    fn add(&mut self, provider: &PeerInfo) -> bool {
        if let Some(known) = self.found.iter_mut().find(|known| known.id == provider.id) {
            if known.addrs.is_empty() {
                known.addrs.clone_from(&provider.addrs);
            }
            return false;
        }
        if self.is_full() {
            return false;
        }
        self.found.push(provider.clone());
        true
    }

    fn is_full(&self) -> bool {
        self.found.len() >= self.limit
    }
}

fn provider_event(dht: &str, provider: &PeerInfo, from: &PeerId) -> Event {
    Event::Provider {
        dht: dht.to_owned(),
        provider: provider.id.to_string(),
        addresses: provider.addrs.iter().map(ToString::to_string).collect(),
        from: from.to_string(),
    }
}
