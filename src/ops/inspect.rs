//! Looking at the daemon: figures.

use super::{Ops, OpsError};
use crate::kad::Dht;

/// A few figures, for a line of status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Brief {
    /// Entries of the routing table of each DHT.
    pub servers: Vec<(Dht, usize)>,
    /// Provider records.
    pub records: u64,
    /// Own CIDs.
    pub own: u64,
}

impl Ops {
    /// A few figures.
    ///
    /// # Errors
    /// [`OpsError::Stopped`].
    pub async fn brief(&self) -> Result<Brief, OpsError> {
        let store = self.parts.store.clone();
        let stat = tokio::task::spawn_blocking(move || store.stat()).await?;
        let servers = Dht::ALL.into_iter().map(|dht| (dht, self.parts.node.table(dht).len())).collect();
        Ok(Brief { servers, records: stat.records, own: stat.provided })
    }
}
