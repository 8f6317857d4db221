//! Keeping own CIDs announced (PRV-9): what is due, with which servers, and doing it.
//!
//! [`plan`] decides and is pure: regions of the keyspace, the servers in each, which key goes to which. [`deliver`]
//! announces one page of keys over a [`Network`]; [`reprovider`] goes through all of them, page by page, and notes in the
//! store how far it came.

pub mod deliver;
mod network;
pub mod plan;
pub mod reprovider;

use dhtstore_host::clock;
use dhtstore_kad as kad;
use dhtstore_store as store;
pub use network::{Delivery, Network};
