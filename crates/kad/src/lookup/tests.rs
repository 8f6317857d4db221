use super::*;
use crate::{scope::IpGroups, seeded::Seeded};
use multiaddr::Multiaddr;
use proptest::{collection::vec, prelude::*};

const TARGET: Key = Key::from_bytes([0x77; 32]);
const ZERO: Duration = Duration::ZERO;

fn peer_id(seed: u64) -> PeerId {
    let mut random = Seeded::new(seed);
    let digest: Vec<u8> = (0..4).flat_map(|_| random.next().to_be_bytes()).collect();
    PeerId::from_bytes(&[&[0x12, 0x20], &digest[..]].concat()).unwrap()
}

fn local() -> PeerId {
    peer_id(u64::MAX)
}

fn peer(seed: u64) -> PeerInfo {
    PeerInfo { id: peer_id(seed), addrs: vec![addr(&format!("/ip4/1.2.3.4/tcp/{}", 1 + seed % 60_000))] }
}

fn addr(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

/// Peers sorted by distance from the target, closest first.
fn sorted(count: u64) -> Vec<PeerInfo> {
    let mut peers: Vec<PeerInfo> = (0..count).map(peer).collect();
    peers.sort_by_key(|peer| Key::for_peer(&peer.id).distance(&TARGET));
    peers
}

fn lookup(seeds: &[PeerInfo], goal: Goal, settings: Settings) -> Lookup {
    Lookup::new(TARGET, local(), seeds.to_vec(), goal, settings)
}

/// Returns all peers to ask now.
fn ask(lookup: &mut Lookup, now: Duration) -> Vec<PeerId> {
    std::iter::from_fn(|| match lookup.next(now) {
        Next::Ask(peer) => Some(peer.id),
        Next::Wait { .. } | Next::Done => None,
    })
    .collect()
}

fn ids(peers: &[PeerInfo]) -> Vec<PeerId> {
    peers.iter().map(|peer| peer.id).collect()
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn lkp_1_without_candidates_a_lookup_is_done() {
    assert_eq!(lookup(&[], Goal::Closest, Settings::default()).next(ZERO), Next::Done);
    let mut alone = lookup(&[PeerInfo { id: local(), addrs: Vec::new() }], Goal::Closest, Settings::default());
    assert_eq!(alone.next(ZERO), Next::Done, "the local node is not asked");
}

#[test]
fn lkp_1_alpha_requests_are_in_flight_to_the_closest() {
    let peers = sorted(30);
    let mut lookup = lookup(&peers, Goal::Closest, Settings::default());
    assert_eq!(ask(&mut lookup, ZERO), ids(&peers[..ALPHA]));
    assert_eq!(lookup.in_flight().copied().collect::<Vec<_>>(), ids(&peers[..ALPHA]));
    lookup.answered(&peers[4].id, Vec::new());
    lookup.failed(&peers[5].id);
    assert_eq!(ask(&mut lookup, ZERO), ids(&peers[ALPHA..ALPHA + 2]));
    assert_eq!(lookup.asked(), ALPHA + 2);
}

#[test]
fn lkp_1_a_search_ends_when_the_beta_closest_reachable_have_answered() {
    let peers = sorted(30);
    let mut lookup = lookup(&peers, Goal::Search, Settings::default());
    ask(&mut lookup, ZERO);
    lookup.failed(&peers[1].id);
    lookup.answered(&peers[3].id, Vec::new());
    lookup.answered(&peers[2].id, Vec::new());
    assert_ne!(lookup.next(ZERO), Next::Done, "the closest peer has not answered");
    lookup.answered(&peers[0].id, Vec::new());
    assert_eq!(lookup.next(ZERO), Next::Done);
    assert_eq!(ids(&lookup.closest()), [0, 2, 3].map(|at| peers[at].id));
    assert_eq!(lookup.closest_heard_of().len(), K);
}

#[test]
fn lkp_1_to_place_records_the_k_closest_must_have_answered_and_the_failed_are_replaced() {
    let peers = sorted(30);
    let mut lookup = lookup(&peers, Goal::Closest, Settings::default());
    let mut asked = Vec::new();
    while let batch = ask(&mut lookup, ZERO)
        && !batch.is_empty()
    {
        for peer in &batch {
            if [2, 7, 19].map(|at| peers[at].id).contains(peer) {
                lookup.failed(peer);
            } else {
                lookup.answered(peer, Vec::new());
            }
        }
        asked.extend(batch);
    }
    assert_eq!(lookup.next(ZERO), Next::Done);
    assert_eq!(asked, ids(&peers[..K + 3]), "no more are asked than needed");
    let mut expected = ids(&peers[..K + 3]);
    expected.retain(|peer| ![2, 7, 19].map(|at| peers[at].id).contains(peer));
    assert_eq!(ids(&lookup.closest()), expected);
}

#[test]
fn lkp_1_a_silent_peer_is_waited_for_no_longer_than_patience_and_its_late_answer_counts() {
    let peers = sorted(5);
    let mut lookup = lookup(&peers[..4], Goal::Closest, Settings { k: 3, ..Settings::default() });
    assert_eq!(ask(&mut lookup, ZERO), ids(&peers[..3]));
    lookup.answered(&peers[1].id, Vec::new());
    lookup.answered(&peers[2].id, Vec::new());
    assert_eq!(lookup.next(ZERO), Next::Wait { until: Some(millis(250)) });
    assert_eq!(ask(&mut lookup, millis(250)), [peers[3].id], "its stand-in");
    lookup.answered(&peers[3].id, vec![peers[4].clone()]);
    assert_eq!(lookup.next(millis(250)), Next::Wait { until: Some(millis(1_000)) }, "its patience is not over yet");
    assert_eq!(lookup.next(millis(1_000)), Next::Done);
    assert_eq!(ids(&lookup.closest()), ids(&peers[1..4]));
    lookup.answered(&peers[0].id, Vec::new());
    assert_eq!(ids(&lookup.closest()), ids(&peers[..3]));
}

#[test]
fn lkp_1_silent_peers_give_back_their_places() {
    let peers = sorted(40);
    let mut lookup = lookup(&peers, Goal::Closest, Settings::default());
    assert_eq!(ask(&mut lookup, ZERO).len(), ALPHA);
    assert_eq!(ask(&mut lookup, millis(999)), []);
    assert_eq!(ask(&mut lookup, millis(1_000)), ids(&peers[ALPHA..2 * ALPHA]));
}

#[test]
fn lkp_1_at_most_max_asked_peers_are_asked() {
    let peers = sorted(40);
    let mut lookup = lookup(&peers, Goal::Closest, Settings { max_asked: 12, ..Settings::default() });
    let mut asked = 0;
    while let batch = ask(&mut lookup, ZERO)
        && !batch.is_empty()
    {
        asked += batch.len();
        batch.iter().for_each(|peer| lookup.failed(peer));
    }
    assert_eq!((asked, lookup.next(ZERO)), (12, Next::Done));
    assert_eq!(lookup.closest(), []);
}

#[test]
fn lkp_1_a_lookup_ends_when_its_own_goal_is_met() {
    let mut lookup = lookup(&sorted(30), Goal::Search, Settings::default());
    ask(&mut lookup, ZERO);
    lookup.stop();
    assert_eq!(lookup.next(ZERO), Next::Done);
}

#[test]
fn lkp_1_unasked_answers_are_ignored_and_no_peer_is_asked_twice() {
    let peers = sorted(4);
    let mut lookup = lookup(&peers[3..], Goal::Closest, Settings::default());
    lookup.answered(&peers[3].id, vec![peers[0].clone()]);
    assert_eq!(ask(&mut lookup, ZERO), [peers[3].id]);
    lookup.answered(&peers[2].id, vec![peers[0].clone()]);
    lookup
        .answered(&peers[3].id, vec![peers[1].clone(), peers[3].clone(), PeerInfo { id: local(), addrs: Vec::new() }]);
    assert_eq!(ask(&mut lookup, ZERO), [peers[1].id]);
    lookup.failed(&peers[1].id);
    assert_eq!((lookup.next(ZERO), lookup.hops()), (Next::Done, 0));
}

#[test]
fn candidates_need_no_addresses_and_gather_them_from_several_answers() {
    let peers = sorted(4);
    let mut lookup = lookup(&peers[2..], Goal::Closest, Settings { alpha: 2, ..Settings::default() });
    ask(&mut lookup, ZERO);
    let named = |addrs: &[&str]| PeerInfo { id: peers[0].id, addrs: addrs.iter().map(|text| addr(text)).collect() };
    lookup.answered(&peers[2].id, vec![named(&[])]);
    assert_eq!(lookup.closest_heard_of()[0], named(&[]));
    lookup.answered(&peers[3].id, vec![named(&["/ip4/1.1.1.1/tcp/1"])]);
    assert_eq!(lookup.next(ZERO), Next::Ask(named(&["/ip4/1.1.1.1/tcp/1"])));
    lookup.answered(&peers[0].id, Vec::new());
    assert_eq!(lookup.hops(), 1);
}

#[test]
fn lkp_2_of_an_ip_group_no_more_than_three_are_taken_from_an_answer() {
    let peers = sorted(20);
    let at = |at: usize, ip: &str| PeerInfo { id: peers[at].id, addrs: vec![addr(&format!("/ip4/{ip}/tcp/1"))] };
    let crowd: Vec<PeerInfo> = (0..8).map(|index| at(index, "1.2.3.4")).chain([at(8, "1.3.3.4")]).collect();
    let named = |ip_diversity: Option<IpGroups>| {
        let settings = Settings { ip_diversity, ..Settings::default() };
        let mut lookup = lookup(&peers[19..], Goal::Closest, settings);
        ask(&mut lookup, ZERO);
        lookup.answered(&peers[19].id, crowd.clone());
        ids(&lookup.closest_heard_of())
    };
    assert_eq!(named(Some(IpGroups::default())), [0, 1, 2, 8, 19].map(|at| peers[at].id));
    assert_eq!(named(None).len(), 10);
}

#[test]
fn at_most_2k_peers_of_an_answer_are_looked_at_and_candidates_are_bounded() {
    let peers = sorted(100);
    let mut small = lookup(&peers[99..], Goal::Closest, Settings::default());
    ask(&mut small, ZERO);
    small.answered(&peers[99].id, peers.clone());
    assert_eq!(small.candidates.len(), 2 * K + 1);

    let many = sorted(2 * MAX_CANDIDATES as u64);
    let mut lookup = lookup(&[], Goal::Closest, Settings::default());
    for peer in many.iter().rev() {
        lookup.heard_of(peer.clone(), 0);
    }
    assert_eq!(lookup.candidates.len(), MAX_CANDIDATES);
    let kept: Vec<PeerId> = lookup.candidates.values().map(|candidate| candidate.peer.id).collect();
    assert_eq!(kept, ids(&many[..MAX_CANDIDATES]), "the farthest are dropped");
}

proptest! {
    /// Peers answer with random peers, fail or stay silent, in any order.
    #[test]
    fn lkp_1_every_lookup_ends_with_the_closest_that_answered(
        seeds in vec(0..120u64, 0..25),
        behaviour in any::<u64>(),
        search: bool,
        max_asked in 1..150usize,
    ) {
        let goal = if search { Goal::Search } else { Goal::Closest };
        let settings = Settings { max_asked, ..Settings::default() };
        let mut lookup = lookup(&seeds.iter().copied().map(peer).collect::<Vec<_>>(), goal, settings.clone());
        let mut random = Seeded::new(behaviour);
        let (mut now, mut asked, mut answered, mut waiting) = (ZERO, BTreeSet::new(), Vec::new(), Vec::new());
        for _ in 0..10_000 {
            let until = match lookup.next(now) {
                Next::Done => break,
                Next::Ask(peer) => {
                    prop_assert!(peer.id != local() && asked.insert(peer.id), "asked once");
                    waiting.push((peer.id, now));
                    let patient = waiting.iter().filter(|(_, since)| now - *since < settings.patience).count();
                    prop_assert!(patient <= settings.alpha);
                    continue;
                }
                Next::Wait { until } => until,
            };
            prop_assert!(until.is_some_and(|until| until > now), "a wait has a deadline");
            prop_assert!(!waiting.is_empty(), "waits for no peer");
            let event = random.below(4);
            if event == 0 {
                // All peers are silent for a while.
                now = until.unwrap_or(now);
                continue;
            }
            let (peer_id, _) = waiting.swap_remove(random.below(waiting.len()));
            if event == 1 {
                lookup.failed(&peer_id);
            } else {
                let closer = (0..random.below(25)).map(|_| peer(random.below(120) as u64)).collect();
                lookup.answered(&peer_id, closer);
                answered.push(peer_id);
            }
        }
        prop_assert_eq!(lookup.next(now), Next::Done);
        prop_assert!(asked.len() <= max_asked && lookup.asked() == asked.len());

        answered.sort_by_key(|peer| Key::for_peer(peer).distance(&TARGET));
        answered.truncate(K);
        prop_assert_eq!(ids(&lookup.closest()), &answered[..]);
        // Each peer closer than those needed has answered, failed or used up its patience, unless no more may be asked.
        if asked.len() < max_asked {
            let needed = if search { BETA } else { K };
            let last = answered.get(needed - 1).map(|peer| Key::for_peer(peer).distance(&TARGET));
            for (distance, candidate) in &lookup.candidates {
                if last.is_none_or(|last| *distance < last) {
                    prop_assert!(candidate.state != State::HeardOf);
                    if let State::InFlight { since } = candidate.state {
                        prop_assert!(now - since >= settings.patience);
                    }
                }
            }
        }
    }
}
