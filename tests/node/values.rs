//! Tests of values over real connections: VAL-1, VAL-4, VAL-5, VAL-6.

use crate::{
    clauses::{ask, closer},
    ours::{self, Ahead, Ours, addr, config, eventually},
    theirs::{Over, Theirs},
};
use dhtstore::{
    clock::{Clock, SystemClock},
    config::Config,
    kad::{
        Dht, PeerInfo,
        message::{self, Message, MessageType, Record},
        values::{
            ipns::{self, Entry},
            pk,
        },
    },
    node::{
        Node,
        lookup::{Event, values::QUORUM},
    },
    transport::identity::Identity,
};
use dhtstore_testkit::raw::Raw;
use libp2p::identity::Keypair;
use std::time::Duration;
use tokio::sync::mpsc;

const SOON: Duration = Duration::from_secs(3);
const HOUR: u64 = 3600;

/// The key pair of an IPNS name, which signs its records.
struct Name(Keypair);

impl Name {
    fn new() -> Self {
        Self(Keypair::generate_ed25519())
    }

    fn key(&self) -> Vec<u8> {
        ipns::key(&self.0.public().to_peer_id())
    }

    /// Returns a record that is valid for `hours` from now.
    fn record(&self, sequence: u64, hours: u64) -> Vec<u8> {
        self.valid_until(sequence, now() + Duration::from_secs(hours * HOUR))
    }

    /// Returns a record that ended an hour ago.
    fn expired(&self, sequence: u64) -> Vec<u8> {
        self.valid_until(sequence, now() - Duration::from_secs(HOUR))
    }

    fn valid_until(&self, sequence: u64, validity: Duration) -> Vec<u8> {
        let entry = Entry { value: b"/ipfs/bafkqaaa", sequence, validity, ttl: Duration::from_secs(HOUR) };
        ipns::create(&self.0, &entry).unwrap()
    }

    /// Returns a forged record: after signing, all copies of its value were changed to point elsewhere.
    fn forged(&self, sequence: u64) -> Vec<u8> {
        let mut record = self.record(sequence, 48);
        for at in 0..record.len() {
            if record[at..].starts_with(b"bafkqaaa") {
                record[at] = b'B';
            }
        }
        record
    }
}

fn now() -> Duration {
    Duration::from_secs(u64::from(SystemClock::new().wall().0))
}

fn put(key: &[u8], value: &[u8]) -> Vec<u8> {
    message::put_value(key, &message::record(key, value, "")).to_vec()
}

/// Stores a value in a node.
async fn holds(ours: &Ours, key: &[u8], value: &[u8]) {
    ours.store.values.put(key.to_vec(), value.to_vec()).await.unwrap();
}

fn held(ours: &Ours, key: &[u8]) -> Option<Vec<u8>> {
    ours.store.values.get(key).map(|held| held.value.to_vec())
}

/// Returns the value of an answer's record.
fn value_in(body: &[u8]) -> Option<Vec<u8>> {
    let record = Message::decode(body).unwrap().record?;
    Some(Record::decode(record).unwrap().value.to_vec())
}

/// Starts a node that knows `others`.
async fn knowing(others: &[PeerInfo]) -> Ours {
    let ours = ours::joining(others).await;
    eventually("it knows all", || Dht::ALL.iter().all(|dht| ours.node.table(*dht).len() == others.len())).await;
    ours
}

async fn nodes(n: usize) -> (Vec<Ours>, Vec<PeerInfo>) {
    let mut nodes = Vec::new();
    for _ in 0..n {
        nodes.push(ours::start_with(Config { listen: vec![addr("/ip4/127.0.0.1/tcp/0")], ..config() }).await);
    }
    let infos = nodes.iter().map(Ours::info).collect();
    (nodes, infos)
}

