//! Look-ups over the network: drives the pure [`crate::kad::lookup`].

#[cfg(test)]
mod tests;
pub mod values;

use super::{Node, ProvidersAnswer, RpcError, Shared, ValueAnswer, client::NodeAnswer};
use crate::kad::{
    Dht, PeerInfo,
    keyspace::Key,
    lookup::{Goal, Lookup, Next, SEEDS, Settings},
    rules::target_key,
};
use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use libp2p::{Multiaddr, PeerId};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::sleep};

/// What happens during a query, for `-v` and for streaming results.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A request goes out.
    Asking {
        /// `wan` or `lan`.
        dht: String,
        /// Whom.
        peer: String,
    },
    /// An answer came.
    Answered {
        /// `wan` or `lan`.
        dht: String,
        /// Whose.
        peer: String,
        /// Closer peers it named.
        closer: usize,
        /// Providers it named.
        providers: usize,
        /// Dial included, in ms.
        took_ms: u64,
    },
    /// No answer, or none that can be used.
    Failed {
        /// `wan` or `lan`.
        dht: String,
        /// Whose.
        peer: String,
        /// Why.
        error: String,
    },
    /// A provider that was not known before.
    Provider {
        /// `wan` or `lan`; `local` for the own store.
        dht: String,
        /// The provider.
        provider: String,
        /// Where it can be dialled; may be empty.
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
        /// What it is and how it compares, or why it is refused.
        held: String,
    },
    /// A value was sent to a server.
    Put {
        /// `wan` or `lan`.
        dht: String,
        /// The server.
        peer: String,
        /// Why it did not confirm; `None` if it did.
        error: Option<String>,
    },
}

/// Outcome of a look-up.
#[derive(Clone, Debug)]
pub struct Closest {
    /// The k closest that answered, closest first.
    pub peers: Vec<PeerInfo>,
    /// Peers asked.
    pub asked: usize,
    /// Longest chain of referrals that led to an answer.
    pub hops: usize,
}

/// What one request of a look-up asks for.
#[derive(Clone, Debug)]
enum Question {
    Node(Arc<[u8]>),
    Providers(Arc<[u8]>),
    Value(Arc<[u8]>),
}

/// What one request of a look-up brought, whatever it asked for.
#[derive(Debug, Default)]
struct Answer {
    closer: Vec<PeerInfo>,
    /// The peer that FIND_NODE asked for.
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

/// Where events go. A slow reader slows its query down, one that is gone does not.
type Events = Option<mpsc::Sender<Event>>;

/// What `each` of [`Shared::drive`] says to an answer that is of no interest by itself.
const GO_ON: (bool, Vec<Event>) = (true, Vec::new());

async fn tell(events: &Events, event: impl FnOnce() -> Event) {
    if let Some(events) = events {
        let _ = events.send(event()).await;
    }
}

impl Shared {
    /// A look-up that begins with `seeds`, by the rules of `dht` (LKP-2).
    fn lookup_from(&self, dht: Dht, target: Key, seeds: Vec<PeerInfo>, goal: Goal) -> Lookup {
        let settings = Settings { ip_diversity: self.ip_diversity(dht), ..Settings::default() };
        Lookup::new(target, self.local, seeds, goal, settings)
    }

