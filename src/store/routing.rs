//! Routing tables as saved at the last snapshot.

use super::StoreError;
use crate::{
    clock::UnixTime,
    kad::{Dht, PeerInfo},
};

/// A peer of a saved table.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct SavedPeer {
    pub peer: PeerInfo,
    pub heard: UnixTime,
}

/// Saved routing tables. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RoutingState {}

#[expect(unused_variables, missing_docs)]
impl RoutingState {
    /// Replaces the saved table of `dht`.
    pub async fn save(&self, dht: Dht, peers: Vec<SavedPeer>) -> Result<(), StoreError> {
        todo!()
    }
    pub fn load(&self, dht: Dht) -> Vec<SavedPeer> {
        todo!()
    }
}
