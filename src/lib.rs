//! A persistent provider-record server for the IPFS Kademlia DHT.

pub mod backup;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
mod files;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod node;
pub mod provide;
pub mod schedule;
pub mod store;
pub mod vital;

pub use dhtstore_kad as kad;
