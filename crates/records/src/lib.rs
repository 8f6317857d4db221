//! The interface between a server of the DHT and the store of its records.
//!
//! A server holds [`Stores`]: four traits, so that each part of a node takes only what it needs. Two crates implement
//! them. `dhtstore-store` keeps records on disk; the module [`memory`] keeps them in memory, for tests and simulation.
//! A store on another machine fits as well, since an answer may be ready at once or pending.
//!
//! To use a store, begin with these types:
//! - [`Stores`]: the four traits of a node, in one value that is cheap to clone;
//! - [`ProviderRecords`]: adds, returns and removes provider records;
//! - [`Outcome`]: the answer to a call, ready or pending. A store that is out of reach answers [`NotNow`].
//!
//! To write a store, implement the traits and run the checks of the module `contract` (feature `contract`) against it.
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
//! let found = stores.providers.providers(b"multihash", 20, 0).now().unwrap()?;
//! assert_eq!(found[0].peer, provider.id);
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

/// The multihashes that this node itself provides. Its records of them never expire and are in no [`ProviderRecords`].
pub trait OwnCids: std::fmt::Debug + Send + Sync {
    /// Returns whether this node provides `multihash`. Reads memory only.
    fn contains(&self, multihash: &[u8]) -> bool;
}

/// The stores of a node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stores {
    /// Provider records that other peers announced.
    pub providers: Arc<dyn ProviderRecords>,
    /// Public keys and IPNS records that other peers put.
    pub values: Arc<dyn Values>,
    /// The multihashes that this node provides.
    pub own: Arc<dyn OwnCids>,
    /// Routing tables from before the last stop.
    pub tables: Arc<dyn SavedTables>,
}
