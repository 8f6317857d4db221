//! Who provides a multihash, as far as this node itself knows: what GET_PROVIDERS answers, and what a search begins with.

use dhtstore_records::{
    NotNow, OwnCids, Stores,
    providers::{Provider, ProviderRecords},
};
use libp2p::PeerId;
use std::sync::Arc;

/// The records of others, and our own CIDs.
#[derive(Clone, Debug)]
pub(crate) struct Holdings {
    local: PeerId,
    own: Arc<dyn OwnCids>,
    providers: Arc<dyn ProviderRecords>,
}

/// Providers of one multihash.
pub(crate) struct Held {
    /// This node provides it.
    pub(crate) own: bool,
    /// The others, newest first.
    pub(crate) others: Vec<Provider>,
}

impl Holdings {
    pub(crate) fn new(local: PeerId, stores: &Stores) -> Self {
        Self { local, own: stores.own.clone(), providers: stores.providers.clone() }
    }

    /// Up to `limit` others; a random subset, drawn by `seed`, when there are more. What somebody announced in our name is
    /// left out: own CIDs alone count.
    pub(crate) async fn of(&self, multihash: &[u8], limit: usize, seed: u64) -> Result<Held, NotNow> {
        let own = self.own.contains(multihash);
        let mut others = self.providers.providers(multihash, limit, seed).wait().await?;
        others.retain(|provider| provider.peer != self.local);
        Ok(Held { own, others })
    }
}