/// Finds a value and returns it with all events of the look-up.
async fn find(
    node: &Node,
    key: &[u8],
    quorum: usize,
) -> (Option<dhtstore::node::lookup::values::BestValue>, Vec<Event>) {
    let (sender, mut events) = mpsc::channel(1000);
    let found = node.find_value(key, quorum, Some(sender)).await;
    let mut told = Vec::new();
    while let Some(event) = events.recv().await {
        told.push(event);
    }
    (found, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn val_1_val_4_a_stored_value_is_echoed_and_a_refused_one_resets_its_stream() {
    let ours = ours::start().await;
    let (name, other) = (Name::new(), Name::new());
    let (key, record) = (name.key(), name.record(5, 48));
    for over in Over::ALL {
        let raw = Raw::connect(ours.address(over == Over::Quic), over).await;
        let mut stream = raw.stream().await;
        // A repetition is stored too.
        for _ in 0..2 {
            stream.send(&put(&key, &record)).await;
            let echo = tokio::time::timeout(SOON, stream.receive()).await.unwrap().unwrap();
            let echo = Message::decode(&echo).unwrap();
            assert_eq!((echo.kind, echo.key), (MessageType::PutValue, &key[..]));
            let echoed = Record::decode(echo.record.unwrap()).unwrap();
            assert_eq!((echoed.key, echoed.value), (&key[..], &record[..]));
        }
        let forged = name.forged(6);
        let wrong_key = message::put_value(&key, &message::record(&other.key(), &record, "")).to_vec();
        for refused in [
            put(&key, &name.record(4, 48)),
            put(&key, &forged),
            put(&other.key(), &record),
            put(&key, &name.expired(6)),
            put(b"/other/name", &record),
            put(&pk::key(&raw.id), b"no key"),
            wrong_key,
        ] {
            let mut stream = raw.stream().await;
            stream.send(&refused).await;
            assert_eq!(stream.end_within(SOON).await, over.refused(), "{over:?}");
        }
        assert_eq!(held(&ours, &key).unwrap(), record);
    }
    for (counter, n) in [
        ("requests put-value", 6),
        ("refused, better value held", 3),
        ("refused, invalid value", 12),
        ("refused, value not stored here", 3),
        ("refused, bad record", 3),
    ] {
        assert_eq!(ours.counter(counter), n, "{counter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn val_5_get_value_brings_the_record_with_its_time_and_the_closest_servers() {
    let server = ours::start().await;
    let ours = knowing(&[server.info()]).await;
    let raw = Raw::connect(ours.address(false), Over::Noise).await;
    let mut stream = raw.stream().await;
    let name = Name::new();
    let rsa = Identity::from_base64(include_str!("../fixtures/throwaway-rsa.base64")).unwrap().keypair.public();
    for (key, value) in [(name.key(), name.record(1, 48)), (pk::key(&rsa.to_peer_id()), rsa.encode_protobuf())] {
        let none = ask(&mut stream, MessageType::GetValue, &key).await;
        assert_eq!(value_in(&none), None);
        stream.send(&put(&key, &value)).await;
        stream.receive().await.unwrap();
        let body = ask(&mut stream, MessageType::GetValue, &key).await;
        assert_eq!(value_in(&body).unwrap(), value);
        let record = Record::decode(Message::decode(&body).unwrap().record.unwrap()).unwrap();
        assert_eq!(record.key, key);
        let received = humantime::parse_rfc3339(record.time_received).unwrap();
        assert!(received.elapsed().unwrap() < Duration::from_secs(60), "{}", record.time_received);
        for body in [none, body] {
            assert_eq!(closer(&body).iter().map(|(id, _)| *id).collect::<Vec<_>>(), [server.node.peer_id()]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn val_5_a_value_is_gone_48_h_after_its_last_put_and_at_the_end_of_its_validity() {
    let clock = Ahead::new();
    let ours = ours::start_as(config(), Keypair::generate_ed25519(), clock.clone()).await;
    let raw = Raw::connect(ours.address(false), Over::Noise).await;
    let (long, short) = (Name::new(), Name::new());
    holds(&ours, &long.key(), &long.record(1, 1000)).await;
    holds(&ours, &short.key(), &short.record(1, 2)).await;
    let mut seen = Vec::new();
    for hours in [1, 2, 44, 1] {
        clock.pass(hours * HOUR);
        let mut stream = raw.stream().await;
        let mut is_held =
            async |name: &Name| value_in(&ask(&mut stream, MessageType::GetValue, &name.key()).await).is_some();
        seen.push((is_held(&long).await, is_held(&short).await));
    }
    assert_eq!(seen, [(true, true), (true, false), (true, false), (false, false)]);
    assert_eq!(ours.store.values.collect_garbage().await.unwrap().expired, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn val_6_the_best_valid_value_wins_and_whoever_holds_a_worse_one_or_none_is_corrected() {
    let (nodes, mut infos) = nodes(6).await;
    let name = Name::new();
    let (best, old) = (name.record(9, 48), name.record(8, 48));
    for node in &nodes[..3] {
        holds(node, &name.key(), &best).await;
    }
    holds(&nodes[3], &name.key(), &old).await;
    // This server stores anything, and holds a forgery with a higher sequence number.
    let liar = Theirs::server(Over::Noise).await;
    let forged = name.forged(100);
    let writer = Theirs::client(Over::Noise).await;
    writer.learns(&liar.info).await;
    assert!(writer.puts_value(name.key(), forged).await);
    infos.push(liar.info.clone());
    let ours = ours::joining(&infos).await;
    eventually("it knows all", || ours.table_len() == 7).await;
    holds(&ours, &name.key(), &old).await;

    let (found, events) = find(&ours.node, &name.key(), QUORUM).await;
    let found = found.unwrap();
    assert_eq!((&found.value, found.held_by, found.answered), (&best, 3, 7));
    let said = |words: &str| {
        events.iter().filter(|event| matches!(event, Event::Value { held, .. } if held.contains(words))).count()
    };
    assert!(said("sequence 9: the best") >= 3, "{events:?}");
    assert_eq!(said("refused: signature does not match"), 1, "{events:?}");
    assert_eq!(held(&ours, &name.key()).as_ref(), Some(&best), "what this node itself held");

    let stale: Vec<_> = found.stale.iter().map(|(_, peer)| peer.id).collect();
    for node in &nodes[3..] {
        assert!(stale.contains(&node.node.peer_id()));
    }
    assert!(stale.contains(&liar.info.id));
    let placed = ours.node.put_values(&name.key(), &found.value, found.stale, None).await;
    assert_eq!((placed.sent, placed.confirmed), (4, 4));
    for node in &nodes {
        assert_eq!(held(node, &name.key()).as_ref(), Some(&best));
    }
    let (again, _) = find(&ours.node, &name.key(), QUORUM).await;
    let again = again.unwrap();
    assert_eq!((again.held_by, again.stale.len()), (7, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn val_6_a_look_up_ends_when_the_quorum_holds_the_same_best() {
    let (nodes, infos) = nodes(14).await;
    let name = Name::new();
    let record = name.record(1, 48);
    for node in &nodes {
        holds(node, &name.key(), &record).await;
    }
    let ours = knowing(&infos).await;
    let (found, _) = find(&ours.node, &name.key(), 2).await;
    let found = found.unwrap();
    // Answers of servers already asked in the other DHT may still count.
    assert!((2..10).contains(&found.answered), "{} answered", found.answered);
    let (found, _) = find(&ours.node, &name.key(), QUORUM).await;
    let found = found.unwrap();
    assert_eq!((found.answered, found.held_by, found.stale.len()), (14, 14, 0), "fewer than the quorum: all are asked");
    assert!(find(&ours.node, &Name::new().key(), QUORUM).await.0.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn val_6_sixteen_of_twenty_that_hold_the_best_are_enough_and_fifteen_are_not() {
    let (nodes, infos) = nodes(20).await;
    let ours = knowing(&infos).await;
    let name = Name::new();
    let record = name.record(1, 48);
    for node in &nodes[..15] {
        holds(node, &name.key(), &record).await;
    }
    // On a busy machine a server may be too slow to answer and is rightly left out, so the look-up is repeated.
    let mut found = find(&ours.node, &name.key(), QUORUM).await.0;
    for _ in 0..3 {
        if found.as_ref().is_some_and(|found| found.answered == 20) {
            break;
        }
        found = find(&ours.node, &name.key(), QUORUM).await.0;
    }
    let found = found.unwrap();
    assert_eq!((found.held_by, found.answered), (15, 20), "all are asked");
    for node in &nodes[15..] {
        holds(node, &name.key(), &record).await;
    }
    let mut found = find(&ours.node, &name.key(), QUORUM).await.0;
    for _ in 0..3 {
        if found.as_ref().is_some_and(|found| found.held_by >= 16) {
            break;
        }
        found = find(&ours.node, &name.key(), QUORUM).await.0;
    }
    let found = found.unwrap();
    // The look-up in the other DHT ends with its next answer.
    assert!((16..=18).contains(&found.held_by) && found.answered == found.held_by, "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn val_6_a_value_is_placed_with_the_closest_and_in_the_own_store_and_never_over_a_better_one() {
    let (nodes, infos) = nodes(4).await;
    let ours = knowing(&infos).await;
    let name = Name::new();
    let (first, second) = (name.record(1, 48), name.record(2, 48));
    let (own, placed) = ours.node.place_value(&name.key(), &second, None).await.unwrap();
    assert_eq!((own, placed.sent, placed.confirmed), (Ok(()), 4, 4));
    for node in nodes.iter().chain([&ours]) {
        assert_eq!(held(node, &name.key()).as_ref(), Some(&second));
    }
    assert!(ours.node.place_value(&name.key(), &first, None).await.is_err());
    // All servers refuse the worse value from another node, and none counts as confirmed.
    let other = knowing(&infos).await;
    let (_, placed) = other.node.place_value(&name.key(), &first, None).await.unwrap();
    assert!(placed.sent >= 4 && placed.confirmed <= 1, "{placed:?}");
    for node in &nodes {
        assert_eq!(held(node, &name.key()).as_ref(), Some(&second));
    }
    eventually("a refusal does not count as a failure", || {
        nodes.iter().all(|n| other.node.table(Dht::Wan).get(&n.node.peer_id()).is_some())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn val_4_val_5_libp2p_kad_puts_and_gets_values_with_us_over_every_transport() {
    for over in Over::ALL {
        let ours = ours::start().await;
        let client = Theirs::client(over).await;
        client.learns(&ours.info()).await;
        let name = Name::new();
        let record = name.record(2, 48);
        assert!(client.puts_value(name.key(), record.clone()).await, "{over:?}");
        assert_eq!(held(&ours, &name.key()).as_ref(), Some(&record), "{over:?}");
        assert!(!client.puts_value(name.key(), name.record(1, 48)).await, "{over:?}");
        let reader = Theirs::client(over).await;
        reader.learns(&ours.info()).await;
        assert_eq!(reader.gets_value(name.key()).await, [record], "{over:?}");
        assert_eq!(reader.gets_value(Name::new().key()).await, Vec::<Vec<u8>>::new(), "{over:?}");
    }
}
