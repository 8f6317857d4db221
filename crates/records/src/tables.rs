//! Routing tables, saved for the next start.

use dhtstore_host::clock::UnixTime;
use dhtstore_kad::{Dht, PeerInfo};
use futures::future::BoxFuture;
use std::fmt;

/// A peer of a saved table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SavedPeer {
    /// The peer and its addresses.
    pub peer: PeerInfo,
    /// When it was last heard.
    pub heard: UnixTime,
}

/// The error of a store that could not save a table.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotSaved(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// A store of one routing table for each DHT.
pub trait SavedTables: fmt::Debug + Send + Sync {
    /// Returns the peers of the table that was saved last.
    fn load(&self, dht: Dht) -> BoxFuture<'static, Vec<SavedPeer>>;

    /// Replaces the saved table of `dht`.
    fn save(&self, dht: Dht, peers: Vec<SavedPeer>) -> BoxFuture<'static, Result<(), NotSaved>>;
}
