//! Announces provider records: pipelines ADD_PROVIDERs before a FIND_NODE whose answer proves that the server read
//! them.

use super::{Delivery, Rpc, decode, exchange::Exchange};
use crate::{
    error::RpcError,
    kad::{
        Dht, PeerInfo,
        message::{self, MessageType},
    },
};
use bytes::Bytes;

/// Most ADD_PROVIDERs before one FIND_NODE, the barrier: some 50 KB. With more, a slow server might not reach the
/// FIND_NODE within its time-out.
const PIPELINE: usize = 256;

impl Rpc {
    /// See [`crate::Node::add_providers`].
    pub(crate) async fn add_providers(&self, dht: Dht, peer: &PeerInfo, multihashes: &[Vec<u8>]) -> Delivery {
        let provider = self.peers.provider_entry(dht);
        if self.peers.provider_addresses(dht).is_empty() {
            let why = "this node has no address to announce in that DHT; set `announce` or `provide.addresses`";
            return Delivery { read: Vec::new(), error: Some(RpcError::stream(why)) };
        }
        let barrier = message::request(MessageType::FindNode, &self.peers.local.to_bytes());
        let mut delivery = Delivery::default();
        for (number, chunk) in multihashes.chunks(PIPELINE).enumerate() {
            let first = number * PIPELINE;
            if self.singles.contains(&peer.id, self.clock.monotonic()) {
                if !self.add_on_own_streams(dht, peer, (first, chunk), &provider, &mut delivery).await {
                    return delivery;
                }
                continue;
            }
            let adds = chunk.iter().map(|multihash| message::add_provider(multihash, &provider));
            let frames: Vec<Bytes> = adds.chain([barrier.clone()]).collect();
            match self.barrier(dht, peer, &frames).await {
                Ok(()) => delivery.read.extend(first..first + chunk.len()),
                // Either it reads only one request of each stream, or it ended the stream because it refuses one
                // record.
                Err(error @ RpcError::Stream(_)) => {
                    let goes_on = if self.reads_one_per_stream(dht, peer).await {
                        tracing::debug!(peer = %peer.id, "reads one request of each stream, using one stream each");
                        self.singles.insert(peer.id, self.clock.monotonic());
                        self.add_on_own_streams(dht, peer, (first, chunk), &provider, &mut delivery).await
                    } else if chunk.len() > 1 {
                        self.one_by_one(dht, peer, (first, &frames), &barrier, &mut delivery).await
                    } else {
                        delivery.error = Some(error);
                        false
                    };
                    if !goes_on {
                        return delivery;
                    }
                }
                Err(error) => {
                    delivery.error = Some(error);
                    return delivery;
                }
            }
        }
        delivery
    }

    /// Sends each of the frames, except the last one, followed by a barrier of its own. `first` is the position of the
    /// first frame in the delivery. Returns whether to continue with this server.
    async fn one_by_one(
        &self,
        dht: Dht,
        peer: &PeerInfo,
        (first, frames): (usize, &[Bytes]),
        barrier: &Bytes,
        delivery: &mut Delivery,
    ) -> bool {
        let mut refused = 0;
        let adds = frames.split_last().map(|(_, adds)| adds).unwrap_or_default();
        for (at, add) in adds.iter().enumerate() {
            let outcome = self.barrier(dht, peer, &[add.clone(), barrier.clone()]).await;
            if !delivery.note(first + at, outcome, &mut refused) {
                return false;
            }
        }
        true
    }

    /// Sends `frames` and waits for the answer to the last one, a FIND_NODE.
    async fn barrier(&self, dht: Dht, peer: &PeerInfo, frames: &[Bytes]) -> Result<(), RpcError> {
        let answer = self.exchange(dht, peer, Exchange { frames, answer: MessageType::FindNode }).await;
        let closer = answer.and_then(|body| Ok(decode(&body)?.closer_peers().count()));
        self.notice(dht, peer, closer.as_ref().copied());
        closer.map(|_| ())
    }
}
