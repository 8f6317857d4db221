//! Requests that prove where a peer is: over connections that we dialled (RT-4).

use super::{Exchange, Shared, open_on, pool};
use crate::{
    RpcError,
    kad::{
        Dht, PeerInfo,
        message::{self, MessageType},
    },
    streams::Open,
};
use libp2p::{Multiaddr, Stream};
use tokio::sync::mpsc;

impl Shared {
    /// FIND_NODE over a connection that leads to an address of the peer: one that is open, or a fresh one, which is dialled
    /// even if the peer is connected by having dialled us. Says at which address it answered. The outcome does not touch
    /// the routing table.
    ///
    /// Nothing keeps a fresh connection open afterwards: of two that both sides made, the one that is not used ends after
    /// `connections.idle`. To close it at once would break what the other side may have begun on it.
    pub(crate) async fn find_node_dialled(
        &self,
        dht: Dht,
        peer: &PeerInfo,
        target: &[u8],
    ) -> Result<(Vec<PeerInfo>, Multiaddr), RpcError> {
        if self.stop.is_cancelled() {
            return Err(RpcError::Stopped);
        }
        let _permit = self.client.requests.acquire().await.map_err(|_| RpcError::Stopped)?;
        let frames = [message::request(MessageType::FindNode, target)];
        let (at, mut stream) = self.open_dialled(dht, peer).await?;
        let body = self.talk(&mut stream, &Exchange { frames: &frames, answer: MessageType::FindNode }).await?;
        pool::end(stream);
        Ok((self.closer_of(dht, &body)?, at))
    }

    async fn open_dialled(&self, dht: Dht, peer: &PeerInfo) -> Result<(Multiaddr, Stream), RpcError> {
        let scope = self.settings.profile.scope(dht);
        if let Some((at, opener)) = self.connections.dialled(&peer.id, scope) {
            match open_on(&opener, dht).await {
                Ok(Some(stream)) => return Ok((at, stream)),
                // Closed since, or just breaking off.
                Ok(None) | Err(RpcError::Stream(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let (at, opener) = self.reach(dht, peer).await?;
        let stream = open_on(&opener, dht).await?.ok_or_else(closed)?;
        Ok((at, stream))
    }

    async fn reach(&self, dht: Dht, peer: &PeerInfo) -> Result<(Multiaddr, mpsc::Sender<Open>), RpcError> {
        let scope = self.settings.profile.scope(dht);
        // Over the limit our own dial would be refused as if we were busy, and who takes up all places could not be checked.
        if self.connections.count(&peer.id) >= self.settings.connections.max_per_peer as usize {
            return Err(RpcError::Dial(
                "it holds as many connections as a peer may, and none that we dialled".to_owned(),
            ));
        }
        let addrs = peer.addrs.iter().filter(|addr| scope.allows(addr)).cloned().collect();
        self.dial_afresh(peer.id, addrs).await?;
        self.connections.dialled(&peer.id, scope).ok_or_else(closed)
    }
}

fn closed() -> RpcError {
    RpcError::Stream("connection closed".to_owned())
}
