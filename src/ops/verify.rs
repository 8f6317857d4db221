//! Asking back: do the servers closest to a CID hold a record of it?

use crate::{
    kad::{Dht, PeerInfo},
    node::{Node, RpcError},
};
use futures::StreamExt;
use std::{collections::HashSet, time::Duration};

/// Servers asked at the same time: all k of one look-up.
const PARALLEL: usize = crate::kad::table::K;

/// One of the k closest servers, and what it answered.
#[derive(Clone, Debug)]
pub struct Asked {
    /// In which DHT.
    pub dht: Dht,
    /// The server.
    pub server: PeerInfo,
    /// The providers it named.
    pub answer: Result<Vec<PeerInfo>, RpcError>,
}

/// Finds the k servers closest to `multihash` in `dht` and asks each for its providers; closest first.
/// Empty without servers.
pub async fn ask_closest(node: &Node, dht: Dht, multihash: &[u8]) -> Vec<Asked> {
    if node.table(dht).is_empty() {
        return Vec::new();
    }
    let closest = node.closest_peers(dht, multihash, None).await.peers;
    futures::stream::iter(closest)
        .map(|server| async move {
            let answer = node.get_providers(dht, &server, multihash).await.map(|answer| answer.providers);
            Asked { dht, server, answer }
        })
        .buffered(PARALLEL)
        .collect()
        .await
}

/// What asking back about one of our own CIDs brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Held {
    /// Servers asked.
    pub asked: usize,
    /// Of them, those that name us as a provider.
    pub holding: usize,
}

/// How many of the closest servers name us as a provider of `multihash`. A server that is in both DHTs counts once.
pub async fn held(node: &Node, multihash: &[u8]) -> Held {
    let own = node.peer_id();
    let (mut asked, mut holding) = (HashSet::new(), HashSet::new());
    for dht in Dht::ALL {
        for server in ask_closest(node, dht, multihash).await {
            asked.insert(server.server.id);
            if server.answer.is_ok_and(|providers| providers.iter().any(|provider| provider.id == own)) {
                holding.insert(server.server.id);
            }
        }
    }
    Held { asked: asked.len(), holding: holding.len() }
}

/// How long a peer is given to be dialled when somebody asks whether it can be.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(15);

/// Whether `peer` can be dialled, within [`DIAL_TIMEOUT`].
pub async fn dialable(node: &Node, peer: &PeerInfo) -> Result<Duration, RpcError> {
    match tokio::time::timeout(DIAL_TIMEOUT, node.can_dial(peer)).await {
        Ok(result) => result,
        Err(_) => Err(RpcError::Timeout(DIAL_TIMEOUT)),
    }
}
