//! Values over the network (VAL-6): finds the best value that the closest servers hold, sends it to those that hold a
//! worse one or none, and places a value with the closest.

use super::{Answer, Event, Events, Lookups, Question, tell};
use crate::kad::{
    Dht, PeerInfo,
    keyspace::Key,
    lookup::{Goal, Lookup},
    values::{self, ipns, pk},
};
use dhtstore_records::values::Refused;
use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use libp2p::PeerId;
use parking_lot::Mutex;
use std::{cmp::Ordering, collections::BTreeSet, sync::Arc, time::Duration};

/// Servers that must hold the same best IPNS record before a look-up for it ends early (VAL-6). For public keys the
/// first valid value is enough, since all valid ones are equal.
pub const QUORUM: usize = 16;

/// A server, and the DHT in which it was asked.
pub type Holder = (Dht, PeerInfo);

/// The outcome of a look-up for a value.
#[derive(Clone, Debug)]
pub struct BestValue {
    /// The best valid value.
    pub value: Vec<u8>,
    /// Number of distinct servers that hold it; 0 if only this node holds it, or if the key contains it.
    pub held_by: usize,
    /// Number of distinct servers that answered.
    pub answered: usize,
    /// The closest servers that answered with a worse value or none. [`crate::Node::put_values`] sends them the best
    /// one.
    pub stale: Vec<Holder>,
}

/// The outcome of sending a value to servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Placed {
    /// Number of distinct servers that it was sent to.
    pub sent: usize,
    /// Number of those that confirmed with an echo that they hold it.
    pub confirmed: usize,
}

/// The best value so far.
#[derive(Debug)]
struct Best<'k> {
    key: &'k [u8],
    now: Duration,
    quorum: usize,
    value: Option<Vec<u8>>,
    holders: BTreeSet<(Dht, PeerId)>,
    answered: BTreeSet<PeerId>,
}

impl Best<'_> {
    /// Records an answer and returns a description for its event.
    fn answer(&mut self, dht: Dht, from: &PeerId, value: Option<&[u8]>) -> Option<String> {
        self.answered.insert(*from);
        let value = value?;
        if let Err(invalid) = values::validate(self.key, value, self.now) {
            return Some(format!("refused: {invalid}"));
        }
        let order = self.value.as_ref().map_or(Ordering::Greater, |best| values::compare(self.key, value, best));
        let rank = match order {
            Ordering::Greater => {
                self.value = Some(value.to_vec());
                self.holders.clear();
                "the best so far"
            }
            Ordering::Equal => "the best, already found",
            Ordering::Less => "worse than the best",
        };
        if order != Ordering::Less {
            self.holders.insert((dht, *from));
        }
        Some(format!("{}: {rank}", describe(self.key, value)))
    }

    /// Returns the number of distinct servers that hold the best value.
    fn held_by(&self) -> usize {
        self.holders.iter().map(|(_, peer)| peer).collect::<BTreeSet<_>>().len()
    }

    fn is_enough(&self) -> bool {
        self.held_by() >= self.quorum
    }

    /// Returns the value, with those of the `closest` servers that do not hold it.
    fn found(self, closest: impl IntoIterator<Item = Holder>) -> Option<BestValue> {
        let held_by = self.held_by();
        let stale = closest.into_iter().filter(|(dht, peer)| !self.holders.contains(&(*dht, peer.id))).collect();
        Some(BestValue { value: self.value?, held_by, answered: self.answered.len(), stale })
    }
}

/// Describes a value in a few words.
fn describe(key: &[u8], value: &[u8]) -> String {
    match ipns::Record::decode(value) {
        Ok(record) if key.starts_with(ipns::PREFIX) => format!("sequence {}", record.sequence),
        _ => format!("{} bytes", value.len()),
    }
}

/// Returns the public key that a short peer id contains. With it, no server needs to be asked for the `/pk/` key.
fn inline(key: &[u8]) -> Option<Vec<u8>> {
    let peer = PeerId::from_bytes(key.strip_prefix(pk::PREFIX)?).ok()?;
    let bytes = peer.as_ref().digest().to_vec();
    pk::decode(&peer, &bytes).is_ok().then_some(bytes)
}

