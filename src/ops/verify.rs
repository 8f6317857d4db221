//! Asks the servers closest to a CID whether they hold a record of it.

use crate::{
    kad::{Dht, PeerInfo},
    node::{Node, RpcError},
};
use futures::StreamExt;
use std::{collections::HashSet, time::Duration};

/// Servers to ask at the same time: all k of one look-up.
const PARALLEL: usize = crate::kad::table::K;

/// One of the k closest servers, with its answer.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The DHT that it serves.
    pub dht: Dht,
    /// Its peer id and addresses.
    pub server: PeerInfo,
    /// The providers that it named, or why it did not answer.
    pub answer: Result<Vec<PeerInfo>, RpcError>,
}

/// Finds the k servers closest to `multihash` in `dht` and asks each for providers. Returns the answers, closest server
/// first; none if the routing table is empty.
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

/// The number of servers that hold the node's record of an own CID.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Held {
    /// The servers that were asked.
    pub asked: usize,
    /// Those of them that name this node as a provider.
    pub holding: usize,
}

/// Counts the closest servers that name this node as a provider of `multihash`. A server in both DHTs counts once.
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

/// Time allowed for a dial that only finds out whether a peer can be dialled.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(15);

/// Dials `peer` within [`DIAL_TIMEOUT`]. Returns the time that it took.
///
/// # Errors
/// [`RpcError`] if the peer cannot be dialled.
pub async fn dialable(node: &Node, peer: &PeerInfo) -> Result<Duration, RpcError> {
    match tokio::time::timeout(DIAL_TIMEOUT, node.can_dial(peer)).await {
        Ok(result) => result,
        Err(_) => Err(RpcError::Timeout(DIAL_TIMEOUT)),
    }
}
