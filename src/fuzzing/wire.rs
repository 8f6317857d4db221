//! Targets for messages, requests and their answers, look-ups and values.

use crate::kad::{
    PeerInfo,
    frame::{self, Header, MAX_WRITE},
    keyspace::Key,
    lookup::{Goal, Lookup, Next, Settings},
    message::{EncodedPeer, Message, oracle},
    rules::{self, Request},
    scope::IpGroups,
    table::{self, K, MAX_ADDRESSES, RoutingTable, TableView},
    values::{self, ipns, rfc3339},
};
use libp2p::{Multiaddr, PeerId};
use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    sync::{Arc, LazyLock},
    time::Duration,
};

/// Compares the decoder with `prost`, and checks that a client keeps no more of an answer than its bounds allow.
pub(super) fn message(data: &[u8]) {
    oracle::agrees(data);
    let Ok(message) = Message::decode(data) else { return };
    for peers in [message.closer_peer_infos(2 * K, MAX_ADDRESSES), message.provider_peer_infos(2 * K, MAX_ADDRESSES)] {
        assert!(peers.len() <= 2 * K && peers.iter().all(|peer| peer.addrs.len() <= MAX_ADDRESSES));
    }
}

/// One of 256 peers.
fn peer(n: u8) -> PeerId {
    let digest = [&[0x12, 0x20], &[n; 32][..]].concat();
    PeerId::from_bytes(&digest).unwrap_or_else(|error| panic!("a sha2-256 is a peer id: {error}"))
}

fn info(n: u8) -> PeerInfo {
    let addr = Multiaddr::from(Ipv4Addr::new(1, n, 1, 1)).with(libp2p::multiaddr::Protocol::Tcp(4001));
    PeerInfo { id: peer(n), addrs: vec![addr] }
}

/// Number of the peer that sends every request. The seeds name the same peer.
pub(super) const SENDER: u8 = 7;

fn view() -> Arc<TableView> {
    let mut table = RoutingTable::new(peer(0), table::Settings { ip_diversity: None });
    for n in 1..=60 {
        // A full bucket refuses the peer.
        let _ = table.admit(&info(n), Duration::from_secs(1));
    }
    table.view()
}

/// Decodes a request and answers it. The answer must be a message, and no larger than what other peers read.
pub(super) fn request(data: &[u8]) {
    static VIEW: LazyLock<Arc<TableView>> = LazyLock::new(view);
    let Ok(message) = Message::decode(data) else { return };
    let sender = peer(SENDER);
    let Ok(request) = rules::check(&message, &sender) else { return };
    let answer = match request {
        Request::Ping => rules::answer_ping(),
        Request::FindNode { target } => {
            let known = PeerId::from_bytes(target).ok().map(|id| EncodedPeer::new(&id, &info(1).addrs));
            rules::answer_find_node(&VIEW, target, &sender, known.as_ref())
        }
        Request::GetProviders { multihash } => {
            let said = message.provider_peer_infos(400, MAX_ADDRESSES);
            let providers: Vec<EncodedPeer> = said.iter().map(|p| EncodedPeer::new(&p.id, &p.addrs)).collect();
            rules::answer_get_providers(&VIEW, multihash, &sender, &providers, data.len() as u64)
        }
        Request::AddProvider { multihash, provider } => {
            assert!(provider.id == sender && provider.addrs.len() <= rules::MAX_ADDRESSES);
            let entry = EncodedPeer::new(&provider.id, &provider.addrs);
            let many = vec![entry; 400];
            rules::answer_get_providers(&VIEW, multihash, &peer(8), &many, 1)
        }
        Request::GetValue { key } => rules::answer_get_value(&VIEW, key, &sender, message.record),
        Request::PutValue { key, .. } => rules::answer_get_value(&VIEW, key, &sender, message.record),
    };
    assert!(answer.len() <= MAX_WRITE, "an answer of {} bytes", answer.len());
    let Ok(Header::Complete { header, body }) = frame::header(&answer, MAX_WRITE) else { panic!("no frame") };
    assert_eq!(header + body, answer.len());
    if let Err(error) = Message::decode(&answer[header..]) {
        panic!("our own answer cannot be read: {error}");
    }
    oracle::agrees(&answer[header..]);
}

