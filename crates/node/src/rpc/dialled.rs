//! Requests that prove where a peer is: over connections that we dialled (RT-4).

use super::{
    exchange::{Exchange, Exchanges, closed, open_on},
    pool,
};
use crate::{
    error::RpcError,
    kad::{Dht, PeerInfo},
    peers::connections::Open,
};
use libp2p::{Multiaddr, Stream};
use tokio::sync::mpsc;

impl Exchanges {
    /// One exchange over a connection that leads to an address of the peer: one that is open, or a fresh one, which is
    /// dialled even if the peer is connected by having dialled us. The answer's body, and at which address the peer is.
    ///
    /// Nothing keeps a fresh connection open afterwards: of two that both sides made, the one that is not used ends after
    /// `connections.idle`. To close it at once would break what the other side may have begun on it.
    pub(super) async fn request_dialled(
        &self,
        dht: Dht,
        peer: &PeerInfo,
        exchange: Exchange<'_>,
    ) -> Result<(Vec<u8>, Multiaddr), RpcError> {
        let _permit = self.permit().await?;
        let (at, mut stream) = self.open_dialled(dht, peer).await?;
        let body = self.talk(&mut stream, &exchange).await?;
        pool::end(stream);
        Ok((body, at))
    }

    async fn open_dialled(&self, dht: Dht, peer: &PeerInfo) -> Result<(Multiaddr, Stream), RpcError> {
        if let Some((at, opener)) = self.peers.connections.dialled(&peer.id, self.peers.scope(dht)) {
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
        // Over the limit our own dial would be refused as if we were busy, and who takes up all places could not be checked.
        if self.peers.connections.count(&peer.id) >= self.max_per_peer {
            return Err(RpcError::Dial(
                "it holds as many connections as a peer may, and none that we dialled".to_owned(),
            ));
        }
        self.dialer.dial_afresh(peer.id, self.peers.dialable(dht, peer)).await?;
        self.peers.connections.dialled(&peer.id, self.peers.scope(dht)).ok_or_else(closed)
    }
}
