//! A store in memory, for tests and simulation. An empty one takes under a kilobyte. It is deterministic: random
//! choices depend only on the seed that the caller gives.

use crate::{
    NotNow, Outcome, OwnCids, Stores,
    providers::{Added, MAX_MULTIHASH_LEN, Provider, ProviderRecords, Refused},
    tables::{NotSaved, SavedPeer, SavedTables},
    values::{self, Put, Value, Values},
};
use dhtstore_host::clock::{Clock, UnixTime};
use dhtstore_kad::{Dht, PeerInfo, seeded::Seeded, values as rules};
use futures::{FutureExt, future::BoxFuture};
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use parking_lot::Mutex;
use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Limits and times. The default times are those of a private network.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a record lives after its last announcement (PRV-5). Counted in whole seconds.
    pub ttl: Duration,
    /// How long a provider's addresses are served after its newest announcement (PRV-6).
    pub address_ttl: Duration,
    /// How long a value is served after it was last put (VAL-5).
    pub values_ttl: Duration,
    /// Maximum number of records, some 200 bytes each.
    pub max_records: usize,
    /// Maximum number of records of one provider.
    pub max_records_per_provider: usize,
    /// Maximum number of providers of one multihash.
    pub max_providers_per_key: usize,
    /// Maximum number of values, up to 10 KiB each.
    pub max_values: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let hours = |n: u64| Duration::from_secs(3600 * n);
        Self {
            ttl: hours(12),
            address_ttl: hours(24),
            values_ttl: hours(48),
            max_records: 100_000,
            max_records_per_provider: 50_000,
            max_providers_per_key: 1_000,
            max_values: 1_000,
        }
    }
}

/// Makes empty stores.
pub fn stores(settings: Settings, clock: Arc<dyn Clock>) -> Stores {
    let memory = Arc::new(Memory::new(settings, clock));
    Stores { providers: memory.clone(), values: memory.clone(), own: memory.clone(), tables: memory }
}

/// The store, behind one lock that is held for a short time only.
#[derive(Debug)]
pub struct Memory {
    settings: Settings,
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    records: BTreeMap<Arc<[u8]>, BTreeMap<PeerId, UnixTime>>,
    /// The same records, oldest first: the order in which they expire.
    by_age: BTreeSet<(UnixTime, Arc<[u8]>, PeerId)>,
    /// The providers of these records.
    announcers: BTreeMap<PeerId, Announcer>,
    values: BTreeMap<Box<[u8]>, Value>,
    own: BTreeSet<Vec<u8>>,
    tables: BTreeMap<Dht, Vec<SavedPeer>>,
}

/// A peer that announced records.
#[derive(Debug, Default)]
struct Announcer {
    newest: UnixTime,
    records: usize,
    /// Its addresses, grouped by the DHT through which they came.
    came_by: BTreeMap<Dht, Vec<Multiaddr>>,
    /// All its addresses, without duplicates.
    addrs: Arc<[Multiaddr]>,
}

impl Announcer {
    fn announce(&mut self, addrs: &[Multiaddr], via: Dht, now: UnixTime) {
        self.newest = self.newest.max(now);
        if self.came_by.get(&via).is_some_and(|known| known == addrs) {
            return;
        }
        self.came_by.insert(via, addrs.to_vec());
        let mut all: Vec<Multiaddr> = Vec::new();
        for addr in self.came_by.values().flatten() {
            if !all.contains(addr) {
                all.push(addr.clone());
            }
        }
        self.addrs = all.into();
    }
}

fn is_live(since: UnixTime, now: UnixTime, ttl: Duration) -> bool {
    u64::from(now.0.saturating_sub(since.0)) < ttl.as_secs()
}

impl Inner {
    /// Drops records that have expired. A peer is dropped with the last of its records.
    fn collect(&mut self, now: UnixTime, ttl: Duration) {
        while let Some((received, multihash, peer)) = self.by_age.first().cloned() {
            if is_live(received, now, ttl) {
                break;
            }
            self.remove(&multihash, &peer);
        }
    }

    fn remove(&mut self, multihash: &[u8], peer: &PeerId) -> bool {
        let Some(providers) = self.records.get_mut(multihash) else { return false };
        let Some(received) = providers.remove(peer) else { return false };
        if providers.is_empty() {
            self.records.remove(multihash);
        }
        self.by_age.remove(&(received, multihash.into(), *peer));
        if let Some(announcer) = self.announcers.get_mut(peer) {
            announcer.records -= 1;
            if announcer.records == 0 {
                self.announcers.remove(peer);
            }
        }
        true
    }

