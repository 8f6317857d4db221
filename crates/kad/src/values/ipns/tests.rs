//! Tests with records made by boxo, with the specification's test vectors, and with our own records. See
//! fixtures/README.md.

use super::*;
use crate::values::{
    self, MAX_VALUE,
    tests::{Case, NOW, case, disagreements, ipns_cases, unhex},
};
use libp2p_identity::Keypair;
use proptest::prelude::*;
use std::{fs, path::Path};

/// The cases that boxo accepts and we refuse: the exceptions in the module's documentation.
const STRICTER: [&str; 21] = [
    "ecdsa-p384 v1+v2",
    "ecdsa-p384 v2",
    "ecdsa-p384 key embedded",
    "group",
    "cbor: TTL is text",
    "cbor: TTL is null",
    "cbor: TTL is a map",
    "cbor: no Value",
    "cbor: Value is text",
    "cbor: Value is null",
    "cbor: Value is a map",
    "cbor: no Sequence",
    "cbor: Sequence is text",
    "cbor: Sequence is null",
    "cbor: Sequence is a map",
    "cbor: sequence 7.0",
    "cbor: sequence half",
    "cbor: metadata with float16",
    "cbor: metadata with undefined",
    "cbor: metadata with other tag",
    "cbor: metadata with text not utf-8",
];

/// The last moment of most fixtures: 2126-01-02T03:04:05.123456789Z.
const FAR: Duration = Duration::new(4_922_996_645, 123_456_789);
const ENTRY: Entry<'static> =
    Entry { value: b"/ipfs/bafkqaddwgevxmmraojswg33smq", sequence: 7, validity: FAR, ttl: Duration::from_secs(300) };

fn keypair(kind: &str) -> Keypair {
    let table = include_str!("../../../fixtures/keys.txt");
    let (_, key) = table.lines().filter_map(|line| line.split_once('\t')).find(|(name, _)| *name == kind).unwrap();
    Keypair::from_protobuf_encoding(&unhex(key)).unwrap()
}

#[test]
fn val_3_records_are_taken_and_refused_as_boxo_does_but_for_the_exceptions() {
    let cases = ipns_cases();
    assert_eq!(cases.len(), 164);
    assert_eq!(disagreements(cases), STRICTER);
    for name in STRICTER {
        assert!(case(cases, name).accepted_by_go, "{name}");
    }
}

#[test]
fn val_3_refusals_say_why() {
    let cases = ipns_cases();
    for (name, why) in [
        ("v1 only", Invalid::NotSigned),
        ("no data", Invalid::NotSigned),
        ("empty signatureV2", Invalid::NotSigned),
        ("ed25519 expired", Invalid::Expired),
        ("ed25519 signature flipped", Invalid::BadSignature),
        ("ed25519 signed by another", Invalid::BadSignature),
        ("ed25519 foreign key embedded", Invalid::WrongKey),
        ("rsa-2048 key not embedded", Invalid::NoKey),
        ("rsa-4096 signature flipped", Invalid::BadSignature),
        ("ecdsa-p384 v2", Invalid::BadKey),
        ("v1 value differs", Invalid::Differs("value")),
        ("v1 value absent", Invalid::Differs("value")),
        ("v1 validity differs", Invalid::Differs("validity")),
        ("v1 validity type differs", Invalid::Differs("validityType")),
        ("v1 sequence absent", Invalid::Differs("sequence")),
        ("v1 ttl differs", Invalid::Differs("ttl")),
        ("name of no peer", Invalid::NotAPeer),
        ("name hashed though short", Invalid::WrongKey),
        ("other namespace", Invalid::UnknownNamespace),
        ("10241 bytes", Invalid::TooLong),
        ("cut short", Invalid::Malformed("protobuf")),
        ("cbor: no Validity", Invalid::Malformed("Validity")),
        ("cbor: validity type 1", Invalid::Malformed("ValidityType")),
        ("cbor: TTL twice", Invalid::Malformed("DAG-CBOR")),
        ("cbor: ttl -1", Invalid::Malformed("TTL")),
        ("cbor: validity past by its offset", Invalid::Expired),
    ] {
        let case = case(cases, name);
        assert_eq!(values::validate(&case.key, &case.value, NOW), Err(why), "{name}");
    }
}

#[test]
fn val_3_a_record_is_valid_until_the_nanosecond_it_names() {
    let cases = ipns_cases();
    let case = case(cases, "ed25519 v2");
    assert_eq!(values::validate(&case.key, &case.value, FAR), Ok(()));
    assert_eq!(values::validate(&case.key, &case.value, FAR + Duration::from_nanos(1)), Err(Invalid::Expired));
}

