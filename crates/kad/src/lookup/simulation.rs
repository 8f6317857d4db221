//! Simulates look-ups through a network of real routing tables that exchange real messages, in simulated time.

use super::*;
use crate::{
    frame::{self, Header},
    message::{Message, MessageType, request},
    rules,
    seeded::Seeded,
    table::{self, RoutingTable, TableView},
};
use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

const NODES: usize = 1_000;
const LOOKUPS: usize = 100;
/// Time after which a request to a mute peer fails: the time-out of the transport.
const TIMEOUT: Duration = Duration::from_secs(10);

struct Network {
    nodes: Vec<PeerInfo>,
    keys: Vec<Key>,
    /// The index of each node, by key.
    index: BTreeMap<Key, usize>,
    mute: Vec<bool>,
    tables: Vec<Arc<TableView>>,
}

impl Network {
    /// Creates nodes that each know 20 random others per bucket. Mute nodes are among them, as if the tables had never
    /// been checked.
    fn new(nodes: usize, mute_percent: usize, random: &mut Seeded) -> Self {
        let mut peers: Vec<(Key, PeerInfo)> =
            (0..nodes).map(|_| peer(random)).map(|p| (Key::for_peer(&p.id), p)).collect();
        peers.sort_unstable_by_key(|(key, _)| *key);
        let (keys, nodes): (Vec<Key>, Vec<PeerInfo>) = peers.into_iter().unzip();
        let tables = nodes.iter().zip(&keys).map(|(node, key)| full_table(node, key, &nodes, &keys, random)).collect();
        let mute = nodes.iter().map(|_| random.below(100) < mute_percent).collect();
        let index = keys.iter().copied().zip(0..).collect();
        Self { nodes, keys, index, mute, tables }
    }

    fn reachable_closest(&self, target: &Key, local: usize) -> Vec<PeerId> {
        let mut reachable: Vec<usize> = (0..self.nodes.len()).filter(|&at| !self.mute[at] && at != local).collect();
        reachable.sort_by_key(|&at| self.keys[at].distance(target));
        reachable.into_iter().take(K).map(|at| self.nodes[at].id).collect()
    }

    /// Returns the answer of `peer`, through the server's rules, the encoder and the decoder.
    fn answer(&self, peer: &PeerId, sender: &PeerId, target: &[u8]) -> Vec<PeerInfo> {
        let body = |framed: &[u8]| match frame::header(framed, frame::MAX_WRITE).unwrap() {
            Header::Complete { header, .. } => framed[header..].to_vec(),
            Header::Incomplete => panic!("incomplete"),
        };
        let table = &self.tables[self.index[&Key::for_peer(peer)]];
        let asked = body(&request(MessageType::FindNode, target));
        let Ok(rules::Request::FindNode { target }) = rules::check(&Message::decode(&asked).unwrap(), sender) else {
            panic!("refused");
        };
        let answer = body(&rules::answer_find_node(table, target, sender, None));
        Message::decode(&answer).unwrap().closer_peer_infos(2 * K, MAX_ADDRESSES)
    }
}

fn peer(random: &mut Seeded) -> PeerInfo {
    let digest: Vec<u8> = (0..4).flat_map(|_| random.next().to_be_bytes()).collect();
    let id = PeerId::from_bytes(&[&[0x12, 0x20], &digest[..]].concat()).unwrap();
    let ip = std::net::Ipv4Addr::from(random.next() as u32);
    PeerInfo { id, addrs: vec![format!("/ip4/{ip}/tcp/4001").parse().unwrap()] }
}

