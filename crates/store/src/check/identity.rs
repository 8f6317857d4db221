//! Reads the peer id that own CIDs are announced under, from the directory of a stopped node.

use crate::{
    StoreError,
    data_dir::{self, names::NODE},
    engine::guard,
    meta,
};
use libp2p_identity::PeerId;
use std::{collections::BTreeMap, path::Path};

/// What a directory says about its own CIDs.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Announced {
    /// Number of own CIDs at the last flush.
    pub own: u64,
    /// The peer id that the announcements name; `None` if no version of dhtstore has written it to this directory yet.
    pub peer: Option<PeerId>,
    /// The highest sequence number of each own IPNS name.
    pub sequences: BTreeMap<PeerId, u64>,
}

/// Reads these facts from a copy of `node/`. Returns the default if the copy cannot be opened, which is reported as a
/// finding of its own.
///
/// # Errors
/// [`StoreError::Locked`] while a server has the directory; [`StoreError::Io`].
pub fn announced(dir: &Path) -> Result<Announced, StoreError> {
    let place = dir.join(NODE);
    if !place.is_dir() {
        return Ok(Announced::default());
    }
    let copy = data_dir::copy_part_for_reading(dir, NODE)?;
    let Ok(db) = guard(|| sled::Config::new().path(copy.path().join(NODE)).open()) else {
        return Ok(Announced::default());
    };
    let own = meta::own_of(&db).ok().flatten().unwrap_or(0);
    let peer = meta::peer_of(&db).ok().flatten().and_then(|bytes| PeerId::from_bytes(&bytes).ok());
    let sequences = meta::peers_of(meta::sequences_of(&db).unwrap_or_default());
    Ok(Announced { own, peer, sequences })
}
