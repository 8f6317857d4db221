//! Compares our verdicts with those of go-libp2p-record and boxo: see fixtures/README.md.

use super::*;
use proptest::prelude::*;
use std::sync::LazyLock;

/// The time of validation, 2026-11-01. No fixture ends near it.
pub(super) const NOW: Duration = Duration::from_secs(1_793_491_200);

/// A key, a value, and whether go accepts it.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) accepted_by_go: bool,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

pub(super) fn unhex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn cases(table: &'static str) -> Vec<Case> {
    let of_line = |line: &'static str| {
        let cells: Vec<&str> = line.split('\t').collect();
        Case { name: cells[0], accepted_by_go: cells[1] == "accept", key: unhex(cells[2]), value: unhex(cells[3]) }
    };
    table.lines().map(of_line).collect()
}

pub(super) fn ipns_cases() -> &'static [Case] {
    static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| cases(include_str!("../../fixtures/ipns.txt")));
    &CASES
}

pub(super) fn pk_cases() -> &'static [Case] {
    static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| cases(include_str!("../../fixtures/pk.txt")));
    &CASES
}

/// Returns the names of all cases in which our verdict differs from go's.
pub(super) fn disagreements(cases: &[Case]) -> Vec<&'static str> {
    let differs = |case: &&Case| validate(&case.key, &case.value, NOW).is_ok() != case.accepted_by_go;
    cases.iter().filter(differs).map(|case| case.name).collect()
}

pub(super) fn case<'c>(cases: &'c [Case], name: &str) -> &'c Case {
    cases.iter().find(|case| case.name == name).unwrap()
}

#[test]
fn val_2_public_keys_are_taken_as_go_takes_them_but_in_one_form_only() {
    let cases = pk_cases();
    assert_eq!(cases.len(), 73);
    let stricter = |name: &str| {
        let other_form = name.ends_with(" with a field more") || name.ends_with(" fields swapped");
        other_form || ["ecdsa-p384", "ecdsa-p384 hashed"].contains(&name)
    };
    let expected: Vec<&str> = cases.iter().map(|case| case.name).filter(|name| stricter(name)).collect();
    assert_eq!(disagreements(cases), expected);
    for name in expected {
        assert!(case(cases, name).accepted_by_go, "{name}");
    }
}

#[test]
fn val_2_a_public_key_must_hash_to_the_peer_id_of_its_key() {
    let cases = pk_cases();
    let verdict = |name: &str| {
        let case = case(cases, name);
        validate(&case.key, &case.value, NOW)
    };
    for kind in ["ed25519", "secp256k1", "ecdsa", "rsa-2048", "rsa-4096"] {
        assert_eq!(verdict(kind), Ok(()));
        assert_eq!(verdict(&format!("{kind} under the name of another")), Err(Invalid::WrongKey));
        assert_eq!(verdict(&format!("{kind} cut short")), Err(Invalid::BadKey));
    }
    // A short key is its own peer id; no peer has its hash as an id.
    assert_eq!(verdict("ed25519 hashed"), Err(Invalid::WrongKey));
    assert_eq!(verdict("name of no peer"), Err(Invalid::NotAPeer));
    assert_eq!(verdict("name by sha-512"), Err(Invalid::NotAPeer));
    assert_eq!(verdict("rsa of 8192 bits, e = 3"), Ok(()));
    assert_eq!(verdict("rsa of 8193 bits, e = 3"), Err(Invalid::BadKey));
    assert_eq!(verdict("rsa of 2047 bits, e = 65537"), Err(Invalid::BadKey));
    assert_eq!(verdict("rsa of junk"), Err(Invalid::BadKey));
}

#[test]
fn val_2_no_changed_byte_of_a_public_key_is_taken() {
    for case in pk_cases().iter().filter(|case| ["ed25519", "secp256k1", "ecdsa", "rsa-2048"].contains(&case.name)) {
        for at in 0..case.value.len() {
            let mut value = case.value.clone();
            value[at] ^= 1;
            assert!(validate(&case.key, &value, NOW).is_err(), "{} byte {at}", case.name);
        }
    }
}

#[test]
fn val_1_values_of_other_namespaces_are_not_valid() {
    let cases = pk_cases();
    let value = &case(cases, "ed25519").value;
    for key in [&b""[..], b"/", b"/pk", b"/ipns", b"pk/", b"/PK/x", b"/xyz/x", b"/ipfs/x"] {
        assert_eq!(validate(key, value, NOW), Err(Invalid::UnknownNamespace));
        assert_eq!(compare(key, value, b""), Ordering::Equal);
    }
}

#[test]
fn val_3_no_value_is_longer_than_10_kib() {
    let cases = pk_cases();
    for key in [&case(cases, "ed25519").key[..], b"/ipns/x"] {
        assert_eq!(validate(key, &[0; MAX_VALUE + 1], NOW), Err(Invalid::TooLong));
    }
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..80),
        Just(case(pk_cases(), "ed25519").key[4..].to_vec()),
        Just(case(pk_cases(), "rsa-2048").key[4..].to_vec()),
    ];
    (prop_oneof![Just(&b"/pk/"[..]), Just(&b"/ipns/"[..]), Just(&b"/"[..])], name)
        .prop_map(|(namespace, name)| [namespace, &name].concat())
}

proptest! {
    #[test]
    fn val_1_no_key_and_no_value_panics_the_validator(
        key in any_key(),
        value in proptest::collection::vec(any::<u8>(), 0..300),
        other in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        prop_assert!(validate(&key, &value, NOW).is_err());
        compare(&key, &value, &other);
    }

    #[test]
    fn val_1_val_2_val_3_no_torn_and_joined_fixture_panics_the_validator(
        from in 0..237usize, to in 0..237usize, cut in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let all: Vec<&Case> = ipns_cases().iter().chain(pk_cases()).collect();
        let (a, b) = (&all[from].value, &all[to].value);
        prop_assume!(!a.is_empty() && !b.is_empty());
        let mut value = [&a[..cut.index(a.len())], &b[cut.index(b.len())..]].concat();
        if !value.is_empty() {
            let at = at.index(value.len());
            value[at] = byte;
        }
        let _ = validate(&all[from].key, &value, NOW);
        compare(&all[from].key, &value, b);
    }
}
