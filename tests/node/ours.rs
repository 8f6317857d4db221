//! Starts our nodes from configurations.

use dhtstore::{
    clock::{Clock, SystemClock},
    config::{Config, Profile},
    kad::PeerInfo,
};
use dhtstore_testkit::ours::full_addresses;
pub use dhtstore_testkit::ours::{Ahead, Ours, eventually, holds, multihash};
use libp2p::{Multiaddr, identity::Keypair};
use std::sync::Arc;

/// A configuration that listens on free TCP and QUIC ports of loopback.
pub fn config() -> Config {
    let mut config = Config::defaults(Profile::Private);
    config.listen = vec![addr("/ip4/127.0.0.1/tcp/0"), addr("/ip4/127.0.0.1/udp/0/quic-v1")];
    config
}

pub fn addr(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

pub async fn start() -> Ours {
    start_with(config()).await
}

/// Starts a node that bootstraps from `peers`.
pub async fn joining(peers: &[PeerInfo]) -> Ours {
    start_with(Config { bootstrap: full_addresses(peers), ..config() }).await
}

pub async fn start_with(config: Config) -> Ours {
    start_as(config, Keypair::generate_ed25519(), SystemClock::new()).await
}

pub async fn start_as(config: Config, identity: Keypair, clock: Arc<dyn Clock>) -> Ours {
    Ours::start(config.node_settings(), config.store_settings(), identity, clock).await
}
