//! Provider records: the log, the index and the address book behind one door.

use super::StoreError;
use crate::{
    clock::UnixTime,
    kad::{Dht, PeerInfo},
};
use libp2p::{Multiaddr, PeerId};

/// The record store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Records {}

/// A provider of a key, as GET_PROVIDERS answers it.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Provider {
    pub peer: PeerId,
    /// All known addresses, whichever DHT they came by; empty when older than the address ttl. Filter by scope.
    pub addrs: Vec<Multiaddr>,
    pub received: UnixTime,
}

/// What became of an announcement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Added {
    New,
    Refreshed,
}

/// Why an announcement was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Refused {
    #[error("record limit reached")]
    RecordsFull,
    #[error("provider limit of this key reached")]
    KeyFull,
    #[error("peer limit reached")]
    PeersFull,
    #[error("the database does not take writes")]
    ReadOnly,
}

/// What one garbage collection did.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct GcReport {
    pub chunks: u64,
    pub expired: u64,
    pub paused: Option<String>,
}

#[expect(unused_variables, missing_docs)]
impl Records {
    /// Takes an announcement that came by `via`; waits while the writer is behind. Refreshes are always taken.
    /// `provider.addrs` (already filtered by that DHT's scope) replace those that came by the same DHT.
    pub async fn add(&self, multihash: &[u8], provider: &PeerInfo, via: Dht) -> Result<Added, Refused> {
        todo!()
    }
    /// Up to `limit` live providers; a random subset (by `seed`) when there are more.
    pub async fn providers(&self, multihash: &[u8], limit: usize, seed: u64) -> Vec<Provider> {
        todo!()
    }
    pub async fn remove(&self, multihash: &[u8], provider: &PeerId) -> bool {
        todo!()
    }
    /// A provider's addresses from the address book, unless outlived.
    pub fn addresses(&self, peer: &PeerId) -> Option<Vec<Multiaddr>> {
        todo!()
    }
    /// Removes what is older than the ttl, in slices, off the async threads.
    pub async fn collect_garbage(&self) -> Result<GcReport, StoreError> {
        todo!()
    }
    /// True once the log has been replayed.
    pub fn is_replayed(&self) -> bool {
        todo!()
    }
}
