//! The providers of a multihash that this node knows: GET_PROVIDERS answers with them, and a search begins with them.

use dhtstore_records::{
    NotNow, OwnCids, Stores,
    providers::{Provider, ProviderRecords},
};
use libp2p::PeerId;
use std::sync::Arc;

/// The provider records of others, and the multihashes that this node provides.
#[derive(Clone, Debug)]
pub(crate) struct Holdings {
    local: PeerId,
    own: Arc<dyn OwnCids>,
    providers: Arc<dyn ProviderRecords>,
}

/// The providers of one multihash.
pub(crate) struct Held {
    /// Whether this node provides it.
    pub(crate) own: bool,
    /// The others, newest first.
    pub(crate) others: Vec<Provider>,
}

impl Holdings {
    pub(crate) fn new(local: PeerId, stores: &Stores) -> Self {
        Self { local, own: stores.own.clone(), providers: stores.providers.clone() }
    }

    /// Returns the known providers of `multihash`, at most `limit` besides this node. If there are more, `seed` selects
    /// a random subset. A record that another peer announced in our name is left out: only our own CIDs decide
    /// whether this node is a provider.
    pub(crate) async fn of(&self, multihash: &[u8], limit: usize, seed: u64) -> Result<Held, NotNow> {
        let own = self.own.contains(multihash);
        let mut others = self.providers.providers(multihash, limit, seed).wait().await?;
        others.retain(|provider| provider.peer != self.local);
        Ok(Held { own, others })
    }
}