fn full_table(local: &PeerInfo, key: &Key, nodes: &[PeerInfo], keys: &[Key], random: &mut Seeded) -> Arc<TableView> {
    let mut table = RoutingTable::new(local.id, table::Settings { ip_diversity: None });
    for len in 1..=256 {
        // The nodes of this bucket share the prefix of the local node except for its last bit.
        let (first, last) = key.prefix(len).sibling().unwrap().bounds();
        let start = keys.partition_point(|key| *key < first);
        let end = keys.partition_point(|key| *key <= last);
        let mut bucket: Vec<usize> = (start..end).collect();
        for taken in 0..K.min(bucket.len()) {
            let chosen = taken + random.below(bucket.len() - taken);
            bucket.swap(taken, chosen);
            table.admit(&nodes[bucket[taken]], Duration::ZERO).unwrap();
        }
        // The local node is alone with this prefix, so all further buckets are empty.
        let (first, last) = key.prefix(len).bounds();
        if keys.partition_point(|key| *key <= last) - keys.partition_point(|key| *key < first) == 1 {
            break;
        }
    }
    table.view()
}

struct Outcome {
    found: Vec<PeerId>,
    /// The closest reachable peers among those that any answer named.
    best_named: Vec<PeerId>,
    took: Duration,
    asked: usize,
    hops: usize,
}

/// Runs one look-up. Answers arrive after 20 to 200 ms; mute peers fail after the time-out.
fn run(network: &Network, local: usize, target: &[u8], goal: Goal, random: &mut Seeded) -> Outcome {
    let key = rules::target_key(target);
    let seeds = network.tables[local].closest(&key, SEEDS).into_iter().map(|entry| entry.peer.clone()).collect();
    let sender = network.nodes[local].id;
    let mut lookup = Lookup::new(key, sender, seeds, goal, Settings::default());
    let mut events: BinaryHeap<Reverse<(Duration, usize, bool)>> = BinaryHeap::new();
    let mut now = Duration::ZERO;
    loop {
        let until = match lookup.next(now) {
            Next::Ask(peer) => {
                let at = network.index[&Key::for_peer(&peer.id)];
                let delay = Duration::from_millis(20 + random.below(180) as u64);
                let mute = network.mute[at];
                events.push(Reverse((now + if mute { TIMEOUT } else { delay }, at, mute)));
                continue;
            }
            Next::Wait { until } => until,
            Next::Done => break,
        };
        let Some(&Reverse((at, peer, mute))) = events.peek() else { panic!("waits for nothing") };
        if until.is_some_and(|until| until < at) {
            assert!(until > Some(now), "a deadline in the past would spin");
            now = until.unwrap();
            continue;
        }
        events.pop();
        now = at;
        let id = network.nodes[peer].id;
        match mute {
            true => lookup.failed(&id),
            false => lookup.answered(&id, network.answer(&id, &sender, target)),
        }
    }
    let named = lookup.candidates.values().map(|candidate| candidate.peer.id);
    let reachable = named.filter(|id| !network.mute[network.index[&Key::for_peer(id)]]);
    Outcome {
        found: lookup.closest().into_iter().map(|peer| peer.id).collect(),
        best_named: reachable.take(K).collect(),
        took: now,
        asked: lookup.asked(),
        hops: lookup.hops(),
    }
}

/// The results of [`LOOKUPS`] look-ups. The lists are sorted.
struct Summary {
    /// Look-ups that found exactly the closest reachable peers of the whole network.
    exact: usize,
    /// Look-ups that found the closest reachable peers among those that any answer named.
    best_of_named: usize,
    /// Number of the network's closest reachable peers that were found, summed over all look-ups.
    recall: usize,
    took: Vec<Duration>,
    asked: Vec<usize>,
    hops: Vec<usize>,
}

