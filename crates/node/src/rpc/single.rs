//! Servers that read one request of each stream, as litep2p does: what is pipelined behind it is lost. They are found out
//! when a stream ends instead of answering, remembered, and told each announcement on a stream of its own.

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

/// Announcements to one server at the same time: a stream each. At 200 ms to the server a thousand take about a minute.
const PARALLEL: usize = 16;

/// Bytes that a server may send on the stream of an announcement before it ends it. A longer echo is no echo.
const MAX_ECHO: usize = 16 * 1024;

impl Rpc {
    /// Whether the server answers the first of two FIND_NODEs on a fresh stream and ends the stream before the second: what
    /// a refusal of a record cannot be mistaken for.
    pub(super) async fn reads_one_per_stream(&self, dht: Dht, peer: &PeerInfo) -> bool {
        let Ok(_permit) = self.exchanges.permit().await else { return false };
        let Ok(mut stream) = self.exchanges.open(dht, peer).await else { return false };
        let question = message::request(MessageType::FindNode, &self.peers.local.to_bytes());
        for _ in 0..2 {
            // The second may meet a stream that has been ended; the answer to the first is there nevertheless.
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
        // Neither a second answer nor silence: the end.
        match timeout(ANSWER_TIMEOUT, reader.next(&mut stream)).await {
            Ok(Ok(None) | Err(_)) => true,
            Ok(Ok(Some(_))) => {
                pool::end(stream);
                false
            }
            Err(_) => false,
        }
    }

    /// Each announcement on a stream of its own; the first is at the given position of the delivery. False if the server
    /// is of no use for further ones.
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
        // In order, so that a number of failures in a row says something.
        let mut outcomes = futures::stream::iter(sending).buffered(PARALLEL);
        let mut refused = 0;
        while let Some((at, outcome)) = outcomes.next().await {
            if !delivery.note(first + at, outcome, &mut refused) {
                return false;
            }
        }
        true
    }

    /// One announcement on a stream of its own. That it was read is proved by GET_PROVIDERS on another, in whose answer we
    /// must be: the end of a stream is all that the server says of the announcement, and it says the same of a refusal.
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
        named.then_some(()).ok_or_else(|| RpcError::Stream("it does not name us as a provider afterwards".to_owned()))
    }
}

/// Writes the one frame of a stream, ends our half and waits until the server, having read it, ends the other. A reset is
/// an end as well: it is how a stream is ended that the server drops.
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
