//! The seam between a server of the DHT and whatever keeps its records: what the server asks, and what it is answered.
//!
//! A server holds [`Stores`]: four traits, so that each part of a node takes only what it needs. `dhtstore-store` implements
//! them on disk, [`memory`] in some kilobytes of memory for tests and simulation. A store on another machine fits as well: an
//! answer is an [`Outcome`], ready at once or pending, and a store that is out of reach says [`NotNow`].
//!
//! ```
//! use dhtstore_host::clock::{ManualClock, UnixTime};
//! use dhtstore_kad::{Dht, PeerInfo};
//! use dhtstore_records::{memory, providers::Added};
//! use libp2p_identity::PeerId;
//!
//! let stores = memory::stores(memory::Settings::default(), ManualClock::at(UnixTime(1_700_000_000)));
//! let provider = PeerInfo { id: PeerId::from_bytes(&[0x12, 2, 1, 2])?, addrs: Vec::new() };
//! assert_eq!(stores.providers.add(b"multihash", &provider, Dht::Wan).now(), Some(Ok(Added::New)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(any(test, feature = "contract"))]
pub mod contract;
pub mod memory;
mod outcome;
pub mod providers;
pub mod tables;
pub mod values;

pub use outcome::{NotNow, Outcome};
use providers::ProviderRecords;
use std::sync::Arc;
use tables::SavedTables;
use values::Values;

/// Which multihashes this node itself provides. Its records of them never expire and are in no [`ProviderRecords`].
pub trait OwnCids: std::fmt::Debug + Send + Sync {
    /// Whether this node provides `multihash`. Memory only.
    fn contains(&self, multihash: &[u8]) -> bool;
}

/// Everything that a node keeps. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stores {
    /// Who provides what, as others announced it.
    pub providers: Arc<dyn ProviderRecords>,
    /// Public keys and IPNS records that others put.
    pub values: Arc<dyn Values>,
    /// What this node provides.
    pub own: Arc<dyn OwnCids>,
    /// Routing tables from before the last stop.
    pub tables: Arc<dyn SavedTables>,
}