fn simulate(network: &Network, goal: Goal, random: &mut Seeded) -> Summary {
    let (mut exact, mut best_of_named, mut recall) = (0, 0, 0);
    let (mut took, mut asked, mut hops) = (Vec::new(), Vec::new(), Vec::new());
    let sought = if goal == Goal::Search { BETA } else { K };
    for _ in 0..LOOKUPS {
        let local = random.below(NODES);
        let target = peer(random).id.to_bytes();
        let outcome = run(network, local, &target, goal, random);
        let expected = network.reachable_closest(&rules::target_key(&target), local);
        exact += usize::from(outcome.found.starts_with(&expected[..sought]));
        let best = &outcome.best_named[..sought.min(outcome.best_named.len())];
        best_of_named += usize::from(outcome.found.starts_with(best));
        recall += expected[..sought].iter().filter(|&peer| outcome.found.contains(peer)).count();
        took.push(outcome.took);
        asked.push(outcome.asked);
        hops.push(outcome.hops);
    }
    took.sort_unstable();
    asked.sort_unstable();
    hops.sort_unstable();
    println!(
        "{goal:?}: exact {exact}, best of the named {best_of_named} of {LOOKUPS}; {recall} of {} peers; \
         took median {:?}, 95 % {:?}, max {:?}; asked median {}, max {}; hops median {}, max {}",
        LOOKUPS * sought,
        took[LOOKUPS / 2],
        took[LOOKUPS * 95 / 100],
        took[LOOKUPS - 1],
        asked[LOOKUPS / 2],
        asked[LOOKUPS - 1],
        hops[LOOKUPS / 2],
        hops[LOOKUPS - 1],
    );
    Summary { exact, best_of_named, recall, took, asked, hops }
}

fn network(mute_percent: usize, seed: u64) -> (Network, Seeded) {
    println!("seed {seed}, {NODES} nodes, {mute_percent} % mute");
    let mut random = Seeded::new(seed);
    (Network::new(NODES, mute_percent, &mut random), random)
}

/// The most hops that a network of this size justifies.
fn log2_nodes() -> usize {
    NODES.ilog2() as usize + 1
}

#[test]
fn lkp_1_the_closest_are_found_within_log2_n_hops_and_a_search_asks_fewer() {
    let (network, mut random) = network(0, 1);
    let closest = simulate(&network, Goal::Closest, &mut random);
    assert!(closest.exact * 100 >= LOOKUPS * 99);
    assert!(closest.hops[LOOKUPS - 1] <= log2_nodes());
    assert!(closest.took[LOOKUPS - 1] < Duration::from_secs(1));

    let search = simulate(&network, Goal::Search, &mut random);
    assert!(search.exact * 100 >= LOOKUPS * 99);
    assert!(search.hops[LOOKUPS - 1] <= log2_nodes());
    assert!(search.asked.iter().sum::<usize>() < closest.asked.iter().sum());
    assert!(search.took[LOOKUPS / 2] < closest.took[LOOKUPS / 2]);
}

/// A server names 20 peers, some of them mute. The farthest of the 20 closest reachable peers may therefore never be
/// named. So the test requires that a look-up finds the closest of those named, and that it misses few of the 20.
#[test]
fn lkp_1_with_a_tenth_of_the_network_mute_the_closest_are_found_within_two_seconds() {
    let (network, mut random) = network(10, 2);
    let summary = simulate(&network, Goal::Closest, &mut random);
    assert!(summary.best_of_named * 100 >= LOOKUPS * 99);
    assert!(summary.recall * 100 >= LOOKUPS * K * 99);
    assert!(summary.hops[LOOKUPS - 1] <= log2_nodes());
    assert!(summary.took[LOOKUPS * 95 / 100] <= Duration::from_secs(2));
    assert!(summary.took[LOOKUPS - 1] <= Duration::from_millis(2_500));
}

#[test]
fn lkp_1_with_a_third_of_the_network_mute_the_reachable_closest_are_found() {
    let (network, mut random) = network(30, 3);
    let summary = simulate(&network, Goal::Closest, &mut random);
    assert!(summary.best_of_named * 100 >= LOOKUPS * 99);
    assert!(summary.recall * 100 >= LOOKUPS * K * 95);
    assert!(summary.took[LOOKUPS - 1] < Duration::from_secs(5));
}

#[test]
fn the_same_seed_gives_the_same_lookups() {
    let outcome = || {
        let mut random = Seeded::new(5);
        let network = Network::new(200, 10, &mut random);
        let outcome = run(&network, 7, b"target", Goal::Closest, &mut random);
        (outcome.found, outcome.took, outcome.asked, outcome.hops)
    };
    assert_eq!(outcome(), outcome());
}
