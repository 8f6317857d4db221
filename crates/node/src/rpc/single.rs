//! Announces to servers that read only one request of each stream, as litep2p does: they drop requests pipelined behind
//! it. Such a server is detected when its stream ends where an answer should come. It is remembered, and gets each
//! announcement on a stream of its own.

use super::{
    Delivery, Rpc, decode,
    exchange::{ANSWER_TIMEOUT, Exchange, WRITE_STALL, not_written},
    pool,
};
use crate::{
    error::RpcError,
    framing::{flush_moving, write_moving},
    kad::{
        Dht, PeerInfo,
        message::{self, EncodedPeer, Message, MessageType},
    },
};
use bytes::Bytes;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::Stream;
use tokio::time::timeout;

/// Announcements sent to one server at the same time, each on its own stream. With a round trip of 200 ms a thousand
/// take about a minute.
const PARALLEL: usize = 16;

/// Most bytes read from a server on the stream of an announcement. An echo is shorter.
const MAX_ECHO: usize = 16 * 1024;

impl Rpc {
    /// Tests a server with two FIND_NODEs on a new stream. Returns whether it answers the first and ends the stream
    /// before the second; unlike a stream with ADD_PROVIDERs, this one cannot end because of a refused record.
    pub(super) async fn reads_one_per_stream(&self, dht: Dht, peer: &PeerInfo) -> bool {
        let Ok(_permit) = self.exchanges.permit().await else { return false };
        let Ok(mut stream) = self.exchanges.open(dht, peer).await else { return false };
        let question = message::request(MessageType::FindNode, &self.peers.local.to_bytes());
        for _ in 0..2 {
            // The second write may fail because the server has ended the stream; the answer to the first is still
            // readable.
            if write_moving(&mut stream, &question, WRITE_STALL).await.is_err()
                || flush_moving(&mut stream, WRITE_STALL).await.is_err()
            {
                break;
            }
        }
        let mut reader = self.exchanges.reader();
        let Ok(Ok(Some(at))) = timeout(ANSWER_TIMEOUT, reader.next(&mut stream)).await else { return false };
        if Message::decode(reader.body(at)).map(|answer| answer.kind) != Ok(MessageType::FindNode) {
            return false;
        }
        reader.consume(at);
        // True only if the stream has ended: a second answer or silence means false.
        match timeout(ANSWER_TIMEOUT, reader.next(&mut stream)).await {
            Ok(Ok(None) | Err(_)) => true,
            Ok(Ok(Some(_))) => {
                pool::end(stream);
                false
            }
            Err(_) => false,
        }
    }

    /// Sends each announcement on a stream of its own. `first` is the position of the first one in the delivery.
    /// Returns whether to continue with this server.
    pub(super) async fn add_on_own_streams(
        &self,
        dht: Dht,
        peer: &PeerInfo,
        (first, multihashes): (usize, &[Vec<u8>]),
        provider: &EncodedPeer,
        delivery: &mut Delivery,
    ) -> bool {
        let each = |(at, multihash): (usize, &Vec<u8>)| {
            let add = message::add_provider(multihash, provider);
            let multihash = multihash.clone();
            async move { (at, self.add_and_ask(dht, peer, &add, &multihash).await) }
        };
        let sending: Vec<_> = multihashes.iter().enumerate().map(each).collect();
        // In order, so that failures in a row can be counted.
        let mut outcomes = futures::stream::iter(sending).buffered(PARALLEL);
        let mut refused = 0;
        while let Some((at, outcome)) = outcomes.next().await {
            if !delivery.note(first + at, outcome, &mut refused) {
                return false;
            }
        }
        true
    }

    /// Sends one announcement on a stream of its own. Then asks with GET_PROVIDERS on another stream; if the answer
    /// names us, the server has read the announcement. The end of the first stream proves nothing: the server ends it
    /// after a refusal too.
    async fn add_and_ask(&self, dht: Dht, peer: &PeerInfo, add: &Bytes, multihash: &[u8]) -> Result<(), RpcError> {
        {
            let _permit = self.exchanges.permit().await?;
            let stream = self.exchanges.open(dht, peer).await?;
            write_and_await_end(stream, add).await?;
        }
        let question = [message::request(MessageType::GetProviders, multihash)];
        let body = self.exchange(dht, peer, Exchange { frames: &question, answer: MessageType::GetProviders }).await?;
        let answer = decode(&body)?;
        self.notice(dht, peer, Ok(answer.closer_peers().count()));
        let own = self.peers.local.to_bytes();
        let named = answer.provider_peers().any(|provider| provider.id == own);
        named.then_some(()).ok_or_else(|| RpcError::stream("it does not name us as a provider afterwards"))
    }
}

/// Writes the only frame of a stream, closes our half, and waits until the server ends the other half after reading. A
/// reset counts as the end too: a server that drops a stream resets it.
async fn write_and_await_end(mut stream: Stream, frame: &[u8]) -> Result<(), RpcError> {
    write_moving(&mut stream, frame, WRITE_STALL).await.map_err(not_written)?;
    flush_moving(&mut stream, WRITE_STALL).await.map_err(not_written)?;
    let ended = async {
        let _ = stream.close().await;
        let mut echo = Vec::new();
        let _ = (&mut stream).take(MAX_ECHO as u64).read_to_end(&mut echo).await;
    };
    timeout(ANSWER_TIMEOUT, ended).await.map_err(|_| RpcError::Timeout(ANSWER_TIMEOUT))
}
