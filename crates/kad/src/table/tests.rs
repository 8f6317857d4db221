use super::*;
use crate::{message::MAX_SERVER_ADDRESS_BYTES, scope::AutonomousSystems, seeded::Seeded};
use proptest::{collection::vec, prelude::*};
use std::net::Ipv6Addr;

const FREE: Settings = Settings { ip_diversity: None };

fn diverse() -> Settings {
    Settings { ip_diversity: Some(IpGroups::default()) }
}

fn peer_id(seed: u64) -> PeerId {
    let mut random = Seeded::new(seed);
    let digest: Vec<u8> = (0..4).flat_map(|_| random.next().to_be_bytes()).collect();
    PeerId::from_bytes(&[&[0x12, 0x20], &digest[..]].concat()).unwrap()
}

fn addr(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

/// A peer with an IP group of its own.
fn peer(seed: u64) -> PeerInfo {
    let [.., a, b] = seed.to_be_bytes();
    PeerInfo { id: peer_id(seed), addrs: vec![addr(&format!("/ip4/{}.{b}.1.1/tcp/4001", 100 + a % 100))] }
}

fn local() -> PeerId {
    peer_id(u64::MAX)
}

/// Seeds of peers whose common prefix length with the local node is `cpl`.
fn seeds_in_bucket(cpl: u16) -> impl Iterator<Item = u64> {
    let local = Key::for_peer(&local());
    (0..).filter(move |&seed| Key::for_peer(&peer_id(seed)).common_prefix_length(&local) == cpl)
}

const NOW: Duration = Duration::from_secs(1_000);

fn after(seconds: u64) -> Duration {
    NOW + Duration::from_secs(seconds)
}

#[test]
fn rt_1_every_bucket_takes_k_peers_and_no_more() {
    let mut table = RoutingTable::new(local(), FREE);
    for cpl in 0..5 {
        for (count, seed) in seeds_in_bucket(cpl).take(K + 3).enumerate() {
            let expected = if count < K { Ok(()) } else { Err(Refusal::BucketFull) };
            assert_eq!(table.admit(&peer(seed), NOW), expected);
        }
    }
    assert_eq!(table.len(), 5 * K);
    let sizes: Vec<_> = table.buckets().into_iter().map(|(cpl, bucket)| (cpl, bucket.len())).collect();
    assert_eq!(sizes, (0..5).map(|cpl| (cpl, K)).collect::<Vec<_>>());
}

#[test]
fn rt_3_peers_without_addresses_and_oneself_are_refused() {
    let mut table = RoutingTable::new(local(), FREE);
    let addressless = PeerInfo { id: peer_id(1), addrs: Vec::new() };
    assert_eq!(table.offer(&addressless, NOW), Offer::Refused(Refusal::NoAddress));
    assert_eq!(table.admit(&addressless, NOW), Err(Refusal::NoAddress));
    let oneself = PeerInfo { id: local(), ..peer(1) };
    assert_eq!(table.offer(&oneself, NOW), Offer::Refused(Refusal::Oneself));
    assert_eq!(table.admit(&oneself, NOW), Err(Refusal::Oneself));
    assert!(table.is_empty());
}

#[test]
fn rt_4_peers_unheard_are_due_for_a_check_longest_silent_first() {
    let mut table = RoutingTable::new(local(), FREE);
    for seed in 0..4 {
        table.admit(&peer(seed), after(seed)).unwrap();
    }
    let answers = |table: &mut RoutingTable, seed, at| table.reached(&peer_id(seed), &peer(seed).addrs[0], at);
    answers(&mut table, 0, after(10));
    answers(&mut table, 1, NOW); // an older time than the known one changes nothing
    table.heard(&peer_id(2), after(400)); // a request from it does not make it reachable
    let due = |now| -> Vec<PeerId> {
        table.due_for_check(now, Duration::from_secs(300)).into_iter().map(|peer| peer.id).collect()
    };
    assert_eq!(due(after(300)), []);
    assert_eq!(due(after(302)), [peer_id(1), peer_id(2)]);
    assert_eq!(due(after(500)), [1, 2, 3, 0].map(peer_id));
}

#[test]
fn rt_5_a_full_bucket_refuses_until_one_of_it_is_removed() {
    let mut table = RoutingTable::new(local(), FREE);
    let seeds: Vec<u64> = seeds_in_bucket(1).take(K + 1).collect();
    for &seed in &seeds[..K] {
        table.admit(&peer(seed), NOW).unwrap();
    }
    let newcomer = peer(seeds[K]);
    assert_eq!(table.offer(&newcomer, after(9)), Offer::Refused(Refusal::BucketFull));
    assert!(table.remove(&peer_id(seeds[3])));
    assert!(!table.remove(&peer_id(seeds[3])));
    assert_eq!(table.offer(&newcomer, after(9)), Offer::Probe);
    assert!(!table.contains(&newcomer.id), "an offer admits no peer");
    table.admit(&newcomer, after(9)).unwrap();
    let bucket = &table.buckets()[0].1;
    assert_eq!(bucket.last().unwrap().peer.id, newcomer.id, "the newest is the least senior");
    assert_eq!(bucket.last().unwrap().admitted, after(9));
}

#[test]
fn rt_6_at_most_two_of_an_ip_group_in_a_bucket_and_three_in_the_table() {
    let at = |seed, ip: &str| PeerInfo { id: peer_id(seed), addrs: vec![addr(&format!("/ip4/{ip}/tcp/4001"))] };
    let (first, second): (Vec<u64>, Vec<u64>) =
        (seeds_in_bucket(0).take(3).collect(), seeds_in_bucket(1).take(2).collect());
    let mut table = RoutingTable::new(local(), diverse());
    table.admit(&at(first[0], "1.2.3.4"), NOW).unwrap();
    table.admit(&at(first[1], "1.2.4.4"), NOW).unwrap();
    assert_eq!(table.admit(&at(first[2], "1.2.5.4"), NOW), Err(Refusal::IpGroupFull));
    table.admit(&at(second[0], "1.2.6.4"), NOW).unwrap();
    assert_eq!(table.offer(&at(second[1], "1.2.7.4"), NOW), Offer::Refused(Refusal::IpGroupFull));
    assert_eq!(table.offer(&at(second[1], "1.3.7.4"), NOW), Offer::Probe);

    let mut table = RoutingTable::new(local(), FREE);
    for seed in first.into_iter().chain(second) {
        table.admit(&at(seed, "127.0.0.1"), NOW).unwrap();
    }
}

#[test]
fn rt_6_every_address_of_a_peer_counts() {
    let seeds: Vec<u64> = seeds_in_bucket(0).take(4).collect();
    let with = |seed, addrs: &[&str]| PeerInfo { id: peer_id(seed), addrs: addrs.iter().map(|a| addr(a)).collect() };
    let mut table = RoutingTable::new(local(), diverse());
    table.admit(&with(seeds[0], &["/ip4/1.1.0.1/tcp/1", "/ip6/2604:1380::1/tcp/1"]), NOW).unwrap();
    table.admit(&with(seeds[1], &["/ip4/1.2.0.1/tcp/1", "/ip6/2604:1380::2/tcp/1"]), NOW).unwrap();
    let third = with(seeds[2], &["/ip4/1.3.0.1/tcp/1", "/ip6/2604:1380::3/tcp/1"]);
    assert_eq!(table.admit(&third, NOW), Err(Refusal::IpGroupFull));

    // It also cannot enter with one address and add the other later.
    table.admit(&with(seeds[2], &["/ip4/1.3.0.1/tcp/1"]), NOW).unwrap();
    let addrs = |table: &RoutingTable| table.view().get(&third.id).unwrap().peer.addrs.clone();
    assert_eq!(table.offer(&third, NOW), Offer::Known);
    assert_eq!(addrs(&table), third.addrs[..1]);
    table.set_addresses(&third.id, &third.addrs);
    assert_eq!(addrs(&table), third.addrs[..1]);
    table.set_addresses(&third.id, &third.addrs[1..]);
    assert_eq!(addrs(&table), third.addrs[..1], "a peer keeps its address if the new ones are refused");
    table.reached(&third.id, &third.addrs[1], NOW);
    assert_eq!(addrs(&table), third.addrs[..1], "the group is full for the address where it was reached, too");

    // Removing a peer makes room in its group.
    table.remove(&peer_id(seeds[0]));
    table.set_addresses(&third.id, &third.addrs);
    assert_eq!(addrs(&table), third.addrs);
}

#[test]
fn rt_6_where_a_peer_speaks_from_counts_whatever_addresses_it_claims() {
    let seeds: Vec<u64> = seeds_in_bucket(0).take(6).collect();
    let claiming = |n: usize, text: &str| PeerInfo { id: peer_id(seeds[n]), addrs: vec![addr(text)] };
    let mut table = RoutingTable::new(local(), diverse());
    let one_host = [addr("/ip4/8.8.8.8/tcp/50000")];
    table.admit_seen_at(&claiming(0, "/ip4/1.1.0.1/tcp/1"), &one_host, NOW).unwrap();
    table.admit_seen_at(&claiming(1, "/dns4/a.example/tcp/1"), &one_host, NOW).unwrap();
    let third = claiming(2, "/ip4/1.3.0.1/tcp/1");
    assert_eq!(table.admit_seen_at(&third, &one_host, NOW), Err(Refusal::IpGroupFull));
    // It still counts in that group after its addresses change.
    table.set_addresses(&peer_id(seeds[0]), &[addr("/ip4/1.9.0.1/tcp/1")]);
    assert_eq!(table.admit_seen_at(&third, &one_host, NOW), Err(Refusal::IpGroupFull));
    table.remove(&peer_id(seeds[1]));
    table.admit_seen_at(&third, &one_host, NOW).unwrap();
    // Connections through a proxy in front of this node do not count.
    let proxy = [addr("/ip4/10.0.0.1/tcp/1")];
    for n in 3..6 {
        table.admit_seen_at(&claiming(n, &format!("/ip4/2.{n}.0.1/tcp/1")), &proxy, NOW).unwrap();
    }
}

/// Two /32 networks of one AS, and one /32 that two other ASes share.
#[derive(Debug)]
struct Systems;

impl AutonomousSystems for Systems {
    fn number(&self, ip: Ipv6Addr) -> Option<u32> {
        match ip.segments() {
            [0x2a00, 1 | 2, ..] => Some(64_496),
            [0x2a00, 3, half, ..] => Some(64_497 + u32::from(half >> 15)),
            _ => None,
        }
    }
}

#[test]
fn rt_6_ip6_peers_count_by_autonomous_system_where_it_is_known() {
    let seeds: Vec<u64> = seeds_in_bucket(0).take(9).collect();
    let at = |n: usize, ip: &str| PeerInfo { id: peer_id(seeds[n]), addrs: vec![addr(&format!("/ip6/{ip}/tcp/1"))] };
    let mut table = RoutingTable::new(local(), Settings { ip_diversity: Some(IpGroups::new(Arc::new(Systems))) });
    let mut admits = |n, ip| table.admit(&at(n, ip), NOW).is_ok();
    assert!(admits(0, "2a00:1::1") && admits(1, "2a00:2::1"));
    assert!(!admits(2, "2a00:1::2"), "one provider with two allocations");
    assert!(admits(2, "2a00:3::1") && admits(3, "2a00:3:8000::1"));
    assert!(admits(4, "2a00:3::2") && admits(5, "2a00:3:8000::2"), "two providers in one allocation");
    assert!(!admits(6, "2a00:3::3"));
    assert!(admits(6, "2a00:4::1") && admits(7, "2a00:4::2"));
    assert!(!admits(8, "2a00:4::3"), "an address without a known AS counts by its /32");
}

#[test]
fn rt_4_the_address_that_answered_last_comes_first_whatever_a_peer_claims() {
    let mut table = RoutingTable::new(local(), FREE);
    let peer = peer(1);
    table.admit(&peer, NOW).unwrap();
    let addrs = |table: &RoutingTable| table.view().get(&peer.id).unwrap().peer.addrs.clone();
    let (old, new, lie) = (peer.addrs[0].clone(), addr("/ip4/9.9.9.9/tcp/1"), addr("/ip4/9.9.9.9/tcp/2"));
    table.set_addresses(&peer.id, &[lie.clone(), new.clone()]);
    assert_eq!(addrs(&table), [old.clone(), lie.clone(), new.clone()]);
    table.reached(&peer.id, &new, after(1));
    assert_eq!(addrs(&table), [new.clone(), old, lie.clone()]);
    table.set_addresses(&peer.id, &[lie.clone(), new.clone()]);
    assert_eq!(addrs(&table), [new, lie], "an address that the peer neither claims nor answered at is dropped");
    // An address that was dialled and that it never named.
    table.reached(&peer.id, &addr("/dns4/a.example/tcp/1"), after(2));
    assert_eq!(addrs(&table)[0], addr("/dns4/a.example/tcp/1"));
    table.reached(&peer_id(2), &addr("/ip4/9.9.9.9/tcp/1"), after(2));
    assert!(!table.contains(&peer_id(2)));
}

#[test]
fn addresses_are_refreshed_bounded_and_encoded_anew() {
    let mut table = RoutingTable::new(local(), FREE);
    let peer = peer(1);
    table.admit(&peer, NOW).unwrap();
    let entry = |table: &RoutingTable| table.view().get(&peer.id).unwrap().clone();
    let many: Vec<Multiaddr> = (1..100).map(|port| addr(&format!("/ip4/9.9.9.9/tcp/{port}"))).collect();

    assert_eq!(table.offer(&PeerInfo { id: peer.id, addrs: many.clone() }, NOW), Offer::Known);
    let offered = entry(&table);
    assert_eq!(offered.peer.addrs.len(), MAX_ADDRESSES);
    assert_eq!(offered.peer.addrs[0], peer.addrs[0], "an offer does not replace known addresses");
    assert_eq!(offered.encoded, EncodedPeer::of_server(&peer.id, &offered.peer.addrs));

    table.set_addresses(&peer.id, &many);
    let set = entry(&table);
    assert_eq!(set.peer.addrs, [&peer.addrs, &many[..MAX_ADDRESSES - 1]].concat());
    assert_eq!(set.encoded, EncodedPeer::of_server(&peer.id, &set.peer.addrs));
    assert!(set.encoded.as_bytes().len() <= MAX_SERVER_ADDRESS_BYTES + 40);
    table.set_addresses(&peer.id, &[]);
    assert_eq!(entry(&table).peer.addrs, set.peer.addrs, "an empty list changes nothing");
}

#[test]
fn rt_7_refresh_targets_lie_in_the_buckets_that_are_not_full() {
    let mut table = RoutingTable::new(local(), FREE);
    assert!(table.refresh_targets(1).is_empty());
    for seed in seeds_in_bucket(1).take(K).chain(seeds_in_bucket(4).take(2)).collect::<Vec<_>>() {
        table.admit(&peer(seed), NOW).unwrap();
    }
    let local = Key::for_peer(&local());
    let targets = table.refresh_targets(1);
    let buckets: Vec<u16> = targets.iter().map(|target| Key::for_value(target).common_prefix_length(&local)).collect();
    assert_eq!(buckets, [0, 2, 3, 4], "every bucket up to the last with peers, except the full one");
    assert_eq!(targets, table.refresh_targets(1));
    assert_ne!(targets, table.refresh_targets(2));
}

#[test]
fn the_view_is_shared_until_the_table_changes() {
    let mut table = RoutingTable::new(local(), FREE);
    table.admit(&peer(1), NOW).unwrap();
    let view = table.view();
    table.heard(&peer_id(1), after(1));
    table.set_addresses(&peer_id(1), &peer(1).addrs);
    assert!(Arc::ptr_eq(&view, &table.view()));
    table.admit(&peer(2), NOW).unwrap();
    assert_eq!((view.len(), table.view().len()), (1, 2));
    assert_eq!(table.view().get(&peer_id(1)).unwrap().heard, after(1));
    assert_eq!(table.entries_for_snapshot().len(), 2);
    assert!(TableView::empty().closest(&Key::from_bytes([0; 32]), 20).is_empty());
}

#[derive(Clone, Debug)]
enum Event {
    Offer(u64),
    Admit(u64),
    Heard(u64),
    Reached(u64, u64),
    SetAddresses(u64, u64),
    Remove(u64),
    Pass(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let seed = 0..150u64;
    prop_oneof![
        1 => seed.clone().prop_map(Event::Offer),
        6 => seed.clone().prop_map(Event::Admit),
        1 => seed.clone().prop_map(Event::Heard),
        1 => (seed.clone(), seed.clone()).prop_map(|(peer, other)| Event::Reached(peer, other)),
        1 => (seed.clone(), seed.clone()).prop_map(|(peer, other)| Event::SetAddresses(peer, other)),
        1 => seed.prop_map(Event::Remove),
        1 => any::<u8>().prop_map(Event::Pass),
    ]
}

/// Returns a peer in one of few IP groups, so that the limits are reached.
fn crowded(seed: u64) -> PeerInfo {
    let groups = [seed % 7, 7 + seed % 11];
    let addrs = groups.iter().take(1 + seed as usize % 2).map(|group| addr(&format!("/ip4/1.{group}.1.1/tcp/4001")));
    PeerInfo { id: peer_id(seed), addrs: addrs.collect() }
}

fn check_invariants(table: &RoutingTable, diverse: bool, now: Duration) -> Result<(), TestCaseError> {
    let local = Key::for_peer(&local());
    let mut in_table: BTreeMap<IpGroup, usize> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for (cpl, bucket) in table.buckets() {
        prop_assert!(!bucket.is_empty() && bucket.len() <= K);
        prop_assert!(bucket.is_sorted_by_key(|entry| entry.admitted), "seniority");
        let mut in_bucket: BTreeMap<IpGroup, usize> = BTreeMap::new();
        for entry in bucket {
            prop_assert_eq!(entry.key, Key::for_peer(&entry.peer.id));
            prop_assert_eq!(entry.key.common_prefix_length(&local), cpl);
            prop_assert!(!entry.peer.addrs.is_empty() && entry.peer.addrs.len() <= MAX_ADDRESSES);
            prop_assert_eq!(&entry.encoded, &EncodedPeer::of_server(&entry.peer.id, &entry.peer.addrs));
            prop_assert!(entry.admitted <= entry.heard && entry.heard <= now);
            prop_assert!(ids.insert(entry.peer.id));
            for group in
                entry.peer.addrs.iter().filter_map(|addr| IpGroups::default().of(addr)).collect::<BTreeSet<_>>()
            {
                *in_bucket.entry(group).or_default() += 1;
                *in_table.entry(group).or_default() += 1;
            }
        }
        prop_assert!(!diverse || in_bucket.values().all(|&count| count <= MAX_PER_IP_GROUP_AND_BUCKET));
    }
    prop_assert!(!diverse || in_table.values().all(|&count| count <= MAX_PER_IP_GROUP));
    prop_assert_eq!(ids.len(), table.len());
    let view = table.view();
    prop_assert_eq!(view.iter().map(|entry| entry.peer.id).collect::<BTreeSet<_>>(), ids);
    prop_assert!(view.iter().is_sorted_by_key(|entry| entry.key));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rt_1_to_6_hold_under_any_sequence_of_events(events in vec(event(), 0..300), diverse: bool) {
        let mut table = RoutingTable::new(local(), Settings { ip_diversity: diverse.then(IpGroups::default) });
        let mut now = NOW;
        let mut members = BTreeSet::new();
        for event in events {
            match event {
                Event::Offer(seed) => match table.offer(&crowded(seed), now) {
                    Offer::Known => prop_assert!(members.contains(&seed)),
                    Offer::Probe => prop_assert!(!members.contains(&seed)),
                    Offer::Refused(_) => {
                        prop_assert!(!members.contains(&seed));
                        prop_assert!(table.admit(&crowded(seed), now).is_err(), "an offer predicts admission");
                    }
                },
                Event::Admit(seed) => {
                    if table.admit(&crowded(seed), now).is_ok() {
                        members.insert(seed);
                    } else {
                        prop_assert!(!members.contains(&seed));
                    }
                }
                Event::Heard(seed) => table.heard(&peer_id(seed), now),
                Event::Reached(seed, other) => table.reached(&peer_id(seed), &crowded(other).addrs[0], now),
                Event::SetAddresses(seed, other) => table.set_addresses(&peer_id(seed), &crowded(other).addrs),
                Event::Remove(seed) => prop_assert_eq!(table.remove(&peer_id(seed)), members.remove(&seed)),
                Event::Pass(seconds) => now += Duration::from_secs(seconds.into()),
            }
        }
        // RT-5: only `remove` removes peers.
        prop_assert!(members.iter().all(|&seed| table.contains(&peer_id(seed))));
        prop_assert_eq!(members.len(), table.len());
        check_invariants(&table, diverse, now)?;
    }

    #[test]
    fn srv_1_closest_is_what_sorting_by_distance_gives(
        seeds in vec(any::<u64>(), 0..200),
        target: [u8; 32],
        near in any::<prop::sample::Index>(),
        n in 0usize..40,
    ) {
        let mut table = RoutingTable::new(local(), FREE);
        for seed in seeds {
            let _ = table.admit(&peer(seed), NOW);
        }
        let view = table.view();
        let mut targets = vec![Key::from_bytes(target), Key::for_peer(&local())];
        if !view.is_empty() {
            targets.push(view.iter().nth(near.index(view.len())).unwrap().key);
        }
        for target in targets {
            let mut sorted: Vec<&Entry> = view.iter().collect();
            sorted.sort_by_key(|entry| entry.key.distance(&target));
            let ids = |entries: &[&Entry]| entries.iter().map(|entry| entry.peer.id).collect::<Vec<_>>();
            prop_assert_eq!(ids(&view.closest(&target, n)), ids(&sorted[..n.min(sorted.len())]));
            sorted.retain(|entry| entry.key.bit(255));
            sorted.truncate(n);
            prop_assert_eq!(ids(&view.closest_where(&target, n, |entry| entry.key.bit(255))), ids(&sorted));
        }
    }
}
