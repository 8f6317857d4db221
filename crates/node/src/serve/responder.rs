//! Turns a request into its answer: applies the pure rules of [`crate::kad::rules`] to the store, the tables and the
//! known peers. It has no swarm, no socket and no clock of its own.

use crate::{
    holdings::Holdings,
    kad::{
        Dht, PeerInfo,
        message::{self, DecodeError, EncodedPeer, Message},
        rules::{self, Refusal, Request},
        scope::AddressScope,
        table::K,
        useful::{is_arranged, most_useful},
    },
    metrics::Metrics,
    peers::Peers,
    routing::tables::Tables,
};
use bytes::Bytes;
use dhtstore_host::clock::Clock;
use dhtstore_records::{NotNow, Stores, providers, values};
use libp2p::{Multiaddr, PeerId};
use std::sync::Arc;

/// Most providers looked up. More do not fit into an answer: one without addresses takes some 45 bytes.
const MAX_PROVIDERS: usize = 16 * K;

/// Longest provider entry that is kept per stream. Honest ones have 150 to 800 bytes, and it is kept while the stream
/// is idle.
const MAX_KEPT_ENTRY: usize = 1024;

/// The provider entry that the sender last sent on a stream.
#[derive(Debug)]
pub(crate) struct Announced {
    /// The body of the entry.
    entry: Vec<u8>,
    /// The decoded entry, with those addresses that belong to the stream's DHT; at least one.
    provider: PeerInfo,
}

impl Announced {
    /// Keeps the entry of a message if it is the only one and short. Otherwise the next request must be decoded in
    /// full.
    fn of(message: &Message<'_>, provider: PeerInfo) -> Option<Self> {
        let mut entries = message.provider_peers();
        let entry = entries.next().filter(|entry| entry.as_bytes().len() <= MAX_KEPT_ENTRY)?;
        entries.next().is_none().then(|| Self { entry: entry.as_bytes().to_vec(), provider })
    }
}

