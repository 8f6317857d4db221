use super::*;
use crate::frame::{self, Header, MAX_WRITE};
use bytes::Bytes;
use oracle::agrees;
use proptest::{collection::vec, prelude::*};
use prost::Message as _;

const KINDS: [MessageType; 6] = [
    MessageType::PutValue,
    MessageType::GetValue,
    MessageType::AddProvider,
    MessageType::GetProviders,
    MessageType::FindNode,
    MessageType::Ping,
];

fn peer_id() -> impl Strategy<Value = PeerId> {
    any::<[u8; 32]>().prop_map(|digest| {
        let bytes: Vec<u8> = [0x12, 0x20].into_iter().chain(digest).collect();
        PeerId::from_bytes(&bytes).unwrap()
    })
}

fn addr() -> impl Strategy<Value = Multiaddr> {
    (any::<u32>(), any::<u16>(), any::<bool>()).prop_map(|(ip, port, quic)| {
        let ip = std::net::Ipv4Addr::from(ip);
        let text = if quic { format!("/ip4/{ip}/udp/{port}/quic-v1") } else { format!("/ip4/{ip}/tcp/{port}") };
        text.parse().unwrap()
    })
}

fn encoded_peer() -> impl Strategy<Value = EncodedPeer> {
    (peer_id(), vec(addr(), 0..40)).prop_map(|(id, addrs)| EncodedPeer::new(&id, &addrs))
}

fn oracle_peer() -> impl Strategy<Value = oracle::Peer> {
    (vec(any::<u8>(), 0..50), vec(vec(any::<u8>(), 0..30), 0..4), -2..5i32)
        .prop_map(|(id, addrs, connection)| oracle::Peer { id, addrs, connection })
}

fn oracle_message() -> impl Strategy<Value = oracle::Message> {
    let record = (vec(any::<u8>(), 0..20), vec(any::<u8>(), 0..200), ".{0,20}")
        .prop_map(|(key, value, time_received)| oracle::Record { key, value, time_received });
    (
        -1..8i32,
        vec(any::<u8>(), 0..100),
        proptest::option::of(record),
        vec(oracle_peer(), 0..5),
        vec(oracle_peer(), 0..5),
        any::<i32>(),
    )
        .prop_map(|(kind, key, record, closer_peers, provider_peers, cluster_level_raw)| oracle::Message {
            kind,
            key,
            record,
            closer_peers,
            provider_peers,
            cluster_level_raw,
        })
}

fn unframed(framed: &Bytes) -> &[u8] {
    match frame::header(framed, usize::MAX).unwrap() {
        Header::Complete { header, body } if header + body == framed.len() => &framed[header..],
        other => panic!("not one frame of {} bytes: {other:?}", framed.len()),
    }
}

#[test]
fn msg_1_a_message_without_type_is_put_value() {
    let message = Message::decode(&[]).unwrap();
    assert_eq!((message.kind, message.key, message.record), (MessageType::PutValue, &[][..], None));
}

#[test]
fn msg_1_malformed_bodies_are_refused() {
    for (bytes, why) in [
        (&[0x08, 0x06][..], "unknown message type"),
        (&[0x08], "ends inside a number"),
        (&[0x0a, 0x00], "number expected"),            // type as bytes
        (&[0x10, 0x01], "bytes expected"),             // key as number
        (&[0x12, 0x05, 1, 2], "ends inside a field"),  // key cut short
        (&[0x1a, 0x02, 0x08, 0x01], "bytes expected"), // record whose key is a number
        (&[0x1a, 0x03, 0x2a, 0x01, 0xff], "timeReceived is not UTF-8"),
        (&[0x1a, 0x00, 0x1a, 0x00], "more than one record"),
        (&[0x42, 0x02, 0x08, 0x01], "bytes expected"), // peer whose id is a number
        (&[0x4a, 0x02, 0x12, 0x05], "ends inside a field"),
        (&[0x52, 0x00], "number expected"), // clusterLevelRaw as bytes
        (&[0x02, 0x00], "field number 0"),
        (&[0x63, 0x64], "groups are not used"),
        (&[0x66], "unknown wire type"),
        (&[0xff; 11], "number too large"),
    ] {
        assert_eq!(Message::decode(bytes).unwrap_err().0, why, "{bytes:x?}");
    }
}

