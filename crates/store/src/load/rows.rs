//! Reads the lines of a dump.

use crate::kad::{Cid, peer_id::parse_peer_id};
use crate::{
    clock::UnixTime,
    dump::{MAX_LINE, text::read_base32},
    kad::{Dht, PeerInfo, scope::AddressScope, values::key_text},
    provided::Own,
    records::MAX_MULTIHASH_LEN,
};
use cid::multihash::Multihash;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use serde::Deserialize;
use std::{borrow::Cow, time::UNIX_EPOCH};

/// Maximum number of addresses of a row that are read: the address book keeps 32 of each DHT.
const MAX_ADDRESSES: usize = 64;
/// The beginning of a row of `providers`. Nearly all rows are of this table, and are parsed once instead of twice.
const PROVIDERS: &[u8] = br#"{"table":"providers","#;

/// A row.
#[derive(Debug)]
pub enum Line<'l> {
    /// A row of `providers`. Provider and addresses are parsed only where they are needed.
    Provider { multihash: Vec<u8>, provider: Cow<'l, str>, addresses: Vec<Text<'l>>, received: u32 },
    /// A row of `peers`.
    Peer { peer: PeerId, wan: Vec<Multiaddr>, lan: Vec<Multiaddr>, announced: u32 },
    /// A row of `values`.
    Value { key: Vec<u8>, value: Vec<u8>, received: u32 },
    /// A row of `provided`.
    Own(Own),
    /// A row of `routing`.
    Routing { dht: Dht, peer: PeerInfo, heard: UnixTime },
    /// A row of `meta`.
    Meta,
}

/// Text that is borrowed from the line where possible.
#[derive(Debug, Deserialize)]
pub struct Text<'l>(#[serde(borrow)] Cow<'l, str>);

#[derive(Deserialize)]
struct Tag<'l> {
    #[serde(borrow)]
    table: Cow<'l, str>,
}

#[derive(Deserialize)]
struct ProviderRow<'l> {
    #[serde(borrow)]
    cid: Cow<'l, str>,
    #[serde(borrow)]
    provider: Cow<'l, str>,
    #[serde(borrow, default)]
    addresses: Vec<Text<'l>>,
    #[serde(borrow)]
    received: Cow<'l, str>,
}

#[derive(Deserialize)]
struct PeerRow<'l> {
    #[serde(borrow)]
    peer: Cow<'l, str>,
    #[serde(borrow)]
    addresses: Vec<Text<'l>>,
    #[serde(default)]
    lan: usize,
    #[serde(borrow)]
    announced: Cow<'l, str>,
}

#[derive(Deserialize)]
struct ValueRow<'l> {
    #[serde(borrow)]
    key: Cow<'l, str>,
    #[serde(borrow)]
    received: Cow<'l, str>,
    #[serde(borrow)]
    record: Cow<'l, str>,
}

#[derive(Deserialize)]
struct OwnRow<'l> {
    #[serde(borrow)]
    cid: Cow<'l, str>,
    #[serde(borrow)]
    added: Cow<'l, str>,
    #[serde(borrow)]
    announced: Option<Cow<'l, str>>,
    #[serde(default)]
    confirmed: u16,
}

#[derive(Deserialize)]
struct RoutingRow<'l> {
    #[serde(borrow)]
    dht: Cow<'l, str>,
    #[serde(borrow)]
    peer: Cow<'l, str>,
    #[serde(borrow)]
    addresses: Vec<Text<'l>>,
    #[serde(borrow)]
    heard: Cow<'l, str>,
}

/// Parses times. Consecutive rows often have the same time, which is parsed once.
#[derive(Debug, Default)]
pub struct Times {
    last: String,
    time: u32,
}

impl Times {
    fn read(&mut self, text: &str) -> Result<u32, String> {
        if text != self.last {
            let time = humantime::parse_rfc3339(text).map_err(|e| format!("time {text:?}: {e}"))?;
            let seconds = time.duration_since(UNIX_EPOCH).map_err(|_| format!("time {text:?} is before 1970"))?;
            self.time = u32::try_from(seconds.as_secs()).map_err(|_| format!("time {text:?} is too late"))?;
            text.clone_into(&mut self.last);
        }
        Ok(self.time)
    }
}

impl Line<'_> {
    /// Returns the name of the table.
    pub fn table(&self) -> &'static str {
        match self {
            Line::Provider { .. } => "providers",
            Line::Peer { .. } => "peers",
            Line::Value { .. } => "values",
            Line::Own(_) => "provided",
            Line::Routing { .. } => "routing",
            Line::Meta => "meta",
        }
    }
}

