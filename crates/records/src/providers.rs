//! Provider records: which peer provides which multihash, and at which addresses.

use crate::{NotNow, Outcome};
use dhtstore_host::clock::UnixTime;
use dhtstore_kad::{Dht, PeerInfo};
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use std::{fmt, sync::Arc};

/// Maximum length of a multihash in a store, in bytes. The protocol's own limit (PRV-1, 80 bytes) is lower.
pub const MAX_MULTIHASH_LEN: usize = 128;

/// A provider of a multihash, as GET_PROVIDERS returns it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Provider {
    /// Peer id of the provider.
    pub peer: PeerId,
    /// All known addresses, whichever DHT they came through; empty if they are older than the address ttl (PRV-6). The
    /// caller filters them by scope. They are shared with the store, since copies would cost more than the rest of a
    /// look-up.
    pub addrs: Arc<[Multiaddr]>,
    /// When it was announced (to about a second; a repeat within five minutes does not count).
    pub received: UnixTime,
}

/// Result of an announcement that was accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Added {
    /// The record is new.
    New,
    /// The record was known, and its life is prolonged.
    Refreshed,
}

/// Why an announcement was refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Refused {
    /// The limit `records.max` is reached.
    #[error("record limit reached")]
    RecordsFull,
    /// The limit `records.max` is reached; records this far from the node are refused until there are fewer.
    #[error("record limit reached, and this record is far from this node")]
    RecordsFar,
    /// The limit `records.max_per_provider` is reached.
    #[error("record limit of this provider reached")]
    ProviderFull,
    /// The limit `records.max_providers_per_key` is reached.
    #[error("provider limit of this key reached")]
    KeyFull,
    /// The limit `records.max_peers` is reached.
    #[error("peer limit reached")]
    PeersFull,
    /// The disk failed or is nearly full, or the store is closed.
    #[error("the database does not take writes")]
    ReadOnly,
    /// The limit `store.max_disk` is reached: records are refreshed, and new ones refused.
    #[error("the data directory has reached its size limit")]
    DiskFull,
    /// The multihash is longer than [`MAX_MULTIHASH_LEN`].
    #[error("multihash longer than {MAX_MULTIHASH_LEN} bytes")]
    KeyTooLong,
    /// The store did not answer: see [`NotNow`].
    #[error(transparent)]
    NotNow(#[from] NotNow),
}

/// A store of provider records. A record is served until its ttl has passed since its last announcement (PRV-5), and
/// never later, even if the store has not collected it yet.
pub trait ProviderRecords: fmt::Debug + Send + Sync {
    /// Stores an announcement that came by the DHT `via`. A refresh is accepted at every limit. `provider.addrs`,
    /// already filtered by the scope of `via`, replace the addresses that came by `via`; those that came by the other
    /// DHT stay.
    fn add(&self, multihash: &[u8], provider: &PeerInfo, via: Dht) -> Outcome<Result<Added, Refused>>;

    /// Returns up to `limit` live providers, newest first. If there are more, returns a random subset, drawn by `seed`.
    fn providers(&self, multihash: &[u8], limit: usize, seed: u64) -> Outcome<Result<Vec<Provider>, NotNow>>;

    /// Returns the addresses that a provider announced last, through either DHT; `None` if the provider is unknown or
    /// its addresses have expired (PRV-6).
    fn addresses(&self, provider: &PeerId) -> Outcome<Option<Vec<Multiaddr>>>;

    /// Removes a record for good. Returns true if it was known.
    fn remove(&self, multihash: &[u8], provider: &PeerId) -> Outcome<Result<bool, NotNow>>;
}