#[test]
fn val_3_the_specifications_test_vectors() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/gateway-conformance");
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let file = entry.file_name().into_string().unwrap();
        let (name, kind) = file.strip_suffix(".ipns-record").unwrap().split_once('_').unwrap_or((&file[..], "plain"));
        let name = name.trim_end_matches(".ipns-record");
        let peer = match name.parse::<PeerId>() {
            Ok(peer) => peer,
            Err(_) => PeerId::from_bytes(&cid::Cid::try_from(name).unwrap().hash().to_bytes()).unwrap(),
        };
        let value = fs::read(entry.path()).unwrap();
        let verdict = values::validate(&key(&peer), &value, NOW);
        let path = Record::decode(&value).ok().and_then(|record| record.path());
        found.push((kind.to_owned(), verdict, path));
    }
    found.sort_by(|a, b| (&a.0, &a.2).cmp(&(&b.0, &b.2)));
    let summary: Vec<(&str, Result<(), Invalid>, &str)> =
        found.iter().map(|(kind, verdict, path)| (&kind[..], *verdict, path.as_deref().unwrap_or_default())).collect();
    assert_eq!(
        summary,
        [
            ("plain", Ok(()), "/ipfs/bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am"),
            ("plain", Ok(()), "/ipfs/bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am"),
            ("v1", Err(Invalid::NotSigned), ""),
            ("v1-v2", Ok(()), "/ipfs/bafkqaddwgevxmmraojswg33smq"),
            ("v1-v2-broken-signature-v1", Ok(()), "/ipfs/bafkqahtwgevxmmrao5uxi2bamjzg623fnyqhg2lhnzqxi5lsmuqhmmi"),
            (
                "v1-v2-broken-signature-v2",
                Err(Invalid::BadSignature),
                "/ipfs/bafkqahtwgevxmmrao5uxi2bamjzg623fnyqhg2lhnzqxi5lsmuqhmmq"
            ),
            (
                "v1-v2-broken-v1-value",
                Err(Invalid::Differs("value")),
                "/ipfs/bafkqahtwgevxmmraojswg33smqqho2lunaqge4tpnnsw4idwmfwhkzi"
            ),
            ("v2", Ok(()), "/ipfs/bafkqadtwgiww63tmpeqhezldn5zgi"),
        ]
    );
}

/// The records of select.txt with their key, and boxo's choice between each two of them.
fn select() -> (Vec<u8>, Vec<Vec<u8>>, Vec<[usize; 3]>) {
    let (mut key, mut records, mut choices) = Default::default();
    for line in include_str!("../../../fixtures/select.txt").lines() {
        let cells: Vec<&str> = line.split('\t').collect();
        match cells[0] {
            "record" => {
                key = unhex(cells[2]);
                Vec::push(&mut records, unhex(cells[3]));
            }
            _ => Vec::push(&mut choices, [1, 2, 3].map(|cell| cells[cell].parse().unwrap())),
        }
    }
    (key, records, choices)
}

#[test]
fn val_3_the_better_of_two_records_is_the_one_that_boxo_selects() {
    let (key, records, choices) = select();
    assert_eq!(choices.len(), 13 * 13);
    for [a, b, better] in choices {
        let expected = match better {
            _ if a == b => Ordering::Equal,
            better if better == a => Ordering::Greater,
            _ => Ordering::Less,
        };
        assert_eq!(values::compare(&key, &records[a], &records[b]), expected, "{a} and {b}");
    }
}

#[test]
fn val_3_what_is_no_record_is_worse_than_one_that_is() {
    let (key, records, _) = select();
    assert_eq!(values::compare(&key, &records[0], &[0xff; 400]), Ordering::Greater);
}

#[test]
fn val_3_a_record_says_what_it_says() {
    let cases = ipns_cases();
    let record = |name| Record::decode(&case(cases, name).value).unwrap();
    let plain = record("rsa-2048 v1+v2");
    assert_eq!(plain.path().unwrap(), "/ipfs/bafkqaddwgevxmmraojswg33smq");
    assert_eq!((plain.sequence, plain.validity, plain.ttl), (7, FAR, Some(Duration::from_secs(300))));
    assert!(!plain.public_key.is_empty() && !plain.signature_v1.is_empty());
    let small = record("ed25519 v2");
    assert!(small.public_key.is_empty() && small.signature_v1.is_empty());
    assert_eq!(record("cbor: no TTL").ttl, None);
    assert_eq!(record("cbor: value is a binary cid").path().unwrap(), "/ipfs/bafkqaaa");
    assert_eq!(record("cbor: value is no path").path(), None);
    assert_eq!(record("cbor: value empty").path(), None);
    assert_eq!(record("cbor: sequence -1").sequence, u64::MAX);
    assert_eq!(record("cbor: sequence 2^63").sequence, 1 << 63);
}

