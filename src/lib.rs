//! A persistent provider-record server for the IPFS Kademlia DHT.

pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod kad;
pub mod node;
pub mod provide;
pub mod schedule;
pub mod store;
