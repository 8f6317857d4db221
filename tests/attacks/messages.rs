//! Bytes that no honest client sends, on open streams.

use crate::Victim;
use dhtstore::kad::message::{self, EncodedPeer, MessageType};
use dhtstore_testkit::{
    framed,
    ours::multihash,
    raw::{End, Over, Raw},
};
use futures::future::join_all;
use libp2p::{Multiaddr, PeerId};
use std::{sync::OnceLock, time::Duration};

/// A refused stream ends within this time, nearly always at once.
const SOON: Duration = Duration::from_secs(20);

/// Sends each of `cases` on a stream of its own, over TCP and QUIC. Asserts that all streams end without an answer.
async fn all_refused(victim: &Victim, cases: &[Vec<u8>]) {
    all_refused_of(victim, |_| cases.to_vec()).await;
}

/// Does the same with cases that depend on the connection.
async fn all_refused_of(victim: &Victim, cases: impl Fn(&Raw) -> Vec<Vec<u8>>) {
    for over in [Over::Noise, Over::Quic] {
        let raw = victim.connect(over).await;
        let cases = cases(&raw);
        let ends = join_all(cases.iter().map(async |case| {
            let mut stream = raw.stream().await;
            stream.try_send(case).await;
            stream.end_within(SOON).await
        }));
        for (case, end) in cases.iter().zip(ends.await) {
            assert_eq!(end, over.refused(), "{over:?} {:02x?}", &case[..case.len().min(20)]);
        }
    }
}

pub async fn unknown_types(victim: Victim) {
    let kinds = [6, 7, 100, 127].map(|kind: u8| framed(&[0x08, kind, 0x12, 1, 9]));
    // -1, as protobuf writes it: ten bytes.
    let negative = framed(&[&[0x08][..], &[0xff; 9], &[0x01]].concat());
    all_refused(&victim, &[&kinds[..], &[negative]].concat()).await;
}

pub async fn wrong_wire_types(victim: Victim) {
    let bodies: [&[u8]; 8] = [
        &[0x0a, 0x01, 0x04],             // the type as bytes
        &[0x10, 0x01],                   // the key as a number
        &[0x18, 0x01],                   // the record as a number
        &[0x45, 1, 2, 3, 4],             // a peer as 32 bits
        &[0x49, 1, 2, 3, 4, 5, 6, 7, 8], // a provider as 64 bits
        &[0x52, 0x01, 0x01],             // clusterLevelRaw as bytes
        &[0x0b, 0x0c],                   // a group
        &[0x0f],                         // wire type 7
    ];
    all_refused(&victim, &bodies.map(framed)).await;
}

pub async fn bad_lengths(victim: Victim) {
    let oversize = framed(&vec![0x08; 64 * 1024 + 1]);
    let cases = [
        vec![0xff; 11],                                             // more than nine bytes
        vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], // 2^63 - 1
        vec![0xff, 0xff, 0xff, 0xff, 0x0f],                         // 4 GiB - 1
        vec![0x85, 0x00, 1, 2, 3, 4, 5],                            // not minimal
        vec![0x81, 0x80, 0x04],                                     // 64 KiB + 1
        oversize,
    ];
    all_refused(&victim, &cases).await;
}

/// Sends a length prefix byte by byte; each byte says that another one follows.
pub async fn never_ending_length(victim: Victim) {
    for over in [Over::Noise, Over::Quic] {
        let raw = victim.connect(over).await;
        let mut stream = raw.stream().await;
        let mut sent = 0;
        while sent < 1000 && stream.try_send(&[0xff]).await {
            sent += 1;
            if sent > 9 && stream.end_within(Duration::from_millis(50)).await != End::Open {
                break;
            }
        }
        assert!(sent < 1000, "{over:?}: a length of {sent} bytes is still read");
    }
}

/// Opens many streams and sends only the beginning of a long message on each.
pub async fn half_a_message_held_open(victim: Victim) {
    let half = &framed(&vec![0; 60_000])[..4000];
    let over = async |over: Over| {
        let raw = victim.connect(over).await;
        let ends = join_all((0..victim.many.min(250)).map(async |_| {
            let mut stream = raw.stream().await;
            stream.try_send(half).await;
            stream.end_within(victim.patience).await
        }));
        let ends = ends.await;
        assert!(victim.patience < SOON || ends.iter().all(|end| *end == over.refused()), "{over:?}");
    };
    tokio::join!(over(Over::Noise), over(Over::Quic));
}