/// Parses a line, which comes without its newline. The error is a text that says what is wrong with the line.
pub fn read<'l>(line: &'l [u8], times: &mut Times) -> Result<Line<'l>, String> {
    if line.len() > MAX_LINE {
        return Err(format!("longer than {MAX_LINE} bytes"));
    }
    if line.starts_with(PROVIDERS) {
        return provider(line, times);
    }
    let tag: Tag<'_> = json(line)?;
    match &*tag.table {
        "providers" => provider(line, times),
        "peers" => {
            let row: PeerRow<'_> = json(line)?;
            let peer = peer_id(&row.peer)?;
            let by_wan = row.addresses.len().saturating_sub(row.lan);
            let (wan, lan) = row.addresses.split_at(by_wan);
            let (wan, lan) = (addresses(wan)?, addresses(lan)?);
            Ok(Line::Peer { peer, wan, lan, announced: times.read(&row.announced)? })
        }
        "values" => {
            let row: ValueRow<'_> = json(line)?;
            let key = key_text::parse(&row.key).map_err(|e| e.to_string())?;
            let (_, value) = multibase::decode(&*row.record).map_err(|e| format!("record: {e}"))?;
            Ok(Line::Value { key, value, received: times.read(&row.received)? })
        }
        "provided" => {
            let row: OwnRow<'_> = json(line)?;
            let cid: Cid = row.cid.parse().map_err(|e| format!("cid {:?}: {e}", row.cid))?;
            let announced = row.announced.map(|time| times.read(&time)).transpose()?;
            let added = UnixTime(times.read(&row.added)?);
            Ok(Line::Own(Own { cid, added, announced: announced.map(UnixTime), confirmed: row.confirmed }))
        }
        "routing" => {
            let row: RoutingRow<'_> = json(line)?;
            let dht = Dht::ALL.into_iter().find(|dht| dht.name() == row.dht);
            let dht = dht.ok_or_else(|| format!("dht {:?} is neither `wan` nor `lan`", row.dht))?;
            let peer = PeerInfo { id: peer_id(&row.peer)?, addrs: addresses(&row.addresses)? };
            Ok(Line::Routing { dht, peer, heard: UnixTime(times.read(&row.heard)?) })
        }
        "meta" => Ok(Line::Meta),
        other => Err(format!("table {other:?} is not known")),
    }
}

fn provider<'l>(line: &'l [u8], times: &mut Times) -> Result<Line<'l>, String> {
    let row: ProviderRow<'l> = json(line)?;
    let multihash = multihash(&row.cid)?;
    Ok(Line::Provider {
        multihash,
        provider: row.provider,
        addresses: row.addresses,
        received: times.read(&row.received)?,
    })
}

fn json<'l, T: Deserialize<'l>>(line: &'l [u8]) -> Result<T, String> {
    serde_json::from_slice(line).map_err(|e| e.to_string())
}

/// Parses the multihash of a CID. One that is longer than the cid crate allows is read only in the form that dumps
/// have.
fn multihash(text: &str) -> Result<Vec<u8>, String> {
    let bytes = text.strip_prefix('b').and_then(|digits| read_base32(digits.as_bytes()));
    if let Some([0x01, 0x55, multihash @ ..]) = bytes.as_deref() {
        let read = Multihash::<MAX_MULTIHASH_LEN>::from_bytes(multihash);
        return read.map(|_| multihash.to_vec()).map_err(|e| format!("cid {text:?}: {e}"));
    }
    let cid: Cid = text.parse().map_err(|e| format!("cid {text:?}: {e}"))?;
    Ok(cid.hash().to_bytes())
}

/// Parses a peer id.
pub fn peer_id(text: &str) -> Result<PeerId, String> {
    parse_peer_id(text).map_err(|e| format!("peer id {text:?}: {e}"))
}

/// Parses addresses. Leaves out those that an announcement must not contain either.
pub fn addresses(texts: &[Text<'_>]) -> Result<Vec<Multiaddr>, String> {
    let mut addresses = Vec::with_capacity(texts.len().min(MAX_ADDRESSES));
    for Text(text) in texts.iter().take(MAX_ADDRESSES) {
        let address: Multiaddr = text.parse().map_err(|e| format!("address {text:?}: {e}"))?;
        if AddressScope::Any.hands_out(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&line, &mut Times::default());
        }

        #[test]
        fn no_row_panics_whatever_its_words(
            table in prop::sample::select(vec!["providers", "peers", "values", "provided", "routing", "meta", "x"]),
            words in proptest::collection::vec(".{0,60}", 9), lan in any::<u64>(),
        ) {
            let names = ["cid", "provider", "received", "peer", "announced", "key", "record", "added", "heard"];
            let mut row = serde_json::json!({ "table": table, "addresses": [words[0], words[1]], "lan": lan, "dht": "wan" });
            for (name, word) in names.iter().zip(&words) {
                row[name] = word.as_str().into();
            }
            let _ = read(row.to_string().as_bytes(), &mut Times::default());
        }

        #[test]
        fn a_multihash_of_any_length_is_read_from_its_cid(digest in proptest::collection::vec(any::<u8>(), 0..126)) {
            let bytes = [&[0x00, digest.len() as u8][..], &digest].concat();
            let cid = multibase::encode(multibase::Base::Base32Lower, [&[0x01, 0x55][..], &bytes].concat());
            prop_assert_eq!(multihash(&cid), Ok(bytes));
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        let wrong = |line: &str| read(line.as_bytes(), &mut Times::default()).unwrap_err();
        assert!(wrong(&"x".repeat(MAX_LINE + 1)).contains("longer"));
        assert!(wrong("{").contains("EOF"));
        assert!(wrong(r#"{"table":"records"}"#).contains("records"));
        assert!(wrong(r#"{"table":"providers","cid":"bafy"}"#).contains("provider"));
        assert!(
            wrong(r#"{"table":"providers","cid":"bx","provider":"x","received":"2026-01-31T12:00:00Z"}"#)
                .contains("cid")
        );
        assert!(wrong(r#"{"table":"routing","dht":"x","peer":"x","addresses":[],"heard":""}"#).contains("lan"));
    }
}
