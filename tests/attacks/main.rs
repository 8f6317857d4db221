//! Hand-made attacks over real connections. Each is a function with a name in [`ATTACKS`]; each is withstood by itself, with
//! an honest client beside it that is served during and after, and all together, for many rounds, by a real process
//! whose memory does not grow.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "tests fail by panics and wait by the clock"
)]

mod connections;
mod honest;
mod messages;
#[path = "../node/ours.rs"]
#[allow(dead_code, reason = "shared with tests/node_network.rs")]
mod ours;
mod process;
#[path = "../node/raw.rs"]
#[allow(dead_code, reason = "shared with tests/node_network.rs")]
mod raw;
mod streams;

use dhtstore::config::Config;
use futures::future::BoxFuture;
use honest::Honest;
use libp2p::Multiaddr;
use ours::{Ours, config, eventually};
use raw::{Over, Raw};
use std::time::Duration;

/// Whom to attack, and how much: 1 in a node of one's own, less where many attacks share a process.
#[derive(Clone, Debug)]
struct Victim {
    tcp: Multiaddr,
    quic: Multiaddr,
    /// Attacks that open many of something open so many.
    many: usize,
    /// How long attacks that wait for a time-out of the victim's wait for it. Those that go earlier leave it half done.
    patience: Duration,
}

impl Victim {
    async fn connect(&self, over: Over) -> Raw {
        Raw::connect(if over == Over::Quic { self.quic.clone() } else { self.tcp.clone() }, over).await
    }
}

/// Something that a stranger does.
struct Attack {
    /// What the function is called.
    name: &'static str,
    run: fn(Victim) -> BoxFuture<'static, ()>,
    /// What the node counts at least once for TCP and for QUIC.
    counted: &'static [&'static str],
}

macro_rules! attacks {
    ($($module:ident::$name:ident => [$($counter:literal),*],)*) => {
        /// Every attack.
        const ATTACKS: &[Attack] = &[$(Attack {
            name: stringify!($name),
            run: |victim| Box::pin($module::$name(victim)),
            counted: &[$($counter),*],
        },)*];
    };
}

attacks! {
    messages::unknown_types => ["refused, malformed message"],
    messages::wrong_wire_types => ["refused, malformed message"],
    messages::bad_lengths => ["refused, length prefix"],
    messages::never_ending_length => ["refused, length prefix"],
    messages::half_a_message_held_open => ["refused, message not finished in time"],
    messages::ten_thousand_providers => ["refused, length prefix", "requests add-provider", "refused, malformed message"],
    messages::foreign_ids => ["refused, provider is not the sender"],
    messages::three_hundred_addresses => ["requests add-provider"],
    messages::keys_of_every_length => ["refused, empty key", "refused, key too long", "refused, not a multihash", "requests get-providers"],
    messages::the_bytes_of_a_cid => ["refused, not a multihash"],
    streams::opened_and_abandoned_streams => ["streams served"],
    streams::half_negotiated => [],
    streams::answers_never_read => ["refused, answers not read"],
    streams::a_flood_of_pings => ["requests ping"],
    streams::a_flood_of_libp2p_pings => [],
    connections::lies_by_identify => [],
    connections::half_a_handshake => [],
    connections::connections_opened_and_abandoned => [],
    connections::datagrams_of_rubbish => [],
}

/// One attack on a node of its own, over TCP and over QUIC.
async fn withstood(name: &str) {
    let attack = ATTACKS.iter().find(|attack| attack.name == name).unwrap();
    let mut config: Config = config();
    config.streams.message_timeout = Duration::from_secs(1);
    config.streams.idle = Duration::from_secs(5);
    let ours = Ours::start_with(config).await;
    let [tcp, quic] = [false, true].map(|quic| ours.address(quic));
    let honest = Honest::start(&ours.address(false), 1).await;
    let victim = Victim { tcp, quic, many: 1000, patience: Duration::from_secs(40) };
    eventually("there is nobody but the honest", || ours.node.load().inbound_streams == 1).await;

    (attack.run)(victim).await;
    for counter in attack.counted {
        eventually(counter, || ours.counter(counter) >= 2).await;
    }
    eventually("the streams are gone", || ours.node.load().inbound_streams == 1).await;
    assert_eq!(ours.node.load().read_bytes, 0);
    eventually("the connections are gone", || futures::executor::block_on(ours.node.peers()).len() == 1).await;
    let served = honest.served().await;
    println!("{name}: {served}");
    // Newcomers are served as well, over every transport.
    for over in Over::ALL {
        let late = Raw::connect(ours.address(over == Over::Quic), over).await;
        honest::ask(&mut late.stream().await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn msg_1_unknown_types_are_withstood() {
    withstood("unknown_types").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn msg_1_wrong_wire_types_are_withstood() {
    withstood("wrong_wire_types").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn msg_1_overflowing_and_oversize_lengths_are_withstood() {
    withstood("bad_lengths").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn msg_1_a_length_that_never_ends_is_withstood() {
    withstood("never_ending_length").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn msg_3_half_messages_held_open_are_withstood() {
    withstood("half_a_message_held_open").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn msg_3_prv_2_ten_thousand_providers_in_a_message_are_withstood() {
    withstood("ten_thousand_providers").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prv_2_announcements_for_others_are_withstood() {
    withstood("foreign_ids").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prv_2_three_hundred_addresses_are_withstood() {
    withstood("three_hundred_addresses").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prv_1_keys_of_every_length_are_withstood() {
    withstood("keys_of_every_length").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prv_1_the_bytes_of_a_cid_are_refused_and_counted() {
    withstood("the_bytes_of_a_cid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_opened_and_abandoned_are_withstood() {
    withstood("opened_and_abandoned_streams").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_whose_negotiation_never_ends_are_withstood() {
    withstood("half_negotiated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn msg_3_answers_that_are_never_read_are_withstood() {
    withstood("answers_never_read").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn msg_3_a_flood_of_pings_is_withstood() {
    withstood("a_flood_of_pings").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn net_1_a_flood_of_libp2p_pings_is_withstood() {
    withstood("a_flood_of_libp2p_pings").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_by_identify_are_withstood() {
    withstood("lies_by_identify").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_handshakes_are_withstood() {
    withstood("half_a_handshake").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_opened_and_abandoned_are_withstood() {
    withstood("connections_opened_and_abandoned").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_of_rubbish_are_withstood() {
    withstood("datagrams_of_rubbish").await;
}
