use super::*;
use crate::{
    frame::{self, Header},
    table::{RoutingTable, Settings},
};
use multiaddr::Multiaddr;
use proptest::{collection::vec, prelude::*};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

fn peer_id(seed: u64) -> PeerId {
    let mut random = Seeded::new(seed);
    let digest: Vec<u8> = (0..4).flat_map(|_| random.next().to_be_bytes()).collect();
    PeerId::from_bytes(&[&[0x12, 0x20], &digest[..]].concat()).unwrap()
}

fn peer(seed: u64, addrs: u64) -> PeerInfo {
    let addr = |port| format!("/ip4/1.2.3.4/tcp/{}", 1 + seed * 100 + port).parse::<Multiaddr>().unwrap();
    PeerInfo { id: peer_id(seed), addrs: (0..addrs).map(addr).collect() }
}

fn encoded(peer: &PeerInfo) -> EncodedPeer {
    EncodedPeer::new(&peer.id, &peer.addrs)
}

/// Returns the table of peer 0 with those of the peers 1 to `peers` that find room.
fn table(peers: u64) -> Arc<TableView> {
    let mut table = RoutingTable::new(peer_id(0), Settings { ip_diversity: None });
    for seed in 1..=peers {
        let _ = table.admit(&peer(seed, 3), Duration::ZERO);
    }
    table.view()
}

fn unframed(framed: &Bytes) -> &[u8] {
    match frame::header(framed, MAX_WRITE).unwrap() {
        Header::Complete { header, body } if header + body == framed.len() => &framed[header..],
        other => panic!("{other:?}"),
    }
}

fn closer(framed: &Bytes) -> Vec<PeerId> {
    let message = Message::decode(unframed(framed)).unwrap();
    message.closer_peer_infos(100, 100).into_iter().map(|peer| peer.id).collect()
}

fn providers(framed: &Bytes) -> Vec<PeerId> {
    let message = Message::decode(unframed(framed)).unwrap();
    message.provider_peer_infos(1_000, 100).into_iter().map(|peer| peer.id).collect()
}

fn sorted(table: &TableView, key: &Key) -> Vec<PeerId> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|entry| entry.key.distance(key));
    entries.into_iter().map(|entry| entry.peer.id).collect()
}

fn checked(framed: &Bytes, sender: &PeerId) -> Result<String, Refusal> {
    let message = Message::decode(unframed(framed)).unwrap();
    check(&message, sender).map(|request| format!("{request:?}"))
}

const SHA2_256: [u8; 34] = {
    let mut multihash = [7; 34];
    multihash[0] = 0x12;
    multihash[1] = 0x20;
    multihash
};

#[test]
fn prv_1_keys_are_multihashes_of_any_code_and_exact_length() {
    assert!(is_multihash(&SHA2_256));
    assert!(is_multihash(&[0x00, 0x00]), "identity of nothing");
    assert!(is_multihash(&[0x00, 0x03, 1, 2, 3]));
    assert!(is_multihash(&[0xa0, 0xe4, 0x02, 0x02, 1, 2]), "a code of three bytes");
    assert!(!is_multihash(&[]));
    assert!(!is_multihash(&[0x12]));
    assert!(!is_multihash(&SHA2_256[..33]), "too short");
    assert!(!is_multihash(&[&SHA2_256[..], &[0]].concat()), "too long");
    assert!(!is_multihash(&[0x80, 0x00, 0x00]), "code not minimal");
    assert!(!is_multihash(&[0x12, 0x81, 0x00, 0x07]), "length not minimal");
    assert!(!is_multihash(&[0xff; 30]));
}

#[test]
fn prv_1_the_bytes_of_a_cid_are_no_multihash_but_those_of_cid_version_0_are() {
    let text = "bafybeihfg3d7rdltd43u3tfvncx7n5loqofbsobojcadtmokrljfthuc7y";
    let cid: cid::Cid = text.parse().unwrap();
    assert!(is_multihash(&cid.hash().to_bytes()));
    assert!(!is_multihash(&cid.to_bytes()));
    assert!(is_multihash(&cid::Cid::new_v0(*cid.hash()).unwrap().to_bytes()));
}