impl Lookups {
    fn unix_now(&self) -> Duration {
        Duration::from_secs(u64::from(self.clock.wall().0))
    }

    /// Sends a value to all servers at the same time: there are at most k of each DHT.
    pub(crate) async fn put_values(&self, key: &[u8], value: &[u8], to: Vec<Holder>, events: &Events) -> Placed {
        let (key, value): (Arc<[u8]>, Arc<[u8]>) = (key.into(), value.into());
        let (mut sent, mut confirmed) = (BTreeSet::new(), BTreeSet::new());
        let mut under_way = FuturesUnordered::new();
        for (dht, peer) in to {
            sent.insert(peer.id);
            let (rpc, key, value) = (self.rpc.clone(), key.clone(), value.clone());
            // In a task of its own: it finishes even if the caller goes away.
            under_way.push(self.tasks.spawn(async move {
                let outcome = rpc.put_value(dht, &peer, &key, &value).await;
                (dht, peer.id, outcome)
            }));
        }
        while let Some(ended) = under_way.next().await {
            let Ok(Some((dht, peer, outcome))) = ended else { continue };
            let error = outcome.err().map(|error| error.to_string());
            if error.is_none() {
                confirmed.insert(peer);
            }
            tell(events, || Event::Put { dht: dht.name().to_owned(), peer: peer.to_string(), error }).await;
        }
        Placed { sent: sent.len(), confirmed: confirmed.len() }
    }

    /// See [`crate::Node::find_value`].
    pub(crate) async fn find_value(&self, key: &[u8], quorum: usize, events: Events) -> Option<BestValue> {
        let held = self.values.get(key).wait().await.ok().flatten().map(|held| held.value.to_vec());
        let known = inline(key).or_else(|| held.clone());
        let quorum = if key.starts_with(pk::PREFIX) { 1 } else { quorum.max(1) };
        let (holders, answered) = Default::default();
        let best = Best { key, now: self.unix_now(), quorum, value: known, holders, answered };
        if key.starts_with(pk::PREFIX) && best.value.is_some() {
            return best.found([]);
        }
        let best = Mutex::new(best);
        let searches = Dht::ALL.into_iter().map(|dht| {
            let (best, events) = (&best, &events);
            async move {
                let each = |from: &PeerInfo, answer: &Answer| {
                    let mut best = best.lock();
                    let held = best.answer(dht, &from.id, answer.value.as_deref());
                    let news =
                        held.map(|held| Event::Value { dht: dht.name().to_owned(), peer: from.id.to_string(), held });
                    (!best.is_enough(), news.into_iter().collect())
                };
                let target = Key::for_value(key);
                let lookup: Lookup =
                    self.drive(dht, target, Goal::Closest, Question::Value(key.into()), events, each).await;
                lookup.closest().into_iter().map(move |peer| (dht, peer)).collect::<Vec<Holder>>()
            }
        });
        let closest: Vec<Holder> = join_all(searches).await.into_iter().flatten().collect();
        let found = best.into_inner().found(closest)?;
        if held.is_some_and(|held| values::compare(key, &found.value, &held) == Ordering::Greater) {
            // The store refuses the value only if a better one has arrived since, or at a limit. It counts the refusal.
            let _ = self.values.put(key, &found.value).wait().await;
        }
        Some(found)
    }

    /// See [`crate::Node::place_value`].
    pub(crate) async fn place_value(
        &self,
        key: &[u8],
        value: &[u8],
        events: Events,
    ) -> Result<(Result<(), Refused>, Placed), Refused> {
        let own = self.values.put(key, value).wait().await;
        if let Err(refused @ (Refused::Invalid(_) | Refused::Worse)) = own {
            return Err(refused);
        }
        let searches = Dht::ALL.into_iter().map(|dht| {
            let events = events.clone();
            async move {
                let closest = self.closest(dht, key, events).await;
                closest.peers.into_iter().map(move |peer| (dht, peer)).collect::<Vec<Holder>>()
            }
        });
        let closest: Vec<Holder> = join_all(searches).await.into_iter().flatten().collect();
        let placed = self.put_values(key, value, closest, &events).await;
        Ok((own.map(drop), placed))
    }
}
