//! Tests of streams: order, limits, time-outs, malformed messages.

use crate::{
    ours::{self, addr, config, eventually, holds, multihash},
    theirs::Over,
};
use dhtstore::kad::message::{self, EncodedPeer, Message, MessageType};
use dhtstore_testkit::raw::{End, Raw};
use futures::future::join_all;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(3);

fn find_node(target: &[u8]) -> Vec<u8> {
    message::request(MessageType::FindNode, target).to_vec()
}

fn announce(raw: &Raw, n: u64) -> Vec<u8> {
    let addrs = [addr("/ip4/127.0.0.1/tcp/4001")];
    message::add_provider(&multihash(n), &EncodedPeer::new(&raw.id, &addrs)).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn msg_2_prv_4_requests_on_one_stream_are_answered_in_order_and_add_provider_is_not() {
    let ours = ours::start().await;
    for over in Over::ALL {
        let raw = Raw::connect(ours.address(over == Over::Quic), over).await;
        let mut stream = raw.stream().await;
        // All in two writes, split in the middle of a message.
        let requests = [
            find_node(b"one"),
            announce(&raw, 1),
            announce(&raw, 2),
            message::request(MessageType::GetProviders, &multihash(2)).to_vec(),
            message::request(MessageType::Ping, b"").to_vec(),
            announce(&raw, 3),
            find_node(b"two"),
        ]
        .concat();
        let (first, second) = requests.split_at(requests.len() / 2);
        stream.send(first).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.send(second).await;
        let mut kinds = Vec::new();
        for _ in 0..4 {
            let body = stream.receive().await.unwrap();
            let answer = Message::decode(&body).unwrap();
            if answer.kind == MessageType::GetProviders {
                // PRV-10: the answer includes the requester's own record.
                let providers: Vec<_> = answer.provider_peers().map(|p| p.id.to_vec()).collect();
                assert!(providers.contains(&raw.id.to_bytes()), "{over:?}");
            }
            kinds.push(answer.kind);
        }
        use MessageType::{FindNode, GetProviders, Ping};
        assert_eq!(kinds, [FindNode, GetProviders, Ping, FindNode]);
        assert_eq!(stream.end_within(Duration::from_millis(50)).await, End::Open);
        assert!(holds(&ours, &multihash(3)).await >= 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_carries_300_streams_at_once() {
    let ours = ours::start().await;
    for over in Over::ALL {
        let raw = Raw::connect(ours.address(over == Over::Quic), over).await;
        let mut streams = join_all((0..300).map(|_| raw.stream())).await;
        for _ in 0..2 {
            let answers = join_all(streams.iter_mut().map(async |stream| {
                stream.send(&find_node(b"target")).await;
                stream.receive().await
            }));
            assert!(answers.await.iter().all(Option::is_some), "{over:?}");
        }
    }
    assert_eq!(ours.counter("streams dropped, connection limit"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_over_the_limit_is_dropped_and_counted_and_room_comes_back() {
    let mut config = config();
    config.streams.max_per_connection = 8;
    let ours = ours::start_with(config).await;
    let raw = Raw::connect(ours.address(false), Over::Noise).await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut stream = raw.stream().await;
        stream.send(&find_node(b"target")).await;
        assert!(stream.receive().await.is_some());
        streams.push(stream);
    }
    let mut ninth = raw.stream().await;
    ninth.try_send(&find_node(b"target")).await;
    assert_eq!(ninth.end_within(SOON).await, End::Reset);
    assert_eq!(ours.counter("streams dropped, connection limit"), 1);
    streams.clear();
    eventually("there is room again", || ours.counter("streams dropped, connection limit") == 1).await;
    for _ in 0..50 {
        let mut stream = raw.stream().await;
        if stream.try_send(&find_node(b"target")).await && stream.receive().await.is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the place was not freed");
}

#[tokio::test(flavor = "multi_thread")]
async fn msg_1_prv_3_nonsense_ends_its_own_stream_without_an_answer_and_no_other() {
    let ours = ours::start().await;
    let someone_else = libp2p::PeerId::random();
    let not_mine = EncodedPeer::new(&someone_else, &[addr("/ip4/127.0.0.1/tcp/4001")]);
    let cases: [(&str, Vec<u8>); 9] = [
        ("refused, length prefix", vec![0xff; 11]),
        // 64 KiB + 1.
        ("refused, length prefix", vec![0x81, 0x80, 0x04]),
        // 5, encoded in two bytes.
        ("refused, length prefix", vec![0x85, 0x00, 1, 2, 3, 4, 5]),
        ("refused, malformed message", vec![5, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ("refused, empty key", find_node(b"")),
        ("refused, not a multihash", message::request(MessageType::GetProviders, b"abc").to_vec()),
        ("refused, key too long", message::request(MessageType::GetProviders, &[7; 81]).to_vec()),
        ("refused, provider is not the sender", message::add_provider(&multihash(1), &not_mine).to_vec()),
        (
            "refused, value not stored here",
            message::put_value(b"/other/x", &message::record(b"/other/x", b"y", "")).to_vec(),
        ),
    ];
    for over in [Over::Noise, Over::Quic] {
        let raw = Raw::connect(ours.address(over == Over::Quic), over).await;
        let mut good = raw.stream().await;
        for (counter, bytes) in &cases {
            let before = ours.counter(counter);
            let mut bad = raw.stream().await;
            bad.send(bytes).await;
            assert_eq!(bad.end_within(SOON).await, over.refused(), "{over:?} {counter}");
            eventually(counter, || ours.counter(counter) > before).await;
            good.send(&find_node(b"target")).await;
            assert!(good.receive().await.is_some(), "{over:?} {counter}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_not_finished_in_time_and_an_idle_stream_end() {
    let mut config = config();
    config.streams.message_timeout = Duration::from_millis(300);
    config.streams.idle = Duration::from_millis(900);
    let ours = ours::start_with(config).await;
    let raw = Raw::connect(ours.address(false), Over::Noise).await;
    let request = find_node(b"target");

    let mut idle = raw.stream().await;
    idle.send(&request).await;
    assert!(idle.receive().await.is_some());

    let mut half = raw.stream().await;
    half.send(&request[..request.len() / 2]).await;
    assert_eq!(half.end_within(Duration::from_millis(100)).await, End::Open);
    assert_eq!(half.end_within(SOON).await, End::Reset);
    assert_eq!(ours.counter("refused, message not finished in time"), 1);

    // Single bytes do not extend the time-out.
    let mut slow = raw.stream().await;
    let mut sent = 0;
    for byte in vec![0x90, 0x4e].into_iter().chain([0; 30]) {
        if !slow.try_send(&[byte]).await {
            break;
        }
        sent += 1;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert!(sent < 32);
    assert_eq!(ours.counter("refused, message not finished in time"), 2);

    assert_eq!(idle.end_within(SOON).await, End::Closed);
    assert!(ours.counter("streams ended, idle") >= 1);
}