#[test]
fn prv_1_keys_are_present_well_formed_and_at_most_80_bytes() {
    let of = |length: u8| [&[0x00, length][..], &vec![1; length.into()]].concat();
    let (sender, own) = (peer_id(1), encoded(&peer(1, 1)));
    for framed in [
        |key: &[u8], _: &EncodedPeer| message::request(MessageType::GetProviders, key),
        |key: &[u8], own: &EncodedPeer| message::add_provider(key, own),
    ] {
        let of = |key: &[u8]| checked(&framed(key, &own), &sender);
        assert_eq!(of(&[]), Err(Refusal::EmptyKey));
        assert_eq!(of(&[1, 2, 3]), Err(Refusal::NotAMultihash));
        assert!(of(&[&[0x00, 78][..], &[1; 78]].concat()).is_ok());
        assert_eq!(of(&[&[0x00, 79][..], &[1; 79]].concat()), Err(Refusal::KeyTooLong));
    }
    // The target of a look-up may be longer, but not empty.
    let target = of(100);
    assert!(checked(&message::request(MessageType::FindNode, &target), &sender).is_ok());
    assert_eq!(checked(&message::request(MessageType::FindNode, &[]), &sender), Err(Refusal::EmptyKey));
}

/// Encodes the body of an ADD_PROVIDER with these entries.
fn announcement(entries: &[EncodedPeer]) -> Vec<u8> {
    let framed = message::answer(MessageType::AddProvider, &SHA2_256, None, entries, None);
    unframed(&framed).to_vec()
}

