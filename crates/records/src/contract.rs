//! Checks that every store must pass. Each takes an empty store with [`SETTINGS`] and its clock, and panics if the
//! store breaks the contract.

use crate::{
    Stores,
    providers::{Added, Provider, Refused},
    tables::SavedPeer,
    values::{self, Put},
};
use dhtstore_host::clock::{ManualClock, UnixTime};
use dhtstore_kad::{Dht, PeerInfo};
use futures::executor::block_on;
use libp2p_identity::{Keypair, PeerId};
use multiaddr::{Multiaddr, Protocol};
use std::{collections::BTreeSet, time::Duration};

/// Time of the clock of a store under test.
pub const START: UnixTime = UnixTime(1_700_000_000);

/// Settings that a store under test must have.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Ttl of records.
    pub ttl: Duration,
    /// Ttl of addresses.
    pub address_ttl: Duration,
    /// Ttl of values.
    pub values_ttl: Duration,
    /// Maximum number of providers of one multihash.
    pub max_providers_per_key: usize,
}

/// Settings of a store under test.
pub const SETTINGS: Settings = Settings {
    ttl: Duration::from_secs(3_600),
    address_ttl: Duration::from_secs(7_200),
    values_ttl: Duration::from_secs(3_600),
    max_providers_per_key: 50,
};

/// A check.
pub type Check = fn(&Stores, &ManualClock);

/// All checks.
pub const CHECKS: [Check; 8] = [
    records_live_for_the_ttl_after_their_last_announcement,
    removed_records_are_gone,
    many_providers_are_drawn_by_the_seed,
    the_providers_of_a_key_are_bounded,
    a_multihash_that_is_too_long_is_refused,
    addresses_are_kept_by_dht_and_expire,
    values_are_replaced_by_better_ones_only,
    tables_are_loaded_as_saved,
];

/// Returns a provider by its number, with one address.
pub fn provider(n: u8) -> PeerInfo {
    let digest = [&[0x12, 0x20][..], &[n; 32]].concat();
    let id = PeerId::from_bytes(&digest).unwrap_or_else(|error| panic!("a SHA-256 is a peer id: {error}"));
    PeerInfo { id, addrs: vec![address(n)] }
}

fn address(n: u8) -> Multiaddr {
    Multiaddr::from(Protocol::Ip4([192, 0, 2, n].into())).with(Protocol::Tcp(4001))
}

fn add(stores: &Stores, multihash: &[u8], provider: &PeerInfo) -> Result<Added, Refused> {
    block_on(stores.providers.add(multihash, provider, Dht::Wan).wait())
}

fn find(stores: &Stores, multihash: &[u8], limit: usize, seed: u64) -> Vec<Provider> {
    let found = block_on(stores.providers.providers(multihash, limit, seed).wait());
    found.unwrap_or_else(|error| panic!("{error}"))
}

fn ids(found: &[Provider]) -> Vec<PeerId> {
    found.iter().map(|provider| provider.peer).collect()
}

fn records_live_for_the_ttl_after_their_last_announcement(stores: &Stores, clock: &ManualClock) {
    let (a, b) = (provider(1), provider(2));
    assert!(find(stores, b"key", 10, 0).is_empty());
    assert_eq!(add(stores, b"key", &a), Ok(Added::New));
    clock.advance(SETTINGS.ttl / 2);
    assert_eq!(add(stores, b"key", &b), Ok(Added::New));
    assert_eq!(ids(&find(stores, b"key", 10, 0)), [b.id, a.id], "newest first");
    assert!(find(stores, b"other", 10, 0).is_empty());
    clock.advance(SETTINGS.ttl / 2);
    assert_eq!(ids(&find(stores, b"key", 10, 0)), [b.id], "PRV-5");
    assert_eq!(add(stores, b"key", &b), Ok(Added::Refreshed));
    clock.advance(SETTINGS.ttl / 2);
    assert_eq!(ids(&find(stores, b"key", 10, 0)), [b.id], "it was announced again");
    clock.advance(SETTINGS.ttl / 2);
    assert!(find(stores, b"key", 10, 0).is_empty());
    assert!(add(stores, b"key", &a).is_ok());
    assert_eq!(ids(&find(stores, b"key", 10, 0)), [a.id], "what expired does not come back with it");
}

fn removed_records_are_gone(stores: &Stores, _: &ManualClock) {
    let remove = |provider: &PeerInfo| block_on(stores.providers.remove(b"key", &provider.id).wait());
    let (a, b) = (provider(1), provider(2));
    assert_eq!(remove(&a), Ok(false));
    for provider in [&a, &b] {
        assert_eq!(add(stores, b"key", provider), Ok(Added::New));
    }
    assert_eq!((remove(&a), remove(&a)), (Ok(true), Ok(false)));
    assert_eq!(ids(&find(stores, b"key", 10, 0)), [b.id]);
    assert_eq!(add(stores, b"key", &a), Ok(Added::New));
}

