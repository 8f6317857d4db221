//! The part of a start that works on the disk: lock, ballast, identity, store.

use super::DaemonError;
use crate::{
    clock::Clock,
    config::Config,
    kad::keyspace::Key,
    store::{Settings, Store, ballast, data_dir::Lock},
    transport::identity,
};
use libp2p::identity::Keypair;
use std::{path::Path, sync::Arc};

/// A data directory that this process has locked, with its store.
pub(super) struct Opened {
    pub lock: Arc<Lock>,
    pub identity: Keypair,
    pub store: Store,
    /// Whether the disk was full, so that this start gave ballast up.
    pub gave_up: bool,
}

impl Opened {
    /// Locks and opens the data directory. Creates what is missing.
    pub async fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, DaemonError> {
        let (dir, settings) = (config.data_dir.clone(), config.store_settings());
        tokio::task::spawn_blocking(move || open(&dir, settings, clock)).await?
    }
}

fn open(dir: &Path, mut settings: Settings, clock: Arc<dyn Clock>) -> Result<Opened, DaemonError> {
    let lock = Arc::new(Lock::acquire(dir)?);
    let gave_up = ballast::give_up_if_full(dir);
    let identity = identity::load_or_create(dir)?;
    let peer = identity.public().to_peer_id();
    settings.position = *Key::for_peer(&peer).as_bytes();
    let store = Store::open(&lock, settings, clock)?;
    match store.announce_as(&peer) {
        Ok(None) => {}
        Ok(Some((before, own))) => tracing::warn!(
            %before,
            now = %peer,
            own_cids = own,
            "the node has a new peer id, so all own CIDs are announced again at once; if identity.key was lost, \
             stop the node and restore it from a backup"
        ),
        // The disk cannot be written.
        Err(error) => tracing::warn!(%error, "cannot store the peer id that own CIDs are announced under; tried again \
            at the next start"),
    }
    Ok(Opened { lock, identity, store, gave_up })
}
