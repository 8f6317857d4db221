//! Stock `libp2p-kad` on a store in sled with one row per record, as a rust-libp2p node with records on disk would have
//! it.

use dhtstore::kad::PeerInfo;
use dhtstore_testkit::libp2p_kad::{
    self as kad, ProviderRecord, Record, RecordKey,
    store::{Error, RecordStore},
};
use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, SwarmBuilder, identify, identity::Keypair, noise, swarm::NetworkBehaviour, tcp, yamux,
};
use std::{
    borrow::Cow,
    collections::{HashMap, hash_map},
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Length of one stall. A store that stalls does so at every [`STALL_EVERY`]th look-up.
pub const STALL: Duration = Duration::from_millis(50);
pub const STALL_EVERY: u64 = 1000;

/// Bytes of sled's cache, as many as for our store.
const CACHE: u64 = 512 << 20;

/// Listens and serves; `ready` is called with the number of peers in the table once it listens.
pub async fn run(
    keypair: Keypair,
    dir: &Path,
    listen: &[Multiaddr],
    table: &[PeerInfo],
    stalls: bool,
    ready: impl FnOnce(usize),
) {
    let id = keypair.public().to_peer_id();
    let mut config = kad::Config::new(kad::PROTOCOL_NAME);
    // Turns off jobs that clone the whole store on the swarm's task.
    config
        .set_periodic_bootstrap_interval(None)
        .set_provider_publication_interval(None)
        .set_publication_interval(None)
        .set_replication_interval(None);
    let mut behaviour = kad::Behaviour::with_config(id, SledStore::open(dir, stalls), config);
    behaviour.set_mode(Some(kad::Mode::Server));
    for peer in table {
        for addr in &peer.addrs {
            behaviour.add_address(&peer.id, addr.clone());
        }
    }
    let filled = behaviour.kbuckets().map(|bucket| bucket.num_entries()).sum();
    let identify = identify::Behaviour::new(identify::Config::new("ipfs/0.1.0".into(), keypair.public()));
    let mut swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_quic()
        .with_behaviour(|_| Stock { kad: behaviour, identify })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
        .build();
    for addr in listen {
        swarm.listen_on(addr.clone()).unwrap();
    }
    ready(filled);
    loop {
        swarm.select_next_some().await;
    }
}

#[derive(NetworkBehaviour)]
struct Stock {
    kad: kad::Behaviour<SledStore>,
    identify: identify::Behaviour,
}

/// Provider records in sled: the key is the multihash and the provider's id, the value its addresses and expiry.
struct SledStore {
    // Values are not measured.
    values: HashMap<RecordKey, Record>,
    tree: sled::Tree,
    lookups: std::cell::Cell<u64>,
    stalls: bool,
}

/// Returns the prefix of a key's rows. It begins with the length of the key, so that no prefix begins another.
fn prefix(key: &RecordKey) -> Vec<u8> {
    let bytes = key.as_ref();
    [&[bytes.len() as u8], bytes].concat()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

impl SledStore {
    fn open(dir: &Path, stalls: bool) -> Self {
        let config = sled::Config::new().path(dir).cache_capacity(CACHE).flush_every_ms(Some(500));
        let tree = config.open().unwrap().open_tree("providers").unwrap();
        Self { values: HashMap::new(), tree, lookups: Default::default(), stalls }
    }

    fn decode(key: &RecordKey, prefix: &[u8], row: &[u8], value: &[u8]) -> Option<ProviderRecord> {
        let provider = PeerId::from_bytes(row.get(prefix.len()..)?).ok()?;
        let (ends, mut rest) = value.split_first_chunk::<8>()?;
        let left = u64::from_le_bytes(*ends).saturating_sub(now());
        let mut addresses = Vec::new();
        while let Some((length, more)) = rest.split_first() {
            let (bytes, more) = more.split_at_checked(usize::from(*length))?;
            addresses.push(Multiaddr::try_from(bytes.to_vec()).ok()?);
            rest = more;
        }
        let expires = Some(Instant::now() + Duration::from_secs(left));
        Some(ProviderRecord { key: key.clone(), provider, expires, addresses })
    }
}

impl RecordStore for SledStore {
    type RecordsIter<'a> = std::iter::Map<hash_map::Values<'a, RecordKey, Record>, fn(&'a Record) -> Cow<'a, Record>>;
    type ProvidedIter<'a> = std::iter::Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, key: &RecordKey) -> Option<Cow<'_, Record>> {
        self.values.get(key).map(Cow::Borrowed)
    }

    fn put(&mut self, record: Record) -> Result<(), Error> {
        self.values.insert(record.key.clone(), record);
        Ok(())
    }

    fn remove(&mut self, key: &RecordKey) {
        self.values.remove(key);
    }

    fn records(&self) -> Self::RecordsIter<'_> {
        self.values.values().map(Cow::Borrowed)
    }

    fn add_provider(&mut self, record: ProviderRecord) -> Result<(), Error> {
        let mut row = prefix(&record.key);
        row.extend_from_slice(&record.provider.to_bytes());
        let left = record.expires.map_or(Duration::ZERO, |end| end.saturating_duration_since(Instant::now()));
        let mut value = (now() + left.as_secs()).to_le_bytes().to_vec();
        for addr in record.addresses {
            let bytes = addr.to_vec();
            value.push(bytes.len() as u8);
            value.extend_from_slice(&bytes);
        }
        self.tree.insert(row, value).map_err(|_| Error::MaxProvidedKeys)?;
        Ok(())
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        self.lookups.set(self.lookups.get() + 1);
        if self.stalls && self.lookups.get().is_multiple_of(STALL_EVERY) {
            std::thread::sleep(STALL);
        }
        let prefix = prefix(key);
        let rows = self.tree.scan_prefix(&prefix).flatten();
        rows.filter_map(|(row, value)| Self::decode(key, &prefix, &row, &value)).collect()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        std::iter::empty()
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        let mut row = prefix(key);
        row.extend_from_slice(&provider.to_bytes());
        self.tree.remove(row).unwrap();
    }
}