#[test]
fn val_3_we_create_the_records_that_boxo_creates() {
    let cases = ipns_cases();
    for kind in ["ed25519", "secp256k1", "rsa-2048", "rsa-4096"] {
        let expected = &case(cases, &format!("{kind} v1+v2")).value;
        assert_eq!(&create(&keypair(kind), &ENTRY).unwrap(), expected, "{kind}");
    }
    // go's ECDSA signatures are random, so the bytes differ.
    let ecdsa = create(&keypair("ecdsa"), &ENTRY).unwrap();
    assert_eq!(values::validate(&case(cases, "ecdsa v1+v2").key, &ecdsa, NOW), Ok(()));
}

#[test]
fn val_3_no_record_is_created_that_others_could_not_read() {
    let keypair = keypair("ed25519");
    let create = |entry| create(&keypair, &entry);
    let refused = |entry| create(entry).unwrap_err();
    assert!(matches!(refused(Entry { sequence: 1 << 63, ..ENTRY }), CreateError::SequenceTooLarge(n) if n == 1 << 63));
    assert!(matches!(refused(Entry { validity: Duration::MAX, ..ENTRY }), CreateError::ValidityTooLate));
    assert!(matches!(create(Entry { value: &[b'/'; MAX_VALUE / 2], ..ENTRY }), Err(CreateError::TooLong(_))));
    for entry in [
        Entry { sequence: (1 << 63) - 1, ttl: Duration::MAX, ..ENTRY },
        Entry { value: b"", ..ENTRY },
        Entry { value: &[b'/'; 4900], ..ENTRY },
    ] {
        let record = create(entry).unwrap();
        assert_eq!(values::validate(&key(&keypair.public().to_peer_id()), &record, NOW), Ok(()));
    }
}

/// Returns the parts of a record that count.
fn said(bytes: &[u8]) -> Option<(Vec<u8>, u64, Duration, Option<Duration>)> {
    Record::decode(bytes).ok().map(|record| (record.value.to_vec(), record.sequence, record.validity, record.ttl))
}

fn refused_or_says_the_same(case: &Case, at: usize, byte: u8) -> bool {
    let mut value = case.value.clone();
    value[at] = byte;
    values::validate(&case.key, &value, NOW).is_err() || said(&value) == said(&case.value)
}

#[test]
fn val_3_a_record_with_any_byte_changed_is_refused_or_says_the_same() {
    let cases = ipns_cases();
    for name in ["ed25519 v1+v2", "ed25519 key embedded", "ed25519 v2"] {
        let case = case(cases, name);
        for at in 0..case.value.len() {
            for flip in [1, 0x10, 0x80, 0xff] {
                assert!(refused_or_says_the_same(case, at, case.value[at] ^ flip), "{name} byte {at}");
            }
        }
    }
}

/// A record of the fixtures with some bytes changed.
fn nearly_a_record() -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (prop::sample::select(select().1), changes).prop_map(|(mut record, changes)| {
        for (at, byte) in changes {
            let at = at.index(record.len());
            record[at] = byte;
        }
        record
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn val_3_a_record_of_any_kind_with_a_byte_changed_is_refused_or_says_the_same(
        kind in prop::sample::select(vec!["secp256k1 v1+v2", "ecdsa v1+v2", "rsa-2048 v1+v2", "rsa-4096 v2"]),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let cases = ipns_cases();
        let case = case(cases, kind);
        prop_assert!(refused_or_says_the_same(case, at.index(case.value.len()), byte));
    }

    #[test]
    fn val_3_compare_is_a_total_order(mut pool in proptest::collection::vec(nearly_a_record(), 3)) {
        let key = b"/ipns/";
        let compare = |a: &[u8], b: &[u8]| values::compare(key, a, b);
        for a in &pool {
            for b in &pool {
                prop_assert_eq!(compare(a, b), compare(b, a).reverse());
                prop_assert_eq!(compare(a, b).is_eq(), a == b);
            }
        }
        pool.sort_by(|a, b| compare(a, b));
        prop_assert!(compare(&pool[0], &pool[2]).is_le());
    }

    #[test]
    fn val_3_what_is_created_is_valid_and_says_what_was_asked(
        value in proptest::collection::vec(any::<u8>(), 0..200),
        sequence in 0..1u64 << 63,
        seconds in NOW.as_secs() + 1..253_402_300_800,
        nanos in 0..1_000_000_000u32,
        ttl in any::<u32>(),
    ) {
        let keypair = keypair("ed25519");
        let ttl = Duration::from_millis(ttl.into());
        let validity = Duration::new(seconds, nanos);
        let record = create(&keypair, &Entry { value: &value, sequence, validity, ttl }).unwrap();
        prop_assert_eq!(values::validate(&key(&keypair.public().to_peer_id()), &record, NOW), Ok(()));
        prop_assert_eq!(said(&record), Some((value, sequence, validity, Some(ttl))));
    }
}
