//! Own CIDs: provide, unprovide, announce, verify.

pub mod list;

use super::{Ops, OpsError, underway::Underway, verify};
use crate::{
    kad::{Cid, Dht, PeerInfo, keyspace::Key},
    provide::reprovider::Progress,
    store::provided::{self, Own},
};
use libp2p::Multiaddr;
use tokio::sync::mpsc;

/// Own CIDs that [`Ops::verify`] picks if none are named.
pub const SAMPLE: usize = 10;
/// Most own CIDs that [`Ops::verify`] asks about. Each takes a look-up and up to 40 requests.
pub const VERIFY_MAX: usize = 100;

/// The result of [`Ops::provide`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Provided {
    /// The number of CIDs that were not own CIDs before.
    pub added: usize,
    /// The provider that the records name: this node, with the addresses where the content is served.
    pub provider: PeerInfo,
    /// Whether `provide.addresses` is set, so that the content is served elsewhere.
    pub elsewhere: bool,
    /// The number of servers in both routing tables now.
    pub servers: usize,
}

/// Own CIDs to announce.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Which {
    /// These. Those that are not own CIDs are skipped.
    These(Vec<Cid>),
    /// Those that are due.
    Due,
    /// All.
    All,
}

/// The number of servers that hold the node's record of an own CID.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// The CID.
    pub cid: Cid,
    /// The closest servers that were asked.
    pub asked: usize,
    /// Those of them that name this node as a provider.
    pub holding: usize,
}

impl Ops {
    /// Adds own CIDs, all or none. Returns once they are on disk. Announcing begins at once and goes on after that.
    ///
    /// # Errors
    /// [`OpsError::Full`] beyond `reprovide.max_cids`; [`OpsError::Store`] if the disk cannot be written.
    pub async fn provide(&self, cids: Vec<Cid>) -> Result<Provided, OpsError> {
        let handles = &self.handles;
        let added = handles.store.provided.add(cids).await?;
        handles.reprovider.wake();
        Ok(Provided {
            added,
            provider: PeerInfo { id: self.peer_id(), addrs: self.provider_addresses() },
            elsewhere: !handles.config.provide.addresses.is_empty(),
            servers: Dht::ALL.into_iter().map(|dht| handles.node.table(dht).len()).sum(),
        })
    }

    /// Removes own CIDs. Returns how many of `cids` were own CIDs, once their removal is on disk.
    ///
    /// # Errors
    /// [`OpsError::Store`] if the disk cannot be written.
    pub async fn unprovide(&self, cids: Vec<Cid>) -> Result<usize, OpsError> {
        let multihashes = cids.into_iter().map(|cid| cid.hash().to_bytes()).collect();
        Ok(self.handles.store.provided.remove(multihashes).await?)
    }

    /// Returns the states of these own CIDs, each in the form that was asked for. Those that are not own CIDs are left
    /// out.
    ///
    /// # Errors
    /// [`OpsError::Stopped`].
    pub async fn own(&self, cids: Vec<Cid>) -> Result<Vec<Own>, OpsError> {
        let provided = self.handles.store.provided.clone();
        let own = move |cid: Cid| Some(Own { cid, ..provided.get(&cid.hash().to_bytes())? });
        Ok(tokio::task::spawn_blocking(move || cids.into_iter().filter_map(own).collect()).await?)
    }

    /// Announces own CIDs now. Returns the result. Progress goes to `events`; a slow reader misses some of it.
    pub async fn announce(&self, which: Which, events: mpsc::Sender<Progress>) -> Progress {
        let reprovider = &self.handles.reprovider;
        match which {
            Which::These(cids) => {
                let multihashes = cids.into_iter().map(|cid| cid.hash().to_bytes()).collect();
                reprovider.announce(multihashes, events).await
            }
            Which::Due => reprovider.announce_due(events).await,
            Which::All => reprovider.announce_all(events).await,
        }
    }

    /// Runs [`Ops::announce`] and returns its events as they come.
    pub fn announcing(&self, which: Which) -> Underway<Progress, impl Future<Output = Progress>> {
        Underway::start(move |events| self.announce(which, events))
    }

    /// Asks the closest servers of up to [`VERIFY_MAX`] own CIDs whether they hold the node's record. Each result goes
    /// to `events`. If no CIDs are named, up to [`SAMPLE`] announced ones are picked evenly over the keyspace.
    ///
    /// # Errors
    /// [`OpsError::Stopped`].
    pub async fn verify(&self, mut cids: Vec<Cid>, events: mpsc::Sender<Verified>) -> Result<(), OpsError> {
        if cids.is_empty() {
            let provided = self.handles.store.provided.clone();
            cids = tokio::task::spawn_blocking(move || sample(&provided)).await?;
        }
        for cid in cids.into_iter().take(VERIFY_MAX) {
            let held = verify::held(&self.handles.node, &cid.hash().to_bytes()).await;
            // A caller that needs no more results drops this future.
            let _ = events.send(Verified { cid, asked: held.asked, holding: held.holding }).await;
        }
        Ok(())
    }

    /// Returns the addresses of this node as a provider: `provide.addresses`, or its own addresses in both DHTs.
    pub(super) fn provider_addresses(&self) -> Vec<Multiaddr> {
        match self.handles.config.provide.addresses.as_slice() {
            [] => self.addresses(),
            elsewhere => elsewhere.to_vec(),
        }
    }
}

/// Returns announced CIDs, evenly over the keyspace.
fn sample(provided: &provided::Provided) -> Vec<Cid> {
    let mut sample: Vec<Cid> = Vec::new();
    for part in 0..SAMPLE {
        let mut from = [0; 32];
        from[0] = u8::try_from(part * 256 / SAMPLE).unwrap_or(u8::MAX);
        for (_, own) in provided.range(&Key::from_bytes(from), 1) {
            if own.announced.is_some() && !sample.contains(&own.cid) {
                sample.push(own.cid);
            }
        }
    }
    sample
}
