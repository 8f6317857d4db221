use super::*;
use crate::{clock::UnixTime, codec, records::time::Timekeeper};
use std::time::Duration;

const DAY: u32 = 86_400;

fn now(at: u32) -> Now {
    Timekeeper::open(crate::clock::ManualClock::at(UnixTime(at)), None, None, Duration::ZERO).now()
}

fn info(id: PeerId, addrs: &[&str]) -> PeerInfo {
    PeerInfo { id, addrs: addrs.iter().map(|a| a.parse().unwrap()).collect() }
}

#[test]
fn each_dht_has_its_list_and_both_are_told_without_duplicates() {
    let book = Book::new(10, DAY);
    let id = PeerId::random();
    let both = "/ip4/10.0.0.1/tcp/4001";
    let entry = book.announce(&info(id, &["/ip4/1.2.3.4/tcp/1", both]), Dht::Wan, &now(1000), true).unwrap();
    book.announce(&info(id, &[both, "/ip4/10.0.0.2/tcp/2"]), Dht::Lan, &now(1001), true).unwrap();
    assert_eq!(entry.addresses().to_vec(), info(id, &["/ip4/1.2.3.4/tcp/1", both, "/ip4/10.0.0.2/tcp/2"]).addrs);
    book.announce(&info(id, &[]), Dht::Wan, &now(1002), true).unwrap();
    assert_eq!(entry.addresses().to_vec(), info(id, &[both, "/ip4/10.0.0.2/tcp/2"]).addrs);
}

#[test]
fn prv_6_addresses_are_told_for_24_hours_after_the_newest_announcement() {
    let book = Book::new(10, DAY);
    let peer = info(PeerId::random(), &["/ip4/1.2.3.4/tcp/1"]);
    book.announce(&peer, Dht::Wan, &now(1000), true).unwrap();
    let entry = book.announce(&peer, Dht::Wan, &now(5000), true).unwrap();
    assert_eq!(book.live_addresses(&entry, &now(5000 + DAY - 1)).to_vec(), peer.addrs);
    assert!(book.live_addresses(&entry, &now(5000 + DAY)).is_empty());
}

#[test]
fn a_row_is_written_when_new_changed_or_an_hour_old() {
    let book = Book::new(10, DAY);
    let peer = info(PeerId::random(), &["/ip4/1.2.3.4/tcp/1"]);
    let announce = |peer: &PeerInfo, at| {
        book.announce(peer, Dht::Wan, &now(at), true).unwrap();
        let (rows, new) = book.take_dirty();
        book.written(&rows);
        (rows.len(), new)
    };
    assert_eq!(announce(&peer, 1000), (1, true));
    assert_eq!(announce(&peer, 1001), (0, false));
    assert_eq!(announce(&info(peer.id, &["/ip4/1.2.3.5/tcp/1"]), 1002), (1, false));
    assert_eq!(announce(&info(peer.id, &["/ip4/1.2.3.5/tcp/1"]), 1002 + ROW_AGE_S), (1, false));
}

#[test]
fn a_row_comes_back_as_it_was() {
    let book = Book::new(10, DAY);
    let peer = info(PeerId::random(), &["/ip4/1.2.3.4/tcp/1", "/dns4/a.example/udp/4001/quic-v1"]);
    let entry = book.announce(&peer, Dht::Lan, &now(1000), true).unwrap();
    let bytes = codec::encode(&entry.row()).unwrap();
    let again = Book::new(10, DAY);
    again.load(7, &bytes, 2000).unwrap();
    assert_eq!(again.get(7).unwrap().row(), entry.row());
    assert_eq!(again.find(&peer.id).unwrap().id, 7);
    assert_eq!(again.next_id(), 8);
    assert!(again.load(8, b"\x01junk", 2000).is_err());
}

#[test]
fn addresses_without_end_are_cut() {
    let book = Book::new(10, DAY);
    let addrs: Vec<Multiaddr> = (0..1000).map(|n| format!("/ip4/1.2.3.4/tcp/{n}").parse().unwrap()).collect();
    let peer = PeerInfo { id: PeerId::random(), addrs };
    let entry = book.announce(&peer, Dht::Wan, &now(1), true).unwrap();
    assert_eq!(*entry.addresses(), peer.addrs[..MAX_ADDRESSES]);
}

#[test]
fn a_full_book_forgets_only_whom_nothing_can_name() {
    let book = Book::new(2, DAY);
    let peers: Vec<_> = (0..3).map(|_| info(PeerId::random(), &["/ip4/1.2.3.4/tcp/1"])).collect();
    let a = book.announce(&peers[0], Dht::Wan, &now(1000), true).unwrap();
    let b = book.announce(&peers[1], Dht::Wan, &now(1000), true).unwrap();
    a.count(1);
    assert!(book.announce(&peers[2], Dht::Wan, &now(1000), true).is_err());
    assert!(book.forget(1000, &now(1500)).is_empty(), "a chunk dated 1000 may name both");
    assert_eq!(book.forget(1001, &now(1500)), [b.id]);
    let c = book.announce(&peers[2], Dht::Wan, &now(1600), true).unwrap();
    assert!(c.id > b.id, "a number must not be used again");
    assert!(book.get(b.id).is_none() && book.find(&peers[1].id).is_none());
}

#[test]
fn the_same_digest_by_another_function_is_another_peer() {
    let book = Book::new(10, DAY);
    let announce = |code| {
        let id = PeerId::from_multihash(Multihash::wrap(code, &[7; 32]).unwrap()).unwrap();
        book.announce(&info(id, &["/ip4/1.2.3.4/tcp/1"]), Dht::Wan, &now(1000), true).unwrap()
    };
    let (hashed, inlined) = (announce(0x12), announce(0));
    assert_ne!(hashed.id, inlined.id);
    assert_ne!(hashed.peer, inlined.peer);
    assert_eq!(book.find(&inlined.peer).unwrap().id, inlined.id);
}