/// Runs a look-up with arbitrary answers and failures at arbitrary times. It must ask no peer twice, keep to its
/// limits, and end.
pub(super) fn lookup(data: &[u8]) {
    const LOCAL: u8 = 0;
    // Bounded, because each operation looks at all candidates.
    const OPS: usize = 300;
    let [target, alpha, patience, flags, ops @ ..] = data else { return };
    let settings = Settings {
        alpha: usize::from(alpha % 12),
        k: usize::from(alpha / 12),
        patience: Duration::from_millis(u64::from(*patience)),
        ip_diversity: (flags & 1 == 1).then(IpGroups::default),
        max_asked: usize::from(flags / 2),
        ..Settings::default()
    };
    let (k, max_asked) = (settings.k, settings.max_asked);
    let goal = if flags & 2 == 2 { Goal::Closest } else { Goal::Search };
    let target = Key::for_value(&[*target]);
    let mut lookup =
        Lookup::new(target, peer(LOCAL), (0..target.as_bytes()[0] % 30).map(info).collect(), goal, settings);
    let mut now = Duration::ZERO;
    let mut asked = BTreeSet::new();
    let mut step = |lookup: &mut Lookup, now: Duration| -> bool {
        match lookup.next(now) {
            Next::Ask(peer) => {
                assert_ne!(peer.id, self::peer(LOCAL), "asks itself");
                assert!(asked.insert(peer.id), "asks twice");
                assert!(asked.len() <= max_asked && lookup.asked() == asked.len());
                assert!(peer.addrs.len() <= MAX_ADDRESSES);
                true
            }
            Next::Wait { until } => {
                assert!(until.is_none_or(|until| until > now), "waits for the past");
                true
            }
            Next::Done => false,
        }
    };
    for op in ops.chunks(3).take(OPS) {
        let [what, n, m] = *op else { break };
        match what % 4 {
            0 => now += Duration::from_millis(u64::from(n)),
            1 => lookup.answered(&peer(n), (0..=m % 64).map(|i| info(m.wrapping_mul(i))).collect()),
            2 => lookup.failed(&peer(n)),
            _ => drop(step(&mut lookup, now)),
        }
        let closest = lookup.closest();
        assert!(closest.len() <= k.max(1));
        assert!(closest.is_sorted_by_key(|peer| Key::for_peer(&peer.id).distance(&target)));
    }
    // Every peer that is still silent fails now. A few rounds per peer are enough to end the look-up.
    for _ in 0..2000 {
        if !step(&mut lookup, now) {
            return;
        }
        let silent = lookup.in_flight().next().copied();
        if let Some(silent) = silent {
            lookup.failed(&silent);
        }
    }
    panic!("the look-up does not end");
}

/// Validates and compares two values. The input is the length of the key (1 byte), the key, the time in seconds
/// (4 bytes), the length of the first value (2 bytes), and the two values.
pub(super) fn values(data: &[u8]) {
    let Some((&key_len, rest)) = data.split_first() else { return };
    let Some((key, rest)) = rest.split_at_checked(key_len.into()) else { return };
    let Some((seconds, rest)) = rest.split_first_chunk::<4>() else { return };
    let Some((length, rest)) = rest.split_first_chunk::<2>() else { return };
    let (a, b) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
    let now = Duration::from_secs(u32::from_be_bytes(*seconds).into());
    let valid = [a, b].map(|value| values::validate(key, value, now).is_ok());
    assert!(!valid[0] || a.len() <= values::MAX_VALUE);
    let order = values::compare(key, a, b);
    assert_eq!(order, values::compare(key, b, a).reverse(), "the better value depends on the order of the two");
    assert!(values::compare(key, a, a).is_eq());
    if let Ok(record) = ipns::Record::decode(a) {
        record.path();
        let shown = rfc3339::format(record.validity);
        let again = shown.as_deref().and_then(rfc3339::parse);
        assert!(shown.is_none() || again == Some(record.validity), "{shown:?}");
    }
}
