//! Implements the traits through which a server of the DHT sees its store ([`dhtstore_records`]).

use crate::{
    Store,
    kad::{Dht, PeerInfo},
    provided::Provided,
    records::Records,
    routing::RoutingState,
};
use dhtstore_records::{
    NotNow, Outcome, OwnCids, Stores,
    providers::{Added, Provider, ProviderRecords, Refused},
    tables::{NotSaved, SavedPeer, SavedTables},
    values::{self, Put, Value, Values},
};
use futures::{FutureExt, future::BoxFuture};
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use std::sync::Arc;

impl Store {
    /// Returns the store in the form that a node takes.
    pub fn stores(&self) -> Stores {
        Stores {
            providers: Arc::new(self.records.clone()),
            values: Arc::new(self.values.clone()),
            own: Arc::new(self.provided.clone()),
            tables: Arc::new(self.routing.clone()),
        }
    }
}

impl ProviderRecords for Records {
    fn add(&self, multihash: &[u8], provider: &PeerInfo, via: Dht) -> Outcome<Result<Added, Refused>> {
        if !self.state.pending.is_behind() {
            return Outcome::Ready(self.state.add(multihash, provider, via));
        }
        let (records, multihash, provider) = (self.clone(), multihash.to_vec(), provider.clone());
        Outcome::Pending(async move { Records::add(&records, &multihash, &provider, via).await }.boxed())
    }

    fn providers(&self, multihash: &[u8], limit: usize, seed: u64) -> Outcome<Result<Vec<Provider>, NotNow>> {
        Outcome::Ready(Ok(self.providers_now(multihash, limit, seed)))
    }

    fn addresses(&self, provider: &PeerId) -> Outcome<Option<Vec<Multiaddr>>> {
        Outcome::Ready(Records::addresses(self, provider))
    }

    fn remove(&self, multihash: &[u8], provider: &PeerId) -> Outcome<Result<bool, NotNow>> {
        let (records, multihash, provider) = (self.clone(), multihash.to_vec(), *provider);
        Outcome::Pending(async move { Ok(Records::remove(&records, &multihash, &provider).await) }.boxed())
    }
}

impl Values for crate::values::Values {
    fn get(&self, key: &[u8]) -> Outcome<Result<Option<Value>, NotNow>> {
        let held = crate::values::Values::get(self, key);
        Outcome::Ready(Ok(held.map(|held| Value { value: held.value, received: held.received })))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Outcome<Result<Put, values::Refused>> {
        let (values, key, value) = (self.clone(), key.to_vec(), value.to_vec());
        Outcome::Pending(async move { crate::values::Values::put(&values, key, value).await }.boxed())
    }
}

impl OwnCids for Provided {
    fn contains(&self, multihash: &[u8]) -> bool {
        Provided::contains(self, multihash)
    }
}

impl SavedTables for RoutingState {
    fn load(&self, dht: Dht) -> BoxFuture<'static, Vec<SavedPeer>> {
        let routing = self.clone();
        // Loading may read the disk.
        let read = async move { tokio::task::spawn_blocking(move || routing.load(dht)).await.unwrap_or_default() };
        read.boxed()
    }

    fn save(&self, dht: Dht, peers: Vec<SavedPeer>) -> BoxFuture<'static, Result<(), NotSaved>> {
        let routing = self.clone();
        async move { routing.save(dht, peers).await.map_err(|error| NotSaved(error.into())) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use crate::{Settings, Store, clock::ManualClock, data_dir::Lock};
    use dhtstore_records::contract;

    #[tokio::test(flavor = "multi_thread")]
    async fn it_keeps_the_contract_of_every_store() {
        for check in contract::CHECKS {
            let dir = tempfile::tempdir().unwrap();
            let lock = Lock::acquire(dir.path()).unwrap();
            let clock = ManualClock::at(contract::START);
            let contract::Settings { ttl, address_ttl, values_ttl, max_providers_per_key } = contract::SETTINGS;
            let settings = Settings { ttl, address_ttl, values_ttl, max_providers_per_key, ..Settings::default() };
            let store = Store::open(&lock, settings, clock.clone()).unwrap();
            let stores = store.stores();
            // The checks block.
            tokio::task::block_in_place(|| check(&stores, &clock));
            store.close().await.unwrap();
        }
    }
}