#[test]
fn msg_1_unknown_fields_are_ignored_wherever_they_stand() {
    // Fields 100 (number), 101 (64 bits), 102 (bytes), 103 (32 bits).
    let unknown: Vec<u8> = [
        &[0xa0, 0x06, 0x07][..],
        &[0xa9, 0x06, 1, 2, 3, 4, 5, 6, 7, 8],
        &[0xb2, 0x06, 0x02, 9, 9],
        &[0xbd, 0x06, 1, 2, 3, 4],
    ]
    .concat();
    let nested = |tag: u8, known: &[u8]| {
        let body = [&unknown, known, &unknown].concat();
        [&[tag, u8::try_from(body.len()).unwrap()], &body[..]].concat()
    };
    let bytes = [
        unknown.clone(),
        vec![0x08, 0x04],
        unknown.clone(),
        nested(0x1a, &[0x12, 0x01, 7]),
        nested(0x42, &[0x0a, 0x01, 8]),
        vec![0x12, 0x01, 9],
        unknown.clone(),
    ]
    .concat();
    let message = Message::decode(&bytes).unwrap();
    assert_eq!((message.kind, message.key), (MessageType::FindNode, &[9][..]));
    assert_eq!(Record::decode(message.record.unwrap()).unwrap().value, [7]);
    assert_eq!(message.closer_peers().map(|peer| peer.id.to_vec()).collect::<Vec<_>>(), [[8]]);
}

#[test]
fn msg_1_of_a_repeated_scalar_the_last_counts() {
    let bytes = [0x12, 1, 1, 0x08, 0x04, 0x12, 1, 2, 0x08, 0x03];
    let message = Message::decode(&bytes).unwrap();
    assert_eq!((message.kind, message.key), (MessageType::GetProviders, &[2][..]));
}

#[test]
fn msg_3_twenty_peers_with_all_their_addresses_and_a_few_providers_fit_one_message() {
    let addrs: Vec<Multiaddr> = (1..=32).map(|port| format!("/ip6/2a01::1/tcp/{port}").parse().unwrap()).collect();
    let peers: Vec<EncodedPeer> = (0..27u8)
        .map(|index| {
            let id = PeerId::from_bytes(&[&[0x12, 0x20], &[index; 32][..]].concat()).unwrap();
            if index < 20 { EncodedPeer::of_server(&id, &addrs) } else { EncodedPeer::new(&id, &addrs) }
        })
        .collect();
    assert!(peers.iter().all(|peer| peer.as_bytes().len() > MAX_SERVER_ADDRESS_BYTES));
    assert!(peers[20..].iter().all(|peer| peer.as_bytes().len() > MAX_ADDRESS_BYTES));
    let framed = answer(MessageType::GetProviders, &[0; 80], None, &peers[20..], &peers[..20]);
    assert!(framed.len() <= MAX_WRITE);
    let message = Message::decode(unframed(&framed)).unwrap();
    assert_eq!((message.closer_peers().count(), message.provider_peers().count()), (20, 7));
}

#[test]
fn an_address_too_long_to_be_written_does_not_keep_out_those_behind_it() {
    let long: Multiaddr = format!("/dns4/{}/tcp/1", "a".repeat(700)).parse().unwrap();
    let short: Multiaddr = "/ip4/1.2.3.4/tcp/1".parse().unwrap();
    let id = PeerId::from_bytes(&[&[0x12, 0x20], &[1; 32][..]].concat()).unwrap();
    assert_eq!(EncodedPeer::new(&id, [&long, &short]), EncodedPeer::new(&id, [&short]));
}

