//! Dumps provider records in the order of the log. They are most of a dump, so their lines are written by hand.

use super::{
    filter::Matcher,
    output::Output,
    provider_text::{ProviderText, ProviderTexts},
    text::{self, sha256},
};
use crate::{
    Store, StoreError,
    clock::UnixTime,
    engine::{Walk, Walked},
    records::{
        RecordsState,
        entry::{self, Entry, Hashed, KeyPrefix},
        log::{chunk_name, chunk_time},
        time::Now,
    },
};
use hashbrown::{HashTable, hash_table};

/// Dumps each entry of the log that is the newest of its record, according to the index.
pub fn providers(store: &Store, matcher: &Matcher, output: &mut Output<'_>) -> Result<bool, StoreError> {
    if output.is_full() {
        return Ok(false);
    }
    let state = &store.records.state;
    store.records.wait_replayed();
    if !state.health().is_read_only() {
        state.drain()?;
    }
    let mut at_hand = ProviderTexts::new(state);
    let mut seen = RecordsOfSecond::default();
    for found in Walk::forwards(state.log.chunks(), 0, u64::MAX) {
        let (key, chunk) = match found {
            Walked::Row(key, chunk) => (key, chunk),
            Walked::Lost(_, _, error @ StoreError::Degraded(_)) => return Err(error),
            Walked::Lost(from, to, error) => {
                if !output.damaged(format!("{} to {}", chunk_name(from), chunk_name(to)), error.to_string()) {
                    return Ok(false);
                }
                continue;
            }
        };
        let time = chunk_time(key);
        seen.begin(time);
        let now = state.time.now();
        if !matcher.time(time) || !(matcher.expired || now.is_live(time, state.ttl_s)) {
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
        let times = RowTimes::new(state, time, &now);
        for entry in entries {
            let Entry { multihash, peer, removed: false } = entry else { continue };
            if !matcher.hashed(multihash) {
                continue;
            }
            let prefix = multihash.key_prefix();
            if state.index.time(&prefix, peer) != Some(time) {
                continue;
            }
            let Some(provider) = at_hand.get(state, peer, matcher, &now).filter(|provider| provider.wanted) else {
                continue;
            };
            if !seen.is_first(prefix, peer) {
                continue;
            }
            let json = |out: &mut Vec<u8>| push_json(out, multihash, provider, &times);
            let hashed = |out: &mut Vec<u8>| push_words(out, multihash, provider, &times);
            if !output.put_text(json, hashed) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Writes the JSON object of a row.
fn push_json(out: &mut Vec<u8>, multihash: Hashed<'_>, provider: &ProviderText, times: &RowTimes) {
    out.extend_from_slice(br#"{"table":"providers","cid":"b"#);
    match multihash {
        Hashed::Sha256(digest) => {
            out.extend_from_slice(&sha256::cid(digest));
            out.extend_from_slice(br#"","multihash":""#);
            out.extend_from_slice(&sha256::multihash(digest));
        }
        Hashed::Other(bytes) => {
            text::push_base32(out, &raw_cid(bytes));
            out.extend_from_slice(br#"","multihash":""#);
            text::push_base58(out, bytes);
        }
    }
    out.extend_from_slice(provider.json());
    out.extend_from_slice(times.json.as_bytes());
}

/// Writes the words of a row that are hashed (docs/dump.md).
fn push_words(out: &mut Vec<u8>, multihash: Hashed<'_>, provider: &ProviderText, times: &RowTimes) {
    out.extend_from_slice(b"providers b");
    match multihash {
        Hashed::Sha256(digest) => out.extend_from_slice(&sha256::cid(digest)),
        Hashed::Other(bytes) => text::push_base32(out, &raw_cid(bytes)),
    }
    out.push(b' ');
    out.extend_from_slice(provider.name());
    out.push(b' ');
    out.extend_from_slice(times.received.as_bytes());
}

/// Returns the bytes of CIDv1, codec raw (0x55), by hand because the multihash may be longer than the cid crate allows.
fn raw_cid(multihash: &[u8]) -> Vec<u8> {
    [&[0x01, 0x55], multihash].concat()
}

/// Records of one second that were dumped already: several chunks of that second may hold the same record.
#[derive(Debug, Default)]
struct RecordsOfSecond {
    second: u32,
    records: HashTable<(KeyPrefix, u32)>,
}

impl RecordsOfSecond {
    fn begin(&mut self, second: u32) {
        if self.second != second {
            self.second = second;
            self.records.clear();
        }
    }

    fn is_first(&mut self, prefix: KeyPrefix, peer: u32) -> bool {
        let hash = |(prefix, peer): &(KeyPrefix, u32)| {
            u64::from_be_bytes(std::array::from_fn(|byte| prefix[byte])) ^ u64::from(*peer)
        };
        let record = (prefix, peer);
        match self.records.entry(hash(&record), |seen| *seen == record, hash) {
            hash_table::Entry::Occupied(_) => false,
            hash_table::Entry::Vacant(room) => {
                room.insert(record);
                true
            }
        }
    }
}

/// Times of the rows of a chunk.
struct RowTimes {
    received: String,
    json: String,
}

impl RowTimes {
    fn new(state: &RecordsState, time: u32, now: &Now) -> Self {
        let received = UnixTime(time).to_string();
        let ends = i64::from(time) + i64::from(state.ttl_s);
        let expires = UnixTime(u32::try_from(ends).unwrap_or(u32::MAX));
        let json =
            format!(r#","received":"{received}","expires":"{expires}","expires_in_s":{}}}"#, ends - i64::from(now.log));
        Self { received, json }
    }
}
