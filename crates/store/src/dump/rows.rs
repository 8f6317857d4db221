//! Dumps the rows of the small tables.

use super::{
    filter::Matcher,
    output::{Output, Want},
    row::Row,
};
use crate::{
    Store,
    clock::UnixTime,
    kad::{Dht, keyspace::Key, values::key_text},
};
use multiaddr::Multiaddr;
use multibase::Base;

/// Own CIDs that are read at once; few, so that the lock is held for a short time.
const PROVIDED_AT_ONCE: usize = 1024;

/// Values that are read at once: at most 2.5 MB.
const VALUES_AT_ONCE: usize = 256;

/// Dumps values, those closest to this node first.
pub fn values(store: &Store, matcher: &Matcher, output: &mut Output<'_>) -> bool {
    if matcher.multihash.is_some() {
        return true;
    }
    let mut last: Option<Vec<u8>> = None;
    loop {
        let some = store.values.after(last.as_deref(), VALUES_AT_ONCE);
        let Some((end, _)) = some.last() else { return true };
        last = Some(end.key.to_vec());
        for (held, is_live) in some {
            // True if no peer is asked for, or if this is the IPNS name or the public key of that peer.
            let is_peer = matcher.peer.is_none_or(|peer| held.key.ends_with(&peer.to_bytes()));
            if !is_peer || !matcher.time(held.received.0) || !(matcher.expired || is_live) {
                continue;
            }
            let expires = store.values.ends(&held);
            let row = Row::Values {
                key: key_text::show(&held.key),
                bytes: held.value.len() as u64,
                received: held.received.to_string(),
                expires: expires.to_string(),
                expires_in_s: i64::from(expires.0) - i64::from(store.records.state.time.now().log),
                record: multibase::encode(Base::Base64, &held.value),
            };
            if !output.put(&row) {
                return false;
            }
        }
    }
}

/// Dumps own CIDs in keyspace order.
pub fn provided(store: &Store, matcher: &Matcher, output: &mut Output<'_>) -> bool {
    if matcher.peer.is_some() {
        return true;
    }
    let mut from = Some(Key::from_bytes([0; 32]));
    while let Some(first) = from {
        let rows = store.provided.range(&first, PROVIDED_AT_ONCE);
        from = rows.last().and_then(|(key, _)| after(key));
        for (_, own) in rows {
            let multihash = own.cid.hash().to_bytes();
            if !matcher.key(&multihash) || !matcher.time(own.added.0) {
                continue;
            }
            let row = Row::Provided {
                cid: own.cid.to_string(),
                multihash: base58(&multihash),
                added: own.added.to_string(),
                announced: own.announced.map(|time| time.to_string()),
                confirmed: own.confirmed,
            };
            if !output.put(&row) {
                return false;
            }
        }
    }
    true
}

/// Returns the next position in the keyspace.
fn after(key: &Key) -> Option<Key> {
    let mut bytes = *key.as_bytes();
    for byte in bytes.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(Key::from_bytes(bytes));
        }
    }
    None
}

/// Dumps the address book in the order in which peers were added.
pub fn peers(store: &Store, matcher: &Matcher, output: &mut Output<'_>) -> bool {
    if matcher.multihash.is_some() {
        return true;
    }
    let state = &store.records.state;
    store.records.wait_replayed();
    let now = state.time.now();
    for peer in state.book.all() {
        if !matcher.peer(&peer.peer) || !matcher.time(peer.announced()) {
            continue;
        }
        let addresses = state.book.live_addresses(&peer, &now);
        // A peer without addresses is known from the records already.
        if output.want == Want::Hash && addresses.is_empty() {
            continue;
        }
        let row = Row::Peers {
            peer: peer.peer.to_string(),
            lan: peer.by_lan().min(addresses.len()) as u64,
            addresses: text(&addresses),
            announced: UnixTime(peer.announced()).to_string(),
            records: peer.records(),
        };
        if !output.put(&row) {
            return false;
        }
    }
    true
}

/// Dumps saved routing tables.
pub fn routing(store: &Store, matcher: &Matcher, output: &mut Output<'_>) -> bool {
    if matcher.multihash.is_some() {
        return true;
    }
    for dht in Dht::ALL {
        for saved in store.routing.load(dht) {
            if !matcher.peer(&saved.peer.id) || !matcher.time(saved.heard.0) {
                continue;
            }
            let row = Row::Routing {
                dht: dht.name().to_owned(),
                peer: saved.peer.id.to_string(),
                addresses: text(&saved.peer.addrs),
                heard: saved.heard.to_string(),
            };
            if !output.put(&row) {
                return false;
            }
        }
    }
    true
}

/// Dumps figures and notes, except those that always differ between a running store and a stopped one: `stat` has them.
pub fn meta(store: &Store, matcher: &Matcher, output: &mut Output<'_>) -> bool {
    if matcher.multihash.is_some() || matcher.peer.is_some() || matcher.times {
        return true;
    }
    store.records.wait_replayed();
    let stat = store.stat();
    let time = |time: Option<u32>| time.map(|t| UnixTime(t).to_string());
    let figures = [
        ("schema", Some(stat.schema.to_string())),
        ("records", Some(stat.records.to_string())),
        ("keys", Some(stat.keys.to_string())),
        ("peers", Some(stat.peers.to_string())),
        ("values", Some(stat.values.to_string())),
        ("provided", Some(stat.provided.to_string())),
        ("log_chunks", Some(stat.log_chunks.to_string())),
        ("oldest", time(stat.oldest)),
        ("newest", time(stat.newest)),
    ];
    let figures = figures.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let notes = stat.notes.into_iter().map(|note| ("note", note));
    for (name, value) in figures.chain(notes) {
        if !output.put(&Row::Meta { name: name.to_owned(), value }) {
            return false;
        }
    }
    true
}

fn base58(multihash: &[u8]) -> String {
    let mut text = Vec::new();
    super::text::push_base58(&mut text, multihash);
    String::from_utf8(text).unwrap_or_default()
}

fn text(addrs: &[Multiaddr]) -> Vec<String> {
    addrs.iter().map(Multiaddr::to_string).collect()
}