    /// Returns why a record that is not held yet must be refused; `None` if there is room for it.
    fn barred(&self, multihash: &[u8], peer: &PeerId, settings: &Settings) -> Option<Refused> {
        if self.by_age.len() >= settings.max_records {
            return Some(Refused::RecordsFull);
        }
        if self.announcers.get(peer).is_some_and(|announcer| announcer.records >= settings.max_records_per_provider) {
            return Some(Refused::ProviderFull);
        }
        let providers = self.records.get(multihash).map_or(0, BTreeMap::len);
        (providers >= settings.max_providers_per_key).then_some(Refused::KeyFull)
    }
}

impl Memory {
    /// Makes an empty store.
    pub fn new(settings: Settings, clock: Arc<dyn Clock>) -> Self {
        Self { settings, clock, inner: Mutex::default() }
    }

    /// Marks `multihash` as provided by this node.
    pub fn provide(&self, multihash: &[u8]) {
        self.inner.lock().own.insert(multihash.to_vec());
    }

    /// Returns the number of records, including expired ones that are not collected yet.
    pub fn records(&self) -> usize {
        self.inner.lock().by_age.len()
    }

    fn announce(&self, multihash: &[u8], provider: &PeerInfo, via: Dht) -> Result<Added, Refused> {
        if multihash.len() > MAX_MULTIHASH_LEN {
            return Err(Refused::KeyTooLong);
        }
        let now = self.clock.wall();
        let mut inner = self.inner.lock();
        inner.collect(now, self.settings.ttl);
        let before = inner.records.get(multihash).and_then(|providers| providers.get(&provider.id)).copied();
        if before.is_none()
            && let Some(refused) = inner.barred(multihash, &provider.id, &self.settings)
        {
            return Err(refused);
        }
        let key: Arc<[u8]> = match inner.records.get_key_value(multihash) {
            Some((key, _)) => key.clone(),
            None => multihash.into(),
        };
        inner.records.entry(key.clone()).or_default().insert(provider.id, now);
        if let Some(before) = before {
            inner.by_age.remove(&(before, key.clone(), provider.id));
        }
        inner.by_age.insert((now, key, provider.id));
        let announcer = inner.announcers.entry(provider.id).or_default();
        announcer.announce(&provider.addrs, via, now);
        announcer.records += usize::from(before.is_none());
        Ok(if before.is_none() { Added::New } else { Added::Refreshed })
    }

    fn find(&self, multihash: &[u8], limit: usize, seed: u64) -> Vec<Provider> {
        let now = self.clock.wall();
        let inner = self.inner.lock();
        let held = inner.records.get(multihash).into_iter().flatten();
        let mut live: Vec<_> = held.filter(|(_, received)| is_live(**received, now, self.settings.ttl)).collect();
        Seeded::new(seed).choose_first(&mut live, limit);
        live.truncate(limit);
        live.sort_by_key(|(peer, received)| Reverse((**received, **peer)));
        let provider = |(peer, received): (&PeerId, &UnixTime)| {
            let announcer = inner.announcers.get(peer);
            let current = announcer.filter(|known| is_live(known.newest, now, self.settings.address_ttl));
            let addrs = current.map_or_else(Arc::default, |known| known.addrs.clone());
            Provider { peer: *peer, addrs, received: *received }
        };
        live.into_iter().map(provider).collect()
    }

    fn take(&self, key: &[u8], value: &[u8]) -> Result<Put, values::Refused> {
        let received = self.clock.wall();
        rules::validate(key, value, since_1970(received))?;
        let mut inner = self.inner.lock();
        let put = match inner.values.get(key) {
            Some(held) if self.is_served(key, held, received) => match rules::compare(key, value, &held.value) {
                Ordering::Less => return Err(values::Refused::Worse),
                Ordering::Equal => Put::Renewed,
                Ordering::Greater => Put::Better,
            },
            _ => Put::New,
        };
        if !inner.values.contains_key(key) && inner.values.len() >= self.settings.max_values {
            inner.values.retain(|key, held| self.is_served(key, held, received));
            if inner.values.len() >= self.settings.max_values {
                return Err(values::Refused::Full);
            }
        }
        inner.values.insert(key.into(), Value { value: value.into(), received });
        Ok(put)
    }