fn many_providers_are_drawn_by_the_seed(stores: &Stores, _: &ManualClock) {
    for n in 0..40 {
        assert_eq!(add(stores, b"key", &provider(n)), Ok(Added::New));
    }
    let drawn = |seed| ids(&find(stores, b"key", 10, seed)).into_iter().collect::<BTreeSet<_>>();
    assert_eq!(drawn(1).len(), 10);
    assert_eq!(drawn(1), drawn(1));
    let seen: BTreeSet<PeerId> = (0..100).flat_map(drawn).collect();
    assert_eq!(seen.len(), 40, "each is drawn now and then");
}

fn the_providers_of_a_key_are_bounded(stores: &Stores, _: &ManualClock) {
    let max = u8::try_from(SETTINGS.max_providers_per_key).unwrap_or(u8::MAX);
    for n in 0..max {
        assert_eq!(add(stores, b"key", &provider(n)), Ok(Added::New));
    }
    assert_eq!(add(stores, b"key", &provider(max)), Err(Refused::KeyFull));
    assert_eq!(add(stores, b"key", &provider(0)), Ok(Added::Refreshed));
    assert_eq!(add(stores, b"other", &provider(max)), Ok(Added::New));
}

fn a_multihash_that_is_too_long_is_refused(stores: &Stores, _: &ManualClock) {
    let longest = [7; crate::providers::MAX_MULTIHASH_LEN];
    assert_eq!(add(stores, &longest, &provider(1)), Ok(Added::New));
    assert_eq!(add(stores, &[&longest[..], &[7]].concat(), &provider(1)), Err(Refused::KeyTooLong));
}

fn addresses_are_kept_by_dht_and_expire(stores: &Stores, clock: &ManualClock) {
    let known = |peer: &PeerId| block_on(stores.providers.addresses(peer).wait());
    let by = |n: u8, via| {
        let provider = PeerInfo { addrs: vec![address(n)], ..provider(1) };
        block_on(stores.providers.add(b"key", &provider, via).wait())
    };
    let id = provider(1).id;
    assert_eq!(known(&id), None);
    assert_eq!(by(10, Dht::Wan), Ok(Added::New));
    assert_eq!(by(20, Dht::Lan), Ok(Added::Refreshed));
    assert_eq!(known(&id), Some(vec![address(10), address(20)]));
    assert_eq!(by(30, Dht::Wan), Ok(Added::Refreshed));
    assert_eq!(known(&id), Some(vec![address(30), address(20)]), "those by the same DHT are replaced");
    assert_eq!(find(stores, b"key", 10, 0)[0].addrs.to_vec(), [address(30), address(20)]);
    clock.advance(SETTINGS.address_ttl);
    assert_eq!(known(&id), None, "PRV-6");
}

fn values_are_replaced_by_better_ones_only(stores: &Stores, clock: &ManualClock) {
    let put = |key: &[u8], value: &[u8]| block_on(stores.values.put(key, value).wait());
    let get = |key: &[u8]| block_on(stores.values.get(key).wait()).ok().flatten().map(|held| held.value.to_vec());
    let keypair = Keypair::ed25519_from_bytes([7; 32]).unwrap_or_else(|error| panic!("{error}"));
    let key = [b"/pk/", &keypair.public().to_peer_id().to_bytes()[..]].concat();
    let value = keypair.public().encode_protobuf();
    assert_eq!(get(&key), None);
    assert_eq!(put(&key, &value), Ok(Put::New));
    assert_eq!(put(&key, &value), Ok(Put::Renewed));
    assert!(matches!(put(&key, b"no key"), Err(values::Refused::Invalid(_))));
    assert!(matches!(put(b"/x/key", &value), Err(values::Refused::Invalid(_))));
    assert_eq!(get(&key), Some(value));
    clock.advance(SETTINGS.values_ttl);
    assert_eq!(get(&key), None, "VAL-5");
}

fn tables_are_loaded_as_saved(stores: &Stores, _: &ManualClock) {
    let saved = |n| SavedPeer { peer: provider(n), heard: START };
    assert!(block_on(stores.tables.load(Dht::Wan)).is_empty());
    for peers in [vec![saved(1), saved(2)], vec![saved(3)]] {
        assert!(block_on(stores.tables.save(Dht::Wan, peers.clone())).is_ok());
        assert_eq!(block_on(stores.tables.load(Dht::Wan)), peers);
        assert!(block_on(stores.tables.load(Dht::Lan)).is_empty());
    }
}
