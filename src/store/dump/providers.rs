//! Provider records in log order: what a dump is mostly made of, so their lines are written by hand.

use super::{Matcher, Output, text};
use crate::{
    clock::UnixTime,
    store::{
        Store, StoreError,
        engine::{Found, Walk},
        records::{
            Shared,
            entry::{self, Entry, Place},
            log::{chunk_name, chunk_time},
            time::Now,
        },
    },
};
use hashbrown::HashTable;
use libp2p::Multiaddr;

/// Providers whose text is kept at hand: some 20 MB. Of the 200,000 that a busy server knows few announce most.
const PROVIDERS: usize = 1 << 16;

/// A provider as its rows show it.
#[derive(Debug)]
struct Provider {
    id: u32,
    wanted: bool,
    name: String,
    /// `","provider":…,"addresses":[…]`
    json: Vec<u8>,
}

/// An entry counts if the index says that it is the newest of its record.
pub fn providers(store: &Store, matcher: &Matcher, output: &mut Output<'_>) -> Result<bool, StoreError> {
    if output.is_full() {
        return Ok(false);
    }
    let shared = &store.records.shared;
    store.records.wait_replayed();
    if !shared.health().is_read_only() {
        shared.drain()?;
    }
    let mut at_hand: Vec<Option<Provider>> = Vec::new();
    at_hand.resize_with(PROVIDERS, || None);
    // One record may stand in several chunks of one second.
    let mut told: (u32, HashTable<(Place, u32)>) = (0, HashTable::new());
    let mut cid = vec![0x01, 0x55];
    for found in Walk::forwards(shared.log.chunks(), 0, u64::MAX) {
        let (key, chunk) = match found {
            Found::Row(key, chunk) => (key, chunk),
            Found::Lost(_, _, error @ StoreError::Degraded(_)) => return Err(error),
            Found::Lost(from, to, error) => {
                if !output.damaged(format!("{} to {}", chunk_name(from), chunk_name(to)), error.to_string()) {
                    return Ok(false);
                }
                continue;
            }
        };
        let time = chunk_time(key);
        if told.0 != time {
            told.0 = time;
            told.1.clear();
        }
        let now = shared.time.now();
        if !matcher.time(time) || !(matcher.expired || now.is_live(time, shared.ttl_s)) {
            continue;
        }
        let entries: Vec<Entry<'_>> = match entry::decode(&chunk) {
            Ok(entries) => entries,
            Err(error) => {
                if !output.damaged(chunk_name(key), error.to_string()) {
                    return Ok(false);
                }
                continue;
            }
        };
        let times = Times::new(shared, time, &now);
        for entry in entries {
            let Entry { multihash, peer, removed: false } = entry else { continue };
            let place = multihash.place();
            // Version 1, codec raw (0x55), then the multihash: by hand because that may be longer than the cid crate allows.
            cid.truncate(2);
            multihash.push_to(&mut cid);
            if !matcher.key(&cid[2..]) || shared.index.time(&place, peer) != Some(time) {
                continue;
            }
            let slot = &mut at_hand[peer as usize % PROVIDERS];
            if slot.as_ref().is_none_or(|at_hand| at_hand.id != peer) {
                *slot = Provider::new(shared, peer, matcher, &now);
            }
            let Some(provider) = slot.as_ref().filter(|provider| provider.wanted) else { continue };
            let hash = u64::from_be_bytes(std::array::from_fn(|i| place[i])) ^ u64::from(peer);
            let is_it = |(other, id): &(Place, u32)| *id == peer && *other == place;
            if told.1.find(hash, is_it).is_some() {
                continue;
            }
            told.1.insert_unique(hash, (place, peer), |(place, id)| {
                u64::from_be_bytes(std::array::from_fn(|i| place[i])) ^ u64::from(*id)
            });
            let json = |out: &mut Vec<u8>| {
                out.extend_from_slice(br#"{"table":"providers","cid":"b"#);
                text::push_base32(out, &cid);
                out.extend_from_slice(br#"","multihash":""#);
                text::push_base58(out, &cid[2..]);
                out.extend_from_slice(&provider.json);
                out.extend_from_slice(times.json.as_bytes());
            };
            let hashed = |out: &mut Vec<u8>| {
                out.extend_from_slice(b"providers b");
                text::push_base32(out, &cid);
                for word in [&provider.name, &times.received] {
                    out.push(b' ');
                    out.extend_from_slice(word.as_bytes());
                }
            };
            if !output.put_text(json, hashed) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

impl Provider {
    fn new(shared: &Shared, id: u32, matcher: &Matcher, now: &Now) -> Option<Self> {
        let provider = shared.book.get(id)?;
        let name = provider.peer.to_string();
        let addresses: Vec<String> =
            shared.book.live_addresses(&provider, now).iter().map(Multiaddr::to_string).collect();
        let mut json = format!(r#"","provider":"{name}","addresses":"#).into_bytes();
        // A list of strings into memory cannot fail.
        let _ = serde_json::to_writer(&mut json, &addresses);
        Some(Self { id, wanted: matcher.peer(&provider.peer), name, json })
    }
}

/// The times of a chunk's rows.
struct Times {
    received: String,
    json: String,
}

impl Times {
    fn new(shared: &Shared, time: u32, now: &Now) -> Self {
        let received = UnixTime(time).to_string();
        let ends = i64::from(time) + i64::from(shared.ttl_s);
        let expires = UnixTime(u32::try_from(ends).unwrap_or(u32::MAX));
        let json =
            format!(r#","received":"{received}","expires":"{expires}","expires_in_s":{}}}"#, ends - i64::from(now.log));
        Self { received, json }
    }
}
