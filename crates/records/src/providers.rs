//! Provider records: who provides which multihash, and where.

use crate::{NotNow, Outcome};
use dhtstore_host::clock::UnixTime;
use dhtstore_kad::{Dht, PeerInfo};
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use std::{fmt, sync::Arc};

/// Longest multihash that a store takes, in bytes. The protocol's own bound (PRV-1, 80 bytes) is lower.
pub const MAX_MULTIHASH_LEN: usize = 128;

/// A provider of a multihash, as GET_PROVIDERS answers it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Provider {
    /// The provider.
    pub peer: PeerId,
    /// All known addresses, whichever DHT they came by; empty when older than the address ttl (PRV-6). Filter by scope. They
    /// are shared with the store, since copies would cost more than the rest of a look-up.
    pub addrs: Arc<[Multiaddr]>,
    /// When its announcement came (to about a second; a repeat within five minutes does not count).
    pub received: UnixTime,
}

/// What became of an announcement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Added {
    /// No such record was known.
    New,
    /// The record was known; it lives on.
    Refreshed,
}

/// Why an announcement was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Refused {
    /// `records.max`.
    #[error("record limit reached")]
    RecordsFull,
    /// `records.max` was reached, and records as far from this node as this one are not taken until there are fewer.
    #[error("record limit reached, and this record is far from this node")]
    RecordsFar,
    /// `records.max_per_provider`.
    #[error("record limit of this provider reached")]
    ProviderFull,
    /// `records.max_providers_per_key`.
    #[error("provider limit of this key reached")]
    KeyFull,
    /// `records.max_peers`.
    #[error("peer limit reached")]
    PeersFull,
    /// After an error of the disk, while it is nearly full, and when the store is closed.
    #[error("the database does not take writes")]
    ReadOnly,
    /// `store.max_disk`: what is held is refreshed, and nothing new taken.
    #[error("the data directory takes as much of the disk as it may")]
    DiskFull,
    /// A multihash longer than [`MAX_MULTIHASH_LEN`].
    #[error("multihash longer than {MAX_MULTIHASH_LEN} bytes")]
    KeyTooLong,
    /// See [`NotNow`].
    #[error(transparent)]
    NotNow(#[from] NotNow),
}

/// A store of provider records. A record is served until its ttl has passed since its last announcement (PRV-5), whether it
/// has been collected or not.
pub trait ProviderRecords: fmt::Debug + Send + Sync {
    /// Takes an announcement that came by `via`. Refreshes are taken at every limit. `provider.addrs`, already filtered by
    /// that DHT's scope, replace those that came by the same DHT; those that came by the other stay.
    fn add(&self, multihash: &[u8], provider: &PeerInfo, via: Dht) -> Outcome<Result<Added, Refused>>;

    /// Returns up to `limit` live providers, newest first; a random subset, drawn by `seed`, when there are more.
    fn providers(&self, multihash: &[u8], limit: usize, seed: u64) -> Outcome<Result<Vec<Provider>, NotNow>>;

    /// Returns the addresses that a provider announced last, in any DHT; `None` if it is unknown or they have expired
    /// (PRV-6).
    fn addresses(&self, provider: &PeerId) -> Outcome<Option<Vec<Multiaddr>>>;

    /// Removes a record for good. True if it was known.
    fn remove(&self, multihash: &[u8], provider: &PeerId) -> Outcome<Result<bool, NotNow>>;
}