    fn is_served(&self, key: &[u8], held: &Value, now: UnixTime) -> bool {
        is_live(held.received, now, self.settings.values_ttl)
            && rules::ends(key, &held.value).is_none_or(|ends| since_1970(now) < ends)
    }
}

fn since_1970(time: UnixTime) -> Duration {
    Duration::from_secs(u64::from(time.0))
}

impl ProviderRecords for Memory {
    fn add(&self, multihash: &[u8], provider: &PeerInfo, via: Dht) -> Outcome<Result<Added, Refused>> {
        Outcome::Ready(self.announce(multihash, provider, via))
    }

    fn providers(&self, multihash: &[u8], limit: usize, seed: u64) -> Outcome<Result<Vec<Provider>, NotNow>> {
        Outcome::Ready(Ok(self.find(multihash, limit, seed)))
    }

    fn addresses(&self, provider: &PeerId) -> Outcome<Option<Vec<Multiaddr>>> {
        let now = self.clock.wall();
        let inner = self.inner.lock();
        let known =
            inner.announcers.get(provider).filter(|known| is_live(known.newest, now, self.settings.address_ttl));
        Outcome::Ready(known.filter(|known| !known.addrs.is_empty()).map(|known| known.addrs.to_vec()))
    }

    fn remove(&self, multihash: &[u8], provider: &PeerId) -> Outcome<Result<bool, NotNow>> {
        Outcome::Ready(Ok(self.inner.lock().remove(multihash, provider)))
    }
}

impl Values for Memory {
    fn get(&self, key: &[u8]) -> Outcome<Result<Option<Value>, NotNow>> {
        let now = self.clock.wall();
        let held = self.inner.lock().values.get(key).cloned();
        Outcome::Ready(Ok(held.filter(|held| self.is_served(key, held, now))))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Outcome<Result<Put, values::Refused>> {
        Outcome::Ready(self.take(key, value))
    }
}

impl OwnCids for Memory {
    fn contains(&self, multihash: &[u8]) -> bool {
        self.inner.lock().own.contains(multihash)
    }
}

impl SavedTables for Memory {
    fn load(&self, dht: Dht) -> BoxFuture<'static, Vec<SavedPeer>> {
        let saved = self.inner.lock().tables.get(&dht).cloned().unwrap_or_default();
        std::future::ready(saved).boxed()
    }

    fn save(&self, dht: Dht, peers: Vec<SavedPeer>) -> BoxFuture<'static, Result<(), NotSaved>> {
        self.inner.lock().tables.insert(dht, peers);
        std::future::ready(Ok(())).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;
    use dhtstore_host::clock::ManualClock;

    #[test]
    fn it_keeps_the_contract() {
        for check in contract::CHECKS {
            let clock = ManualClock::at(contract::START);
            let settings = contract::SETTINGS;
            let settings = Settings {
                ttl: settings.ttl,
                address_ttl: settings.address_ttl,
                values_ttl: settings.values_ttl,
                max_providers_per_key: settings.max_providers_per_key,
                ..Settings::default()
            };
            check(&stores(settings, clock.clone()), &clock);
        }
    }

    #[test]
    fn records_and_providers_are_bounded_and_refreshes_are_taken() {
        let clock = ManualClock::at(contract::START);
        let settings = Settings { max_records: 3, max_records_per_provider: 2, ..Settings::default() };
        let memory = Memory::new(settings, clock.clone());
        let [a, b] = [1, 2].map(contract::provider);
        assert_eq!(memory.announce(b"1", &a, Dht::Wan), Ok(Added::New));
        assert_eq!(memory.announce(b"2", &a, Dht::Wan), Ok(Added::New));
        assert_eq!(memory.announce(b"3", &a, Dht::Wan), Err(Refused::ProviderFull));
        assert_eq!(memory.announce(b"1", &b, Dht::Wan), Ok(Added::New));
        assert_eq!(memory.announce(b"2", &b, Dht::Wan), Err(Refused::RecordsFull));
        assert_eq!(memory.announce(b"2", &a, Dht::Wan), Ok(Added::Refreshed));
        clock.advance(Settings::default().ttl);
        assert_eq!(memory.announce(b"2", &b, Dht::Wan), Ok(Added::New), "what expired makes room");
        assert_eq!(memory.records(), 1);
        assert_eq!(memory.inner.lock().announcers.len(), 1);
    }
}