    /// Runs a look-up to its end. `each` sees every answer, says whether to go on, and what is to be told.
    async fn drive(
        self: &Arc<Self>,
        dht: Dht,
        target: Key,
        goal: Goal,
        question: Question,
        events: &Events,
        mut each: impl FnMut(&PeerInfo, &Answer) -> (bool, Vec<Event>) + Send,
    ) -> Lookup {
        let view = self.routing.of(dht).view();
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
                    let (shared, question) = (self.clone(), question.clone());
                    // A task of its own: what a mute peer does after the look-up still counts against it.
                    let asked = self.spawn(async move { shared.ask(dht, peer, question).await });
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
            // A task that did not come to its end: the node is shutting down.
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

    async fn ask(
        self: Arc<Self>,
        dht: Dht,
        peer: PeerInfo,
        question: Question,
    ) -> (PeerInfo, Result<Answer, RpcError>, Duration) {
        let begun = self.clock.monotonic();
        let answer = match question {
            Question::Node(target) => self.find_node(dht, &peer, &target).await.map(Answer::from),
            Question::Providers(multihash) => self.get_providers(dht, &peer, &multihash).await.map(Answer::from),
            Question::Value(key) => self.get_value(dht, &peer, &key).await.map(Answer::from),
        };
        let took = self.clock.monotonic().saturating_sub(begun);
        (peer, answer, took)
    }

    /// The k closest servers to `target`; asks on until they have answered.
    pub(crate) async fn closest(self: &Arc<Self>, dht: Dht, target: &[u8], events: Events) -> Closest {
        let question = Question::Node(target.into());
        let lookup = self.drive(dht, target_key(target), Goal::Closest, question, &events, |_, _| GO_ON).await;
        Closest { peers: lookup.closest(), asked: lookup.asked(), hops: lookup.hops() }
    }

    /// A look-up for the sake of the routing table: ends when the few closest have answered.
    pub(crate) async fn search(self: &Arc<Self>, dht: Dht, target: &[u8]) {
        let question = Question::Node(target.into());
        self.drive(dht, target_key(target), Goal::Search, question, &None, |_, _| GO_ON).await;
    }

    /// What we hold ourselves.
    async fn local_providers(&self, multihash: &[u8], limit: usize) -> Vec<PeerInfo> {
        let mut providers = Vec::new();
        if self.store.provided.contains(multihash) {
            let addrs: Vec<Multiaddr> = Dht::ALL.into_iter().flat_map(|dht| self.provider_addresses(dht)).collect();
            let mut distinct: Vec<Multiaddr> = Vec::new();
            distinct.extend(addrs);
            distinct.sort();
            distinct.dedup();
            providers.push(PeerInfo { id: self.local, addrs: distinct });
        }
        let records = self.store.records.providers(multihash, limit, rand::random()).await;
        let others = records.into_iter().filter(|record| record.peer != self.local);
        providers.extend(others.map(|record| PeerInfo { id: record.peer, addrs: record.addrs.to_vec() }));
        providers.truncate(limit);
        providers
    }
}

/// Providers found so far, in the order found.
struct Found {
    providers: Vec<PeerInfo>,
    limit: usize,
}

impl Found {
    /// True if the provider is new. Addresses are taken over where there were none.
    fn add(&mut self, provider: &PeerInfo) -> bool {
        if let Some(known) = self.providers.iter_mut().find(|known| known.id == provider.id) {
            if known.addrs.is_empty() {
                known.addrs.clone_from(&provider.addrs);
            }
            return false;
        }
        if self.is_full() {
            return false;
        }
        self.providers.push(provider.clone());
        true
    }

    fn is_full(&self) -> bool {
        self.providers.len() >= self.limit
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

impl Node {
    /// The k closest servers to `target` (a multihash, a binary peer id, a preimage) in `dht`; asks on until they
    /// have answered.
    pub async fn closest_peers(&self, dht: Dht, target: &[u8], events: Option<mpsc::Sender<Event>>) -> Closest {
        self.shared.closest(dht, target, events).await
    }

    /// Providers of `multihash`, local store first, then every DHT with peers at once; distinct, until `limit` or
    /// the end. Some may have no addresses.
    pub async fn find_providers(
        &self,
        multihash: &[u8],
        limit: usize,
        events: Option<mpsc::Sender<Event>>,
    ) -> Vec<PeerInfo> {
        let shared = &self.shared;
        let mut found = Found { providers: Vec::new(), limit };
        for provider in shared.local_providers(multihash, limit).await {
            if found.add(&provider) {
                tell(&events, || provider_event("local", &provider, &shared.local)).await;
            }
        }
        if found.is_full() {
            return found.providers;
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
                // All of the closest: the record may be with any of them.
                shared.drive(dht, Key::for_content(multihash), Goal::Closest, question, events, each).await;
            }
        });
        join_all(searches).await;
        found.into_inner().providers
    }

    /// Addresses of a peer: from our own books, or from a look-up in every DHT. `None` if nobody knows any.
    pub async fn find_peer(&self, peer: &PeerId, events: Option<mpsc::Sender<Event>>) -> Option<PeerInfo> {
        let shared = &self.shared;
        if *peer == shared.local {
            return Some(PeerInfo { id: *peer, addrs: shared.addresses.of_any().into_iter().collect() });
        }
        let tables = Dht::ALL.map(|dht| shared.routing.of(dht).view());
        let in_table = tables.iter().find_map(|table| Some(table.get(peer)?.peer.addrs.clone()));
        let known = in_table.unwrap_or_else(|| shared.known_addresses(peer));
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
                shared.drive(dht, target_key(target), Goal::Search, question, events, each).await;
            }
        });
        join_all(searches).await;
        found.into_inner()
    }
}
