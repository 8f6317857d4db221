//! Streams that are opened and misused.

use crate::Victim;
use dhtstore::kad::message::{self, EncodedPeer, MessageType};
use dhtstore_testkit::{
    ours::multihash,
    raw::{Over, Raw, RawStream},
};
use futures::future::join_all;
use libp2p::Multiaddr;
use std::time::Duration;

/// Streams at a time: fewer than a connection may have.
const AT_ONCE: usize = 200;

/// Opens thousands of streams, sends a request on half of them, and closes none properly.
pub async fn opened_and_abandoned_streams(victim: Victim) {
    for over in [Over::Noise, Over::Quic] {
        let raw = victim.connect(over).await;
        for _ in 0..victim.many.div_ceil(AT_ONCE) {
            let opened = join_all((0..AT_ONCE.min(victim.many)).map(async |n| {
                let mut stream = raw.try_stream("/ipfs/kad/1.0.0").await?;
                if n % 2 == 0 {
                    stream.try_send(&message::request(MessageType::FindNode, b"x")).await;
                }
                Some(stream)
            }));
            let opened: Vec<RawStream> = opened.await.into_iter().flatten().collect();
            assert!(!opened.is_empty(), "{over:?}");
        }
    }
}

/// Opens streams and sends half a line of the negotiation.
pub async fn half_negotiated(victim: Victim) {
    for over in [Over::Noise, Over::Quic] {
        let raw = victim.connect(over).await;
        let mut held = Vec::new();
        for _ in 0..AT_ONCE.min(victim.many) {
            let Some(mut stream) = raw.try_bare().await else { break };
            if !stream.try_send(b"\x13/multistream/1").await {
                break;
            }
            held.push(stream);
        }
        // While they are open, another stream of the same connection is served.
        crate::honest::ask(&mut raw.stream().await).await;
    }
}

/// Sends requests without end and reads no answers, on many streams of a connection.
pub async fn answers_never_read(victim: Victim) {
    let over = async |over: Over| {
        let raw = victim.connect(over).await;
        // Long answers to short requests: the attacker as a provider with some 600 bytes of addresses.
        let addrs: Vec<Multiaddr> = (1..60).map(|n| format!("/ip4/127.0.0.1/tcp/{n}").parse().unwrap()).collect();
        let announcement = message::add_provider(&multihash(20), &EncodedPeer::new(&raw.id, &addrs));
        let request = message::request(MessageType::GetProviders, &multihash(20)).repeat(100);
        let ended = join_all((0..victim.many.min(20)).map(async |_| {
            let mut stream = raw.stream().await;
            stream.try_send(&announcement).await;
            // Writes until nothing moves any more, then waits until the other side gives up.
            tokio::time::timeout(victim.patience, async { while stream.try_send(&request).await {} }).await.is_ok()
        }));
        let ended = ended.await;
        let impatient = victim.patience < Duration::from_secs(1);
        assert!(
            impatient || ended.iter().all(|&ended| ended),
            "{over:?}: streams whose answers are not read are still served"
        );
    };
    tokio::join!(over(Over::Noise), over(Over::Quic));
}

/// Sends DHT PINGs as fast as their answers are read.
pub async fn a_flood_of_pings(victim: Victim) {
    let pings = message::request(MessageType::Ping, b"").repeat(100);
    for over in [Over::Noise, Over::Quic] {
        let raw = victim.connect(over).await;
        let mut stream = raw.stream().await;
        for _ in 0..victim.many.div_ceil(50) {
            stream.send(&pings).await;
            for _ in 0..100 {
                assert!(stream.receive().await.is_some());
            }
        }
    }
}

/// Sends libp2p pings on many streams without reading the answers.
pub async fn a_flood_of_libp2p_pings(victim: Victim) {
    for over in [Over::Noise, Over::Quic] {
        let raw: Raw = victim.connect(over).await;
        let streams = join_all((0..victim.many.min(100)).map(async |_| raw.try_stream("/ipfs/ping/1.0.0").await));
        for mut stream in streams.await.into_iter().flatten() {
            for _ in 0..20 {
                if !stream.try_send(&[7; 32]).await {
                    break;
                }
            }
        }
        crate::honest::ask(&mut raw.stream().await).await;
    }
}
