//! Own CIDs: provide, unprovide, announce, ask back.

pub mod list;

use super::{Ops, OpsError, underway::Underway, verify};
use crate::{
    kad::{Cid, Dht, PeerInfo, keyspace::Key},
    provide::reprovider::Progress,
    store::provided::{self, Own},
};
use libp2p::Multiaddr;
use tokio::sync::mpsc;

/// Own CIDs that [`Ops::verify`] asks about when none are named.
pub const SAMPLE: usize = 10;
/// Own CIDs that [`Ops::verify`] asks about at most: each takes a look-up and up to 40 requests.
pub const VERIFY_MAX: usize = 100;

/// What [`Ops::provide`] did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Provided {
    /// CIDs that were not there before.
    pub added: usize,
    /// The provider that records name: this node, and where the content is served.
    pub provider: PeerInfo,
    /// `provide.addresses` is set: the content is served elsewhere.
    pub elsewhere: bool,
    /// Servers known at this moment, in both routing tables.
    pub servers: usize,
}

/// What to announce.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Which {
    /// These own CIDs; others are passed over.
    These(Vec<Cid>),
    /// Own CIDs that are due.
    Due,
    /// Every own CID.
    All,
}

/// Whether servers hold our record of an own CID.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// The CID.
    pub cid: Cid,
    /// Closest servers asked.
    pub asked: usize,
    /// Of them, those that name us.
    pub holding: usize,
}

impl Ops {
    /// Keeps these CIDs announced. Returns once they are on disk; announcing begins at once, and is not waited for. All or
    /// none are taken.
    ///
    /// # Errors
    /// [`OpsError::Full`] beyond `reprovide.max_cids`; [`OpsError::Store`] if the disk takes no writes.
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

    /// Announces these CIDs no longer. Returns how many were own ones, once their removal is on disk.
    ///
    /// # Errors
    /// [`OpsError::Store`] if the disk takes no writes.
    pub async fn unprovide(&self, cids: Vec<Cid>) -> Result<usize, OpsError> {
        let multihashes = cids.into_iter().map(|cid| cid.hash().to_bytes()).collect();
        Ok(self.handles.store.provided.remove(multihashes).await?)
    }

    /// Returns how these own CIDs stand, each as it was asked for; others are left out.
    ///
    /// # Errors
    /// [`OpsError::Stopped`].
    pub async fn own(&self, cids: Vec<Cid>) -> Result<Vec<Own>, OpsError> {
        let provided = self.handles.store.provided.clone();
        let own = move |cid: Cid| Some(Own { cid, ..provided.get(&cid.hash().to_bytes())? });
        Ok(tokio::task::spawn_blocking(move || cids.into_iter().filter_map(own).collect()).await?)
    }

    /// Announces now, and returns what came of it. Progress goes to `events`: where its reader is behind, only some of it.
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

    /// [`Ops::announce`] whose events are read here.
    pub fn announcing(&self, which: Which) -> Underway<Progress, impl Future<Output = Progress>> {
        Underway::start(move |events| self.announce(which, events))
    }

    /// Asks the closest servers of up to [`VERIFY_MAX`] own CIDs back whether they hold our record; each outcome goes to
    /// `events`. No CIDs: up to [`SAMPLE`] announced ones from all over the keyspace.
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
            // Nobody may be interested any more: then the caller drops this.
            let _ = events.send(Verified { cid, asked: held.asked, holding: held.holding }).await;
        }
        Ok(())
    }

    /// What this node is announced with: `provide.addresses`, or its own addresses in both DHTs.
    pub(super) fn provider_addresses(&self) -> Vec<Multiaddr> {
        match self.handles.config.provide.addresses.as_slice() {
            [] => self.addresses(),
            elsewhere => elsewhere.to_vec(),
        }
    }
}

/// Announced CIDs, evenly over the keyspace.
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