/// Announces 10,000 providers. They fit into 64 KiB only if they are nearly empty; with ids and addresses they take 400
/// KB.
pub async fn ten_thousand_providers(victim: Victim) {
    static STRANGERS: OnceLock<Vec<u8>> = OnceLock::new();
    let start = [&[0x08, 0x02, 0x12, 0x22][..], &multihash(1)].concat();
    for over in [Over::Noise, Over::Quic] {
        let raw = victim.connect(over).await;
        let own = entry(&raw, 1);
        let tiny = [&start[..], &[0x4a, 0x02, 0x0a, 0x00].repeat(10_000), &provider(own.as_bytes())].concat();
        let broken = [&start[..], &[0x4a, 0x02, 0x0a, 0x05].repeat(10_000)].concat();
        let addr: Multiaddr = "/ip4/127.0.0.1/tcp/4001".parse().unwrap();
        let strangers = STRANGERS.get_or_init(|| {
            (0..10_000).flat_map(|_| provider(EncodedPeer::new(&PeerId::random(), [&addr]).as_bytes())).collect()
        });
        let mut taken = raw.stream().await;
        taken.send(&framed(&tiny)).await;
        // The answer proves that the announcement before it was read.
        crate::honest::ask(&mut taken).await;
        for refused in [broken, [&start[..], strangers].concat()] {
            let mut stream = raw.stream().await;
            stream.try_send(&framed(&refused)).await;
            assert_eq!(stream.end_within(SOON).await, over.refused(), "{over:?}");
        }
    }
}

/// Encodes an entry of `providerPeers`.
fn provider(entry: &[u8]) -> Vec<u8> {
    [&[0x4a], &framed(entry)[..]].concat()
}

fn entry(raw: &Raw, addresses: usize) -> EncodedPeer {
    let addrs: Vec<Multiaddr> =
        (0..addresses).map(|n| format!("/ip4/127.0.{}.1/tcp/{}", n % 250, 1000 + n).parse().unwrap()).collect();
    EncodedPeer::new(&raw.id, &addrs)
}

pub async fn foreign_ids(victim: Victim) {
    let addr: Multiaddr = "/ip4/127.0.0.1/tcp/4001".parse().unwrap();
    let announcements: Vec<Vec<u8>> = (0..20)
        .map(|n| message::add_provider(&multihash(n), &EncodedPeer::new(&PeerId::random(), [&addr])).to_vec())
        .chain([framed(&[&[0x08, 0x02, 0x12, 0x22][..], &multihash(1)].concat())])
        .collect();
    all_refused(&victim, &announcements).await;
}

pub async fn three_hundred_addresses(victim: Victim) {
    for over in [Over::Noise, Over::Quic] {
        let raw = victim.connect(over).await;
        // Encoded by hand: our own encoder stops at 672 bytes of addresses.
        let addrs: Vec<u8> = (0..300u16)
            .flat_map(|n| {
                let addr = [&[4, 127, 0, (n >> 8) as u8, n as u8, 6][..], &(4000 + n).to_be_bytes()].concat();
                [&[0x12, addr.len() as u8], &addr[..]].concat()
            })
            .collect();
        let id = raw.id.to_bytes();
        let peer = [&[0x0a, id.len() as u8], &id[..], &addrs].concat();
        // A peer id is a multihash too, and no other test announces this one.
        let body = [&[0x08, 0x02, 0x12, id.len() as u8][..], &id, &provider(&peer)].concat();
        let mut stream = raw.stream().await;
        stream.send(&framed(&body)).await;
        crate::honest::ask(&mut stream).await;
        stream.send(&message::request(MessageType::GetProviders, &id)).await;
        let answer = stream.receive().await.unwrap();
        let answer = message::Message::decode(&answer).unwrap();
        let addresses = answer.provider_peers().find(|peer| peer.id == id).unwrap().addrs().count();
        assert!((1..=32).contains(&addresses), "{addresses} addresses are handed out");
    }
}

/// Announces and requests keys of many lengths. Well-formed ones are stored and answered; all others are refused.
pub async fn keys_of_every_length(victim: Victim) {
    // A multihash with the identity code, `length` bytes in all.
    let identity = |length: usize| [&framed(&vec![7; length - 2])[..]].concat();
    let of = |length: usize| [&[0x00][..], &identity(length)].concat();
    let bad = [&[][..], &[0x12], &[7; 80], &[7; 81], &of(81), &[7; 1000], &of(1000)[..]].map(<[u8]>::to_vec);
    all_refused_of(&victim, |raw| bad.iter().flat_map(|key| asked_and_announced(raw, key)).collect()).await;
    for over in [Over::Noise, Over::Quic] {
        let raw = victim.connect(over).await;
        let mut stream = raw.stream().await;
        for key in [of(2), of(80)] {
            for request in asked_and_announced(&raw, &key).into_iter().rev() {
                stream.send(&request).await;
            }
            let answer = stream.receive().await.unwrap();
            let mut providers = message::Message::decode(&answer).unwrap().provider_peers();
            assert!(providers.any(|peer| peer.id == raw.id.to_bytes()), "{over:?}: {} bytes", key.len());
        }
    }
}

/// Encodes a GET_PROVIDERS and an ADD_PROVIDER of a key, the latter for the connected peer.
fn asked_and_announced(raw: &Raw, key: &[u8]) -> [Vec<u8>; 2] {
    [message::request(MessageType::GetProviders, key).to_vec(), message::add_provider(key, &entry(raw, 1)).to_vec()]
}

/// Uses CIDv1s of two codecs as keys. They end in a multihash but are not multihashes.
pub async fn the_bytes_of_a_cid(victim: Victim) {
    let cids = [[&[0x01, 0x55], &multihash(1)[..]].concat(), [&[0x01, 0x70], &multihash(2)[..]].concat()];
    all_refused_of(&victim, |raw| cids.iter().flat_map(|cid| asked_and_announced(raw, cid)).collect()).await;
}
