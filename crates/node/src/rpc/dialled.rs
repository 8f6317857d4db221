//! Requests over connections that we dialled: they prove the address of a peer (RT-4).

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
    /// Makes one exchange over a connection that we dialled. Uses an open one, or else dials a new one, even if the
    /// peer has dialled us. Returns the body of the answer and the address of the peer.
    ///
    /// Nothing keeps a new connection open afterwards: if both sides have dialled, the unused one of the two
    /// connections ends after `connections.idle`. It is not closed at once, because the other side may have begun to
    /// use it.
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
                // Closed in the meantime, or just breaking.
                Ok(None) | Err(RpcError::Stream(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let (at, opener) = self.reach(dht, peer).await?;
        let stream = open_on(&opener, dht).await?.ok_or_else(closed)?;
        Ok((at, stream))
    }

    async fn reach(&self, dht: Dht, peer: &PeerInfo) -> Result<(Multiaddr, mpsc::Sender<Open>), RpcError> {
        // A dial over this limit would fail with `Busy`, which says nothing about the peer. A peer could then escape
        // every check by using all its places.
        if self.peers.connections.count(&peer.id) >= self.max_per_peer {
            return Err(RpcError::dial("it has as many connections as a peer may have, and we dialled none of them"));
        }
        self.dialer.dial_afresh(peer.id, self.peers.dialable(dht, peer)).await?;
        self.peers.connections.dialled(&peer.id, self.peers.scope(dht)).ok_or_else(closed)
    }
}