/// Why a request gets no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// The message does not decode.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// The protocol refuses the request.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// The store refuses the announcement.
    #[error("cannot store the announcement: {0}")]
    Announcement(#[from] providers::Refused),
    /// The store refuses the value.
    #[error("cannot store the value: {0}")]
    Value(#[from] values::Refused),
    /// The store cannot be read.
    #[error(transparent)]
    NotNow(#[from] NotNow),
}

/// Answers requests.
#[derive(Debug)]
pub(crate) struct Responder {
    peers: Arc<Peers>,
    tables: Arc<Tables>,
    stores: Stores,
    holdings: Holdings,
    metrics: Arc<Metrics>,
}

impl Responder {
    pub(crate) fn new(peers: Arc<Peers>, tables: Arc<Tables>, stores: Stores, metrics: Arc<Metrics>) -> Self {
        let holdings = Holdings::new(peers.local, &stores);
        Self { peers, tables, stores, holdings, metrics }
    }

    /// Returns the framed answer; `None` for ADD_PROVIDER, which gets none (PRV-4). `announced` belongs to the stream.
    /// `seed` returns the seed for choosing providers when not all fit.
    pub(crate) async fn answer(
        &self,
        dht: Dht,
        sender: PeerId,
        body: &[u8],
        announced: &mut Option<Announced>,
        (clock, seed): (&dyn Clock, fn() -> u64),
    ) -> Result<Option<Bytes>, Unanswered> {
        let message = Message::decode(body)?;
        if let Some(Announced { entry, provider }) = announced
            && let Some(multihash) = rules::check_repeat(&message, entry)
        {
            self.stores.providers.add(multihash?, provider, dht).wait().await?;
            self.metrics.add_provider.inc();
            return Ok(None);
        }
        let metrics = &self.metrics;
        let (counter, answer) = match rules::check(&message, &sender)? {
            Request::Ping => (&metrics.ping, Some(rules::answer_ping())),
            Request::FindNode { target } => {
                let known = match PeerId::from_bytes(target) {
                    Ok(peer) => self.describe(dht, &peer).await,
                    Err(_) => None,
                };
                let table = self.tables.of(dht).view();
                (&metrics.find_node, Some(rules::answer_find_node(&table, target, &sender, known.as_ref())))
            }
            Request::GetProviders { multihash } => {
                let seed = seed();
                let providers = self.providers_of(dht, multihash, seed).await?;
                let table = self.tables.of(dht).view();
                let answer = rules::answer_get_providers(&table, multihash, &sender, &providers, seed);
                (&metrics.get_providers, Some(answer))
            }
            Request::AddProvider { multihash, mut provider } => {
                let scope = self.peers.scope(dht);
                provider.addrs.retain(|addr| scope.hands_out(addr));
                provider.addrs = most_useful(provider.addrs);
                let has_addresses = !provider.addrs.is_empty();
                if !has_addresses {
                    // libp2p-kad sends only its confirmed external addresses; identify may have given us more.
                    provider.addrs = self.peers.identified_addresses(dht, &sender);
                }
                self.stores.providers.add(multihash, &provider, dht).wait().await?;
                *announced = Announced::of(&message, provider).filter(|_| has_addresses);
                (&metrics.add_provider, None)
            }
            Request::GetValue { key } => {
                let held = self.stores.values.get(key).wait().await?;
                let record = held.map(|held| message::record(key, &held.value, &held.received.to_string()));
                let table = self.tables.of(dht).view();
                (&metrics.get_value, Some(rules::answer_get_value(&table, key, &sender, record.as_deref())))
            }
            Request::PutValue { key, value } => {
                self.stores.values.put(key, value).wait().await?;
                let received = clock.wall().to_string();
                (&metrics.put_value, Some(rules::answer_put_value(key, value, &received)))
            }
        };
        counter.inc();
        Ok(answer)
    }

    /// Returns the providers of `multihash`, this node first, with the addresses that belong to `dht`.
    async fn providers_of(&self, dht: Dht, multihash: &[u8], seed: u64) -> Result<Vec<EncodedPeer>, NotNow> {
        let scope = self.peers.scope(dht);
        let held = self.holdings.of(multihash, MAX_PROVIDERS, seed).await?;
        let own = held.own.then(|| self.peers.provider_entry(dht));
        // Scope `Any` needs no filter: ADD_PROVIDER above stores only addresses that some scope allows.
        let is_any = scope == AddressScope::Any;
        let others = held.others.iter().map(|record| {
            // Addresses that came through both DHTs are two lists, one after the other, and must be arranged as one.
            if is_any && !is_arranged(&record.addrs) {
                return EncodedPeer::new(&record.peer, &most_useful(record.addrs.to_vec()));
            }
            let mut allowed = record.addrs.iter().filter(|addr| is_any || scope.hands_out(addr)).peekable();
            match allowed.peek() {
                Some(_) => EncodedPeer::new(&record.peer, allowed),
                None => EncodedPeer::new(&record.peer, &self.peers.identified_addresses(dht, &record.peer)),
            }
        });
        Ok(own.into_iter().chain(others).collect())
    }

    /// Returns the entry of the peer that is the target of a FIND_NODE (SRV-5): from the table, or else from any other
    /// source, even if it is a client or has only private addresses.
    async fn describe(&self, dht: Dht, peer: &PeerId) -> Option<EncodedPeer> {
        if *peer == self.peers.local {
            return Some(EncodedPeer::new(peer, &self.peers.addresses.of(dht)));
        }
        if let Some(entry) = self.tables.of(dht).view().get(peer) {
            return Some(entry.encoded.clone());
        }
        let scope = self.peers.scope(dht);
        let identified = self.peers.contacts.addresses(peer).map(|known| known.addrs).unwrap_or_default();
        let mut known = identified;
        if !known.iter().any(|addr| scope.hands_out(addr)) {
            // A peer that now uses a relay may have announced the relay's address only in a provider record.
            known.extend(self.stores.providers.addresses(peer).wait().await.unwrap_or_default());
        }
        if known.is_empty() {
            // The table of the other DHT may know addresses too.
            let others = Dht::ALL.into_iter().map(|dht| self.tables.of(dht).view());
            known = others.into_iter().find_map(|table| Some(table.get(peer)?.peer.addrs.clone()))?;
        }
        // Addresses of this DHT come first: not all may fit.
        let (fitting, others): (Vec<Multiaddr>, Vec<Multiaddr>) = known.into_iter().partition(|a| scope.hands_out(a));
        Some(EncodedPeer::new(peer, most_useful(fitting).iter().chain(&most_useful(others))))
    }
}
