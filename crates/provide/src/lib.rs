//! Keeps the node's own CIDs announced in the DHT (PRV-9), by sweeps over the keyspace.
//!
//! A sweep goes through the own CIDs in keyspace order, region by region. A few look-ups find all servers of a region.
//! Each key of the region is then allocated to its k closest servers without a look-up of its own, and each server gets
//! its keys in batches.
//!
//! - [`plan`] decides and is pure: which keys are due, which servers are in a region, which server gets which key.
//! - [`deliver`] announces one page of keys over a [`Network`].
//! - [`reprovider`] goes through all own CIDs page by page, and notes its progress in the store.
//! - [`Network`] is what all of this needs of a node: a trait, so that tests and simulations run without sockets.
//!
//! Start with [`reprovider::Reprovider`] to keep the CIDs of a store announced, or with [`deliver::Sweep`] to announce
//! a list of keys once. `cargo run -p dhtstore-provide --example sweep` announces 1,000 keys to a network in memory.

pub mod deliver;
mod network;
pub mod plan;
pub mod reprovider;

use dhtstore_host::clock;
use dhtstore_kad as kad;
use dhtstore_store as store;
pub use network::{Delivery, Network};
