//! From a request to its answer: the pure rules of [`crate::kad::rules`], with the store, the table and the books.

use super::{MAX_PROVIDERS, StreamError};
use crate::{
    Shared,
    counters::Counter,
    kad::{
        Dht, PeerInfo,
        message::{self, EncodedPeer, Message},
        rules::{self, Request},
        scope::AddressScope,
        useful::{is_arranged, most_useful},
    },
};
use bytes::Bytes;
use libp2p::{Multiaddr, PeerId};
use std::sync::Arc;

/// Longest provider entry that is kept: honest ones have 150 to 800 bytes, and it is held while the stream is idle.
const MAX_KEPT_ENTRY: usize = 1024;

/// What the sender last said of itself on a stream.
#[derive(Debug)]
pub(super) struct Announced {
    /// The body of its entry.
    entry: Vec<u8>,
    /// The same, read, with the addresses that belong to the stream's DHT; there are some.
    provider: PeerInfo,
}

impl Announced {
    /// `None` if the next request must be read anew: it may be about others as well, or the addresses are not its own.
    fn of(message: &Message<'_>, provider: PeerInfo) -> Option<Self> {
        let mut entries = message.provider_peers();
        let entry = entries.next().filter(|entry| entry.as_bytes().len() <= MAX_KEPT_ENTRY)?;
        entries.next().is_none().then(|| Self { entry: entry.as_bytes().to_vec(), provider })
    }
}

impl Shared {
    /// The framed answer; `None` for ADD_PROVIDER, which gets none (PRV-4). `announced` is the stream's.
    pub(super) async fn answer(
        self: &Arc<Self>,
        dht: Dht,
        sender: PeerId,
        body: &[u8],
        announced: &mut Option<Announced>,
    ) -> Result<Option<Bytes>, StreamError> {
        let message = Message::decode(body)?;
        if let Some(Announced { entry, provider }) = announced
            && let Some(multihash) = rules::check_repeat(&message, entry)
        {
            self.store.records.add(multihash?, provider, dht).await?;
            self.counters.add(Counter::AddProvider);
            return Ok(None);
        }
        let (counter, answer) = match rules::check(&message, &sender)? {
            Request::Ping => (Counter::Ping, Some(rules::answer_ping())),
            Request::FindNode { target } => {
                let known = PeerId::from_bytes(target).ok().and_then(|peer| self.describe(dht, &peer));
                let table = self.routing.of(dht).view();
                (Counter::FindNode, Some(rules::answer_find_node(&table, target, &sender, known.as_ref())))
            }
            Request::GetProviders { multihash } => {
                let providers = self.providers_of(dht, multihash).await;
                let table = self.routing.of(dht).view();
                let seed = rand::random();
                let answer = rules::answer_get_providers(&table, multihash, &sender, &providers, seed);
                (Counter::GetProviders, Some(answer))
            }
            Request::AddProvider { multihash, mut provider } => {
                let scope = self.settings.profile.scope(dht);
                provider.addrs.retain(|addr| scope.hands_out(addr));
                provider.addrs = most_useful(provider.addrs);
                let has_addresses = !provider.addrs.is_empty();
                if !has_addresses {
                    // libp2p-kad sends its confirmed external addresses only; identify has told us more.
                    provider.addrs = self.identified_addresses(dht, &sender);
                }
                self.store.records.add(multihash, &provider, dht).await?;
                *announced = Announced::of(&message, provider).filter(|_| has_addresses);
                (Counter::AddProvider, None)
            }
            Request::GetValue { key } => {
                let held = self.store.values.get(key);
                let record = held.map(|held| message::record(key, &held.value, &held.received.to_string()));
                let table = self.routing.of(dht).view();
                (Counter::GetValue, Some(rules::answer_get_value(&table, key, &sender, record.as_deref())))
            }
            Request::PutValue { key, value } => {
                self.store.values.put(key.to_vec(), value.to_vec()).await?;
                let received = self.clock.wall().to_string();
                (Counter::PutValue, Some(rules::answer_put_value(key, value, &received)))
            }
        };
        self.counters.add(counter);
        Ok(answer)
    }

    /// Whoever provides `multihash`, ourselves first, with the addresses that belong to `dht`.
    async fn providers_of(&self, dht: Dht, multihash: &[u8]) -> Vec<EncodedPeer> {
        let scope = self.settings.profile.scope(dht);
        let own = self.store.provided.contains(multihash).then(|| self.provider_entry(dht));
        let records = self.store.records.providers(multihash, MAX_PROVIDERS, rand::random()).await;
        // What is allowed nowhere has not been taken by the store: see the scope of ADD_PROVIDER above.
        let is_any = scope == AddressScope::Any;
        let others = records.iter().filter(|record| record.peer != self.local).map(|record| {
            // What came by both DHTs is one list behind the other.
            if is_any && !is_arranged(&record.addrs) {
                return EncodedPeer::new(&record.peer, &most_useful(record.addrs.to_vec()));
            }
            let mut allowed = record.addrs.iter().filter(|addr| is_any || scope.hands_out(addr)).peekable();
            match allowed.peek() {
                Some(_) => EncodedPeer::new(&record.peer, allowed),
                None => EncodedPeer::new(&record.peer, &self.identified_addresses(dht, &record.peer)),
            }
        });
        own.into_iter().chain(others).collect()
    }

    /// Where others can reach a peer in `dht` that is or was lately connected, as it says by identify.
    fn identified_addresses(&self, dht: Dht, peer: &PeerId) -> Vec<Multiaddr> {
        let scope = self.settings.profile.scope(dht);
        let known = self.book.addresses(peer).map(|known| known.addrs).unwrap_or_default();
        most_useful(known.into_iter().filter(|addr| scope.hands_out(addr)).collect())
    }

    /// A peer as the target of FIND_NODE (SRV-5): from the table, or whatever our books say of it, even if it is a
    /// client and even if its addresses are private.
    fn describe(&self, dht: Dht, peer: &PeerId) -> Option<EncodedPeer> {
        if *peer == self.local {
            return Some(EncodedPeer::new(peer, &self.addresses.of(dht)));
        }
        if let Some(entry) = self.routing.of(dht).view().get(peer) {
            return Some(entry.encoded.clone());
        }
        let scope = self.settings.profile.scope(dht);
        let mut known = self.known_addresses(peer);
        if !known.iter().any(|addr| scope.hands_out(addr)) {
            // A peer that has a relay by now may have said so in an announcement only.
            known.extend(self.store.records.addresses(peer).unwrap_or_default());
        }
        if known.is_empty() {
            // The table of the other DHT is a book of addresses, too.
            let others = Dht::ALL.into_iter().map(|dht| self.routing.of(dht).view());
            known = others.into_iter().find_map(|table| Some(table.get(peer)?.peer.addrs.clone()))?;
        }
        // Those of the DHT first: not all of them may fit.
        let (fitting, others): (Vec<Multiaddr>, Vec<Multiaddr>) = known.into_iter().partition(|a| scope.hands_out(a));
        Some(EncodedPeer::new(peer, most_useful(fitting).iter().chain(&most_useful(others))))
    }

    /// What identify or an announcement told of a peer's addresses.
    pub(crate) fn known_addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.book
            .addresses(peer)
            .map(|PeerInfo { addrs, .. }| addrs)
            .or_else(|| self.store.records.addresses(peer))
            .unwrap_or_default()
    }
}