fn announced(entries: &[EncodedPeer], sender: u64) -> Result<PeerInfo, Refusal> {
    let body = announcement(entries);
    match check(&Message::decode(&body).unwrap(), &peer_id(sender))? {
        Request::AddProvider { provider, multihash } => {
            assert_eq!(multihash, SHA2_256);
            Ok(provider)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn prv_2_entries_of_others_are_discarded_and_the_senders_own_is_kept_wherever_it_stands() {
    let entries: Vec<EncodedPeer> = (1..=5).map(|seed| encoded(&peer(seed, 2))).collect();
    for sender in 1..=5 {
        assert_eq!(announced(&entries, sender), Ok(peer(sender, 2)));
    }
    assert_eq!(announced(&entries, 6), Err(Refusal::NotTheSender));
    assert_eq!(announced(&[], 1), Err(Refusal::NotTheSender));
}

#[test]
fn prv_1_prv_2_a_repeat_is_taken_for_one_only_if_it_differs_in_nothing_but_its_key() {
    let (own, other) = (encoded(&peer(1, 2)), encoded(&peer(2, 2)));
    let repeats = |body: &[u8]| check_repeat(&Message::decode(body).unwrap(), own.as_bytes()).map(|key| key.is_ok());
    assert_eq!(repeats(&announcement(std::slice::from_ref(&own))), Some(true));
    assert_eq!(repeats(&announcement(&[])), None);
    assert_eq!(repeats(&announcement(std::slice::from_ref(&other))), None, "of another peer");
    assert_eq!(repeats(&announcement(&[encoded(&peer(1, 1))])), None, "with other addresses");
    assert_eq!(repeats(&announcement(&[own.clone(), other])), None, "of two peers");
    assert_eq!(repeats(unframed(&message::add_provider(&[1, 2, 3], &own))), Some(false), "keys are checked");
    assert_eq!(repeats(unframed(&message::add_provider(&[], &own))), None);
    let asks = message::answer(MessageType::GetProviders, &SHA2_256, None, [&own], None);
    assert_eq!(repeats(unframed(&asks)), None, "only ADD_PROVIDER announces");
}

#[test]
fn prv_7_a_provider_without_usable_addresses_is_still_a_provider() {
    let bare = encoded(&peer(1, 0));
    assert_eq!(announced(std::slice::from_ref(&bare), 1), Ok(peer(1, 0)));
    assert_eq!(announced(&[bare, encoded(&peer(1, 2))], 1), Ok(peer(1, 2)), "an entry with addresses is preferred");
}

#[test]
fn a_providers_addresses_are_bounded() {
    let addrs: Vec<Multiaddr> = (1..=200).map(|port| format!("/ip4/1.2.3.4/tcp/{port}").parse().unwrap()).collect();
    // More than EncodedPeer would write; other implementations may send them.
    let mut entry = encoded(&peer(1, 0)).as_bytes().to_vec();
    for addr in &addrs {
        entry.extend([0x12, addr.len() as u8]);
        entry.extend(addr.to_vec());
    }
    let mut body = announcement(&[]);
    body.push(9 << 3 | 2);
    body.extend([(entry.len() & 0x7f) as u8 | 0x80, (entry.len() >> 7) as u8]);
    body.extend(entry);
    let message = Message::decode(&body).unwrap();
    let Ok(Request::AddProvider { provider, .. }) = check(&message, &peer_id(1)) else { panic!("refused") };
    assert_eq!(provider.addrs, addrs[..MAX_ADDRESSES]);
    const { assert!(MAX_ADDRESSES > crate::useful::MAX_ADDRESSES, "there is a choice") };
}

#[test]
fn val_1_values_of_other_namespaces_are_refused() {
    let sender = peer_id(1);
    let record = |key: &[u8]| [&[0x0a, key.len() as u8], key, &[0x12, 1, 9]].concat();
    let put = |key: &[u8]| checked(&message::put_value(key, &record(key)), &sender);
    assert!(put(b"/ipns/name").is_ok());
    assert!(put(b"/pk/name").is_ok());
    for key in [&b"/other/name"[..], b"/ipns", b"/ipns/", b"ipns/name", b"name"] {
        assert_eq!(put(key), Err(Refusal::UnknownNamespace));
    }
    assert_eq!(put(b""), Err(Refusal::EmptyKey));
    assert_eq!(put(&[&b"/ipns/"[..], &[1; 75]].concat()), Err(Refusal::KeyTooLong));
}

#[test]
fn val_5_a_get_value_of_any_key_is_answered_also_where_no_value_can_be_stored() {
    let sender = peer_id(1);
    let get = |key: &[u8]| checked(&message::request(MessageType::GetValue, key), &sender);
    for key in [&b"/ipns/name"[..], b"/pk/name", b"/other/name", b"/ipns/", b"name", &[1; 81], &[7; 4000]] {
        assert!(get(key).is_ok(), "{key:?}");
        let answer = answer_get_value(&table(5), key, &sender, None);
        let message = Message::decode(unframed(&answer)).unwrap();
        assert_eq!(message.key, if key.len() <= MAX_KEY { key } else { &[] });
    }
    assert_eq!(get(b""), Err(Refusal::EmptyKey));
}

#[test]
fn val_4_the_records_key_must_be_the_messages() {
    let sender = peer_id(1);
    let record = |key: &[u8]| [&[0x0a, key.len() as u8], key, &[0x12, 1, 9]].concat();
    let put = |key: &[u8], record: &[u8]| checked(&message::put_value(key, record), &sender);
    assert!(put(b"/pk/name", &record(b"/pk/name")).is_ok());
    assert_eq!(put(b"/pk/name", &record(b"/pk/other")), Err(Refusal::BadRecord));
    assert_eq!(put(b"/pk/name", &[]), Err(Refusal::BadRecord));
    let without = message::request(MessageType::PutValue, b"/pk/name");
    assert_eq!(checked(&without, &sender), Err(Refusal::BadRecord));
}

#[test]
fn msg_3_ping_is_answered_with_ping() {
    let message = Message::decode(unframed(&answer_ping())).map(|message| message.kind);
    assert_eq!(message, Ok(MessageType::Ping));
    assert_eq!(checked(&answer_ping(), &peer_id(1)), Ok("Ping".to_owned()));
}

#[test]
fn srv_1_and_4_a_lookup_is_answered_with_the_k_closest_without_the_requester() {
    let table = table(300);
    let target = b"any bytes";
    let mut expected = sorted(&table, &target_key(target));
    let sender = expected[3];
    expected.retain(|peer| *peer != sender);
    assert_eq!(closer(&answer_find_node(&table, target, &sender, None)), expected[..K]);
    let stranger = peer_id(9_999);
    assert_eq!(closer(&answer_find_node(&table, target, &stranger, None)).len(), K);
    assert_eq!(closer(&answer_find_node(&TableView::empty(), target, &stranger, None)), []);
}

#[test]
fn srv_5_the_target_itself_comes_in_addition_to_the_k_closest() {
    let table = table(300);
    // A client that is not in the table.
    let client = peer(500, 1);
    let stranger = peer_id(9_999);
    let framed = answer_find_node(&table, &client.id.to_bytes(), &stranger, Some(&encoded(&client)));
    let expected = sorted(&table, &Key::for_peer(&client.id));
    assert_eq!(closer(&framed), [&[client.id], &expected[..K]].concat());

    // A server of the table appears once, with the addresses that the caller knows.
    let server = table.iter().nth(17).unwrap().peer.id;
    let known = PeerInfo { id: server, addrs: vec!["/ip4/10.0.0.1/tcp/1".parse().unwrap()] };
    let framed = answer_find_node(&table, &server.to_bytes(), &stranger, Some(&encoded(&known)));
    assert_eq!(closer(&framed), sorted(&table, &Key::for_peer(&server))[..K]);
    let first = Message::decode(unframed(&framed)).unwrap().closer_peer_infos(1, 9);
    assert_eq!(first, [known]);
    assert_eq!(closer(&answer_find_node(&table, &server.to_bytes(), &stranger, None))[0], server);
}

#[test]
fn srv_5_the_requester_and_oneself_are_told_of_themselves_in_addition() {
    let table = table(300);
    let requester = table.iter().nth(17).unwrap().peer.id;
    let framed = answer_find_node(&table, &requester.to_bytes(), &requester, None);
    assert_eq!(closer(&framed), sorted(&table, &Key::for_peer(&requester))[..K + 1]);

    let oneself = peer(0, 1);
    let framed = answer_find_node(&table, &oneself.id.to_bytes(), &peer_id(1), Some(&encoded(&oneself)));
    assert_eq!(closer(&framed).len(), K + 1);
    assert_eq!(closer(&framed)[0], oneself.id);
}

#[test]
fn prv_8_and_10_providers_are_answered_with_the_k_closest_and_the_requesters_own_record() {
    let table = table(300);
    let held: Vec<EncodedPeer> = (1..=5).map(|seed| encoded(&peer(seed, 2))).collect();
    let framed = answer_get_providers(&table, &SHA2_256, &peer_id(3), &held, 1);
    assert_eq!(providers(&framed), (1..=5).map(peer_id).collect::<Vec<_>>());
    let mut expected = sorted(&table, &Key::for_content(&SHA2_256));
    expected.retain(|peer| *peer != peer_id(3));
    assert_eq!(closer(&framed), expected[..K]);
    assert_eq!(Message::decode(unframed(&framed)).unwrap().key, SHA2_256);
}

#[test]
fn prv_8_where_providers_do_not_all_fit_each_has_the_same_chance() {
    let table = table(300);
    let held: Vec<EncodedPeer> = (1..=400).map(|seed| encoded(&peer(seed, 8))).collect();
    let mut told = vec![0; 401];
    for seed in 0..200 {
        let framed = answer_get_providers(&table, &SHA2_256, &peer_id(1), &held, seed);
        assert_eq!(closer(&framed).len(), K, "closer peers keep their room");
        let ids: BTreeSet<PeerId> = providers(&framed).into_iter().collect();
        assert!(ids.len() > 40, "{}", ids.len());
        for (seed, count) in told.iter_mut().enumerate().skip(1) {
            *count += usize::from(ids.contains(&peer_id(seed as u64)));
        }
    }
    let (least, most) = (told[1..].iter().min().unwrap(), told[1..].iter().max().unwrap());
    assert!(*least > 30 && *most < 100, "{least} to {most} of 200 times");
    let again = |seed| answer_get_providers(&table, &SHA2_256, &peer_id(1), &held, seed);
    assert_eq!(again(1), again(1));
    assert_ne!(again(1), again(2));
}

#[test]
fn val_5_a_record_is_answered_with_room_for_peers() {
    let table = table(300);
    let stranger = peer_id(9_999);
    let record = [&[0x12, 0x80, 0x50][..], &vec![1; 10 * 1024]].concat();
    let framed = answer_get_value(&table, b"/ipns/name", &stranger, Some(&record));
    let message = Message::decode(unframed(&framed)).unwrap();
    assert_eq!(message.record, Some(&record[..]));
    assert_eq!(message.closer_peers().count(), K);
    let huge = [&[0x12, 0x80, 0x78][..], &vec![1; 15 * 1024]].concat();
    let framed = answer_get_value(&table, b"/ipns/name", &stranger, Some(&huge));
    assert_eq!(Message::decode(unframed(&framed)).unwrap().record, None);
}

proptest! {
    #[test]
    fn no_bytes_make_the_rules_panic_and_what_passes_is_within_bounds(
        kind in 0..6u8,
        key in vec(any::<u8>(), 0..90),
        rest in vec(any::<u8>(), 0..200),
    ) {
        let body = [&[0x08, kind, 0x12, key.len() as u8][..], &key, &rest].concat();
        if let Ok(message) = Message::decode(&body) {
            match check(&message, &peer_id(1)) {
                Ok(Request::GetProviders { multihash } | Request::AddProvider { multihash, .. }) => {
                    prop_assert!(multihash.len() <= MAX_KEY && is_multihash(multihash));
                }
                Ok(Request::PutValue { key, .. }) => prop_assert!(key.len() <= MAX_KEY),
                Ok(Request::FindNode { target: key } | Request::GetValue { key }) => prop_assert!(!key.is_empty()),
                Ok(Request::Ping) | Err(_) => {}
            }
        }
    }

    #[test]
    fn prv_1_is_multihash_agrees_with_the_multihash_crate(bytes in vec(any::<u8>(), 0..70), short in 0..70u8) {
        // Half of the cases have a plausible length.
        let mut plausible = bytes.clone();
        if plausible.len() > 2 {
            plausible[0] &= 0x7f;
            plausible[1] = if short % 2 == 0 { plausible.len() as u8 - 2 } else { short };
        }
        for bytes in [bytes, plausible] {
            prop_assert_eq!(is_multihash(&bytes), cid::multihash::Multihash::<80>::from_bytes(&bytes).is_ok());
        }
    }

    #[test]
    fn msg_3_every_answer_stays_within_16_kib(
        peers in 0..150u64,
        held in 0..200u64,
        addrs in 0..12u64,
        key in vec(any::<u8>(), 1..60_000),
    ) {
        let table = table(peers);
        let held: Vec<EncodedPeer> = (0..held).map(|seed| encoded(&peer(seed, addrs))).collect();
        let sender = peer_id(1);
        prop_assert!(answer_find_node(&table, &key, &sender, held.first()).len() <= MAX_WRITE);
        prop_assert!(answer_get_providers(&table, &SHA2_256, &sender, &held, 1).len() <= MAX_WRITE);
        prop_assert!(answer_get_value(&table, b"/pk/name", &sender, Some(&key)).len() <= MAX_WRITE);
    }
}