#[test]
fn peers_are_taken_with_what_can_be_used_of_them() {
    let id: PeerId = "12D3KooWKudojFn6pff7Kah2Mkem3jtFfcntpG9X3QBNiggsYxK2".parse().unwrap();
    let addr = |text: &str| text.parse::<Multiaddr>().unwrap().to_vec();
    let (plain, own) = (addr("/ip4/1.2.3.4/tcp/1"), addr(&format!("/ip4/1.2.3.4/tcp/2/p2p/{id}")));
    let foreign = addr("/ip4/1.2.3.4/tcp/3/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN");
    let addrs = vec![b"rubbish".to_vec(), plain.clone(), plain, foreign, own, addr("/ip4/1.2.3.4/tcp/4")];
    let peer = |id: Vec<u8>, addrs| oracle::Peer { id, addrs, connection: 9 };
    let message = oracle::Message {
        kind: 4,
        closer_peers: vec![
            peer(b"no peer id".to_vec(), Vec::new()),
            peer(id.to_bytes(), addrs),
            peer(id.to_bytes(), Vec::new()),
            peer([&[0x12, 0x20], &[7; 32][..]].concat(), Vec::new()),
        ],
        ..Default::default()
    }
    .encode_to_vec();
    let message = Message::decode(&message).unwrap();
    let infos = message.closer_peer_infos(20, 2);
    assert_eq!(infos.len(), 2, "the malformed and the repeated entry are skipped");
    let expected = ["/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/2"].map(|text| text.parse::<Multiaddr>().unwrap());
    assert_eq!(infos[0], PeerInfo { id, addrs: expected.to_vec() });
    assert_eq!(infos[1].addrs, [], "a peer without addresses is still one");
    assert_eq!(message.closer_peer_infos(1, 2).len(), 1);
}

