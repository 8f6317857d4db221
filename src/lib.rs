//! A persistent provider-record server for the IPFS Kademlia DHT.

pub mod backup;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod ops;
pub mod schedule;

pub use dhtstore_host::{clock, files, vital};
pub use dhtstore_kad as kad;
pub use dhtstore_node as node;
pub use dhtstore_provide as provide;
pub use dhtstore_store as store;
pub use dhtstore_transport as transport;
