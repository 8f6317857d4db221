//! Runs a look-up among 500 servers in memory. Every message is encoded, framed, decoded and answered as on the wire.
//!
//! ```text
//! cargo run -p dhtstore-kad --example lookup
//! ```
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "an example ends with the first error")]

use dhtstore_kad::{
    PeerInfo,
    frame::{self, Header, MAX_ANSWER, MAX_REQUEST},
    keyspace::Key,
    lookup::{Goal, Lookup, Next, SEEDS, Settings},
    message::{Message, MessageType, request},
    rules::{self, Request},
    seeded::Seeded,
    table::{self, RoutingTable},
};
use libp2p_identity::PeerId;
use std::{collections::BTreeMap, time::Duration};

/// Returns the routing table of one server, filled with a random choice of the others.
fn server(all: &[PeerInfo], local: PeerId, random: &mut Seeded) -> RoutingTable {
    let mut table = RoutingTable::new(local, table::Settings { ip_diversity: None });
    for _ in 0..200 {
        // Refused if its bucket is full.
        let _ = table.admit(&all[random.below(all.len())], Duration::ZERO);
    }
    table
}

/// Returns the body of a frame.
fn body(framed: &[u8], max: usize) -> &[u8] {
    match frame::header(framed, max).unwrap() {
        Header::Complete { header, body } => &framed[header..header + body],
        Header::Incomplete => panic!("a whole frame"),
    }
}

fn main() {
    let mut random = Seeded::new(1);
    let all: Vec<PeerInfo> = (1..=500)
        .map(|n| {
            let digest: Vec<u8> = (0..4).flat_map(|_| random.next().to_be_bytes()).collect();
            let id = PeerId::from_bytes(&[&[0x12, 0x20], &digest[..]].concat()).unwrap();
            PeerInfo { id, addrs: vec![format!("/ip4/192.0.2.1/tcp/{n}").parse().unwrap()] }
        })
        .collect();
    let servers: BTreeMap<PeerId, RoutingTable> =
        all.iter().map(|peer| (peer.id, server(&all, peer.id, &mut random))).collect();

    // The first peer looks for the servers closest to this content.
    let multihash = [&[0x12, 0x20][..], &[42; 32]].concat();
    let (target, asker) = (Key::for_content(&multihash), all[0].id);
    let seeds = servers[&asker].view().closest(&target, SEEDS).into_iter().map(|entry| entry.peer.clone()).collect();
    let mut lookup = Lookup::new(target, asker, seeds, Goal::Closest, Settings::default());
    while let Next::Ask(peer) = lookup.next(Duration::ZERO) {
        let asked = request(MessageType::GetProviders, &multihash);
        // The server decodes, checks and answers.
        let message = Message::decode(body(&asked, MAX_REQUEST)).unwrap();
        let Ok(Request::GetProviders { multihash }) = rules::check(&message, &asker) else { panic!("well-formed") };
        let answer = rules::answer_get_providers(&servers[&peer.id].view(), multihash, &asker, &[], 0);
        // The client decodes the answer.
        let answer = Message::decode(body(&answer, MAX_ANSWER)).unwrap();
        lookup.answered(&peer.id, answer.closer_peer_infos(100, 16));
    }

    let mut truly: Vec<&PeerInfo> = all[1..].iter().collect();
    truly.sort_by_key(|peer| Key::for_peer(&peer.id).distance(&target));
    let found = lookup.closest();
    let right = found.iter().zip(&truly).filter(|(found, truly)| found.id == truly.id).count();
    println!(
        "{} of 499 servers asked, {} hops; of the {} closest {right} are right",
        lookup.asked(),
        lookup.hops(),
        found.len()
    );
}