proptest! {
    #[test]
    fn msg_1_what_prost_encodes_we_decode(message in oracle_message()) {
        agrees(&message.encode_to_vec());
    }

    #[test]
    fn msg_1_damaged_messages_are_taken_or_refused_as_prost_does(
        message in oracle_message(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = message.encode_to_vec();
        if !bytes.is_empty() {
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            agrees(&bytes[..cut.index(bytes.len())]);
        }
        agrees(&bytes);
    }

    #[test]
    fn msg_1_messages_in_any_order_of_fields_are_merged_as_prost_does(a in oracle_message(), b in oracle_message()) {
        agrees(&[a.encode_to_vec(), b.encode_to_vec()].concat());
    }

    #[test]
    fn msg_1_random_bytes_are_taken_or_refused_as_prost_does_and_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        agrees(&bytes);
        if let Ok(message) = Message::decode(&bytes) {
            let infos = message.closer_peer_infos(40, 16);
            prop_assert!(infos.len() <= 40 && infos.iter().all(|peer| peer.addrs.len() <= 16));
        }
    }

    #[test]
    fn msg_1_bytes_that_begin_like_fields_are_taken_or_refused_as_prost_does(
        fields in vec((0u8..14, 0u8..8, vec(any::<u8>(), 0..12)), 0..12),
    ) {
        let bytes: Vec<u8> = fields
            .into_iter()
            .flat_map(|(number, wire_type, mut value)| {
                if wire_type == 2 {
                    value.insert(0, value.len() as u8);
                }
                value.insert(0, number << 3 | wire_type);
                value
            })
            .collect();
        agrees(&bytes);
    }

    #[test]
    fn msg_1_requests_read_back_with_prost(kind in 0..6usize, key in vec(any::<u8>(), 0..100), peer in encoded_peer()) {
        let framed = request(KINDS[kind], &key);
        let theirs = oracle::Message::decode(unframed(&framed)).unwrap();
        prop_assert_eq!(&theirs, &oracle::Message { kind: kind as i32, key: key.clone(), ..Default::default() });
        prop_assert_eq!(unframed(&framed), theirs.encode_to_vec(), "the same bytes");

        let framed = add_provider(&key, &peer);
        let theirs = oracle::Message::decode(unframed(&framed)).unwrap();
        prop_assert_eq!((theirs.kind, &theirs.key), (2, &key));
        prop_assert_eq!(theirs.provider_peers[0].encode_to_vec(), peer.as_bytes());
        prop_assert_eq!(unframed(&framed), theirs.encode_to_vec(), "the same bytes");

        let record = oracle::Record { key: key.clone(), value: vec![1], time_received: String::new() };
        let framed = put_value(&key, &record.encode_to_vec());
        let theirs = oracle::Message::decode(unframed(&framed)).unwrap();
        prop_assert_eq!((theirs.kind, &theirs.key, theirs.record), (0, &key, Some(record)));
    }

    #[test]
    fn msg_1_a_peer_reads_back_with_prost(id in peer_id(), addrs in vec(addr(), 0..60)) {
        let encoded = EncodedPeer::new(&id, &addrs);
        let theirs = oracle::Peer::decode(encoded.as_bytes()).unwrap();
        prop_assert_eq!(&theirs.id, &id.to_bytes());
        prop_assert!(theirs.addrs.iter().map(|addr| addr.len() + 2).sum::<usize>() <= MAX_ADDRESS_BYTES);
        let all: Vec<_> = addrs.iter().map(Multiaddr::to_vec).collect();
        let kept = theirs.addrs.len();
        prop_assert!(kept == all.len() || kept >= MAX_ADDRESS_BYTES / 13 - 1);
        prop_assert!(theirs.addrs.iter().all(|addr| all.contains(addr)));
    }

    #[test]
    fn msg_3_answers_stay_within_16_kib_and_leave_4_to_providers(
        record in proptest::option::of(vec(any::<u8>(), 0..20_000)),
        providers in vec(encoded_peer(), 0..60),
        closer in vec(encoded_peer(), 0..40),
    ) {
        let record = record.map(|value| oracle::Record { value, ..Default::default() }.encode_to_vec());
        let framed = answer(MessageType::GetValue, b"key", record.as_deref(), &providers, &closer);
        prop_assert!(framed.len() <= MAX_WRITE);
        let theirs = oracle::Message::decode(unframed(&framed)).unwrap();
        prop_assert_eq!(unframed(&framed), theirs.encode_to_vec(), "the same bytes");
        let encode = |peers: &[oracle::Peer]| peers.iter().map(oracle::Peer::encode_to_vec).collect::<Vec<_>>();
        let encoded = |peers: &[EncodedPeer]| peers.iter().map(|peer| peer.as_bytes().to_vec()).collect::<Vec<_>>();
        let (kept_closer, kept_providers) = (encode(&theirs.closer_peers), encode(&theirs.provider_peers));
        prop_assert!(encoded(&closer).starts_with(&kept_closer));
        prop_assert!(encoded(&providers).starts_with(&kept_providers));

        // An entry is left out only if there is no room for it.
        let field = |bytes: &[u8]| 1 + prost::length_delimiter_len(bytes.len()) + bytes.len();
        let all = |peers: &[EncodedPeer]| peers.iter().map(|peer| field(peer.as_bytes())).sum::<usize>();
        let (size, limit) = (unframed(&framed).len(), MAX_WRITE - prost::length_delimiter_len(MAX_WRITE));
        let type_and_key = 2 + field(b"key");
        prop_assert_eq!(
            theirs.record.is_some(),
            record.as_ref().is_some_and(|record| type_and_key + field(record) <= limit)
        );
        if let Some(provider) = providers.get(kept_providers.len()) {
            prop_assert!(size + field(provider.as_bytes()) > limit);
        }
        if let Some(peer) = closer.get(kept_closer.len()) {
            let before_providers = size - all(&providers[..kept_providers.len()]);
            prop_assert!(before_providers + field(peer.as_bytes()) + all(&providers).min(MIN_PROVIDER_BYTES) > limit);
        }
    }
}
