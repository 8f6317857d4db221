use super::*;
use proptest::prelude::*;

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn key() -> impl Strategy<Value = Key> {
    any::<[u8; 32]>().prop_map(Key::from_bytes)
}

/// Two keys with a chosen common prefix length, since random keys rarely share more than a few bits.
fn near_keys() -> impl Strategy<Value = (Key, Key)> {
    (key(), key(), 0u16..=256).prop_map(|(a, b, len)| {
        let mut near = b.0;
        let mut mask = [0xff; 32];
        clear_behind(&mut mask, len);
        for (byte, (ours, mask)) in near.iter_mut().zip(a.0.into_iter().zip(mask)) {
            *byte = (ours & mask) | (*byte & !mask);
        }
        (a, Key(near))
    })
}

/// The specification's example contradicts itself: its hexadecimal peer id hashes to its Kademlia identifier, but its
/// base58 and CID forms (`12D3KooWKudo...`, `k51qzi5uqu5djx47...`) are those of another peer. The hash decides.
#[test]
fn key_1_place_of_the_peer_id_in_the_specification() {
    let bytes = unhex("0024080112209e3b433cbd31c2b8a6ebbdca998bd0f4c2141c9c9af5422e976051b1e63af14d");
    let peer = PeerId::from_bytes(&bytes).unwrap();
    assert_eq!(peer.to_string(), "12D3KooWLU2znyJMtDiHArqAGbZn8CgUGp92kxDBtefftEEaHSZS");
    assert_eq!(Key::for_peer(&peer).to_string(), "e43d28f0996557c0d5571d75c62a57a59d7ac1d30a51ecedcdb9d5e4afa56100");
}

#[test]
fn key_1_place_of_the_content_in_the_specification() {
    let cid: cid::Cid = "bafybeihfg3d7rdltd43u3tfvncx7n5loqofbsobojcadtmokrljfthuc7y".parse().unwrap();
    let multihash = cid.hash().to_bytes();
    assert_eq!(multihash, unhex("1220e536c7f88d731f374dccb568aff6f56e838a19382e488039b1ca8ad2599e82fe"));
    assert_eq!(
        Key::for_content(&multihash).to_string(),
        "d623250f3f660ab4c3a53d3c97b3f6a0194c548053488d093520206248253bcb"
    );
    assert_ne!(Key::for_content(&cid.to_bytes()), Key::for_content(&multihash), "not the place of the CID's bytes");
}

#[test]
fn prefixes_read_as_their_bits() {
    let key = Key::from_bytes([0b1010_0000; 32]);
    assert_eq!(key.prefix(0).to_string(), "*");
    assert_eq!(key.prefix(4).to_string(), "1010");
    assert_eq!(key.prefix(4).sibling().unwrap().to_string(), "1011");
    assert_eq!(key.prefix(3).children().map(|child| child.to_string()), ["1010", "1011"]);
    assert_eq!(key.prefix(256).children(), [key.prefix(256); 2]);
    assert_eq!(key.prefix(0).sibling(), None);
    assert_eq!(key.prefix(999), key.prefix(256));
}

proptest! {
    #[test]
    fn key_1_distance_is_a_metric(a in key(), b in key(), c in key()) {
        prop_assert_eq!(a.distance(&b), b.distance(&a));
        prop_assert_eq!(a.distance(&a).leading_zeros(), 256);
        prop_assert_eq!(a.distance(&b) == a.distance(&a), a == b);
        // The XOR metric is unidirectional: one point at each distance.
        prop_assert_eq!(a.distance(&b) == a.distance(&c), b == c);
    }

    #[test]
    fn common_prefix_length_counts_equal_leading_bits((a, b) in near_keys()) {
        let naive = (0..256).take_while(|&index| a.bit(index) == b.bit(index)).count();
        prop_assert_eq!(usize::from(a.common_prefix_length(&b)), naive);
    }

    #[test]
    fn a_prefix_contains_what_shares_its_bits((a, b) in near_keys(), len in 0u16..=256) {
        let prefix = a.prefix(len);
        prop_assert_eq!(prefix.len(), len);
        prop_assert_eq!(prefix.contains(&b), a.common_prefix_length(&b) >= len);
        let (first, last) = prefix.bounds();
        prop_assert_eq!(prefix.contains(&b), first <= b && b <= last);
        prop_assert!(prefix.contains(&first) && prefix.contains(&last));
    }

    #[test]
    fn children_divide_their_parent(a in key(), b in key(), len in 0u16..256) {
        let parent = a.prefix(len);
        let [zero, one] = parent.children();
        prop_assert_eq!(zero.sibling(), Some(one));
        prop_assert_eq!(one.sibling(), Some(zero));
        prop_assert_eq!(parent.bounds(), (zero.bounds().0, one.bounds().1));
        let key = if parent.contains(&b) { b } else { a };
        prop_assert!(zero.contains(&key) != one.contains(&key));
    }

    #[test]
    fn rt_7_a_preimage_lies_in_the_bucket_it_was_sought_for(near in key(), cpl in 0u16..10, seed: u64) {
        let multihash = preimage(&near, cpl, seed).expect("found");
        prop_assert_eq!(Key::for_content(&multihash).common_prefix_length(&near), cpl);
        prop_assert!(PeerId::from_bytes(&multihash).is_ok());
        prop_assert_eq!(preimage(&near, cpl, seed), Some(multihash));
    }
}

#[test]
fn rt_7_preimages_exist_down_to_the_deepest_bucket_searched() {
    let near = Key::from_bytes([0x5a; 32]);
    let multihash = preimage(&near, MAX_PREIMAGE_CPL, 3).expect("found");
    assert_eq!(Key::for_content(&multihash).common_prefix_length(&near), MAX_PREIMAGE_CPL);
    assert_eq!(preimage(&near, MAX_PREIMAGE_CPL + 1, 3), None);
}
