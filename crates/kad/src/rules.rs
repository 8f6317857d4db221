//! What a server makes of a request, and the bytes of its answer (SRV, PRV, VAL clauses). Functions only.

use super::{
    PeerInfo,
    frame::{MAX_WRITE, read_varint},
    keyspace::Key,
    message::{self, EncodedPeer, MIN_PROVIDER_BYTES, Message, MessageType, Record},
    seeded::Seeded,
    table::{Entry, K, TableView},
};
use bytes::Bytes;
use libp2p_identity::PeerId;

/// Longest key of content (PRV-1). Values are held to it, too: `/ipns/` and the longest peer id take half of it.
pub const MAX_KEY: usize = 80;
/// Addresses read from a provider's entry: go's own bound of 8 KiB per peer holds some hundred. Honest nodes send ten; one
/// with many interfaces sends dozens, behind which stand those through relays. What is kept of them, [`super::useful`] decides.
pub const MAX_ADDRESSES: usize = 128;
/// The namespaces of values that the network stores (VAL-1).
pub const NAMESPACES: [&[u8]; 2] = [b"/pk/", b"/ipns/"];

/// A request that passed the checks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request<'a> {
    /// Answer with [`answer_ping`].
    Ping,
    /// Answer with [`answer_find_node`].
    FindNode {
        /// A binary peer id or any other bytes, not empty.
        target: &'a [u8],
    },
    /// Answer with [`answer_get_providers`].
    GetProviders {
        /// Well-formed, at most [`MAX_KEY`] bytes.
        multihash: &'a [u8],
    },
    /// The sender provides this; its addresses as sent, parsed, own `/p2p` suffix stripped, not yet filtered by scope.
    /// Not answered (PRV-4).
    AddProvider {
        /// Well-formed, at most [`MAX_KEY`] bytes.
        multihash: &'a [u8],
        /// The sender, with at most [`MAX_ADDRESSES`] addresses, possibly none.
        provider: PeerInfo,
    },
    /// Answer with [`answer_get_value`]: where nothing can be stored under the key, with closer servers alone (VAL-5).
    GetValue {
        /// Any bytes, not empty.
        key: &'a [u8],
    },
    /// To be validated (VAL-2, VAL-3), then stored and echoed (VAL-4): answer with [`answer_put_value`].
    PutValue {
        /// In one of [`NAMESPACES`], at most [`MAX_KEY`] bytes; equal to the record's.
        key: &'a [u8],
        /// The record's value.
        value: &'a [u8],
    },
}

/// Why a request closes its stream without an answer (PRV-3, MSG-1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Refusal {
    /// Only PING may be without a key.
    #[error("empty key")]
    EmptyKey,
    /// Longer than [`MAX_KEY`] (PRV-1).
    #[error("key longer than 80 bytes")]
    KeyTooLong,
    /// See [`is_multihash`] (PRV-1).
    #[error("key is not a multihash")]
    NotAMultihash,
    /// An ADD_PROVIDER that speaks for others only (PRV-2).
    #[error("no provider entry of the sender")]
    NotTheSender,
    /// Not one of [`NAMESPACES`] (VAL-1).
    #[error("values of this namespace are not stored")]
    UnknownNamespace,
    /// A PUT_VALUE without record, or whose record has another key (VAL-4).
    #[error("record missing or malformed")]
    BadRecord,
}

/// PRV-1, PRV-2, VAL-1, VAL-4: what the sender may ask.
pub fn check<'a>(message: &Message<'a>, sender: &PeerId) -> Result<Request<'a>, Refusal> {
    let key = message.key;
    if key.is_empty() && message.kind != MessageType::Ping {
        return Err(Refusal::EmptyKey);
    }
    match message.kind {
        MessageType::Ping => Ok(Request::Ping),
        MessageType::FindNode => Ok(Request::FindNode { target: key }),
        MessageType::GetProviders => Ok(Request::GetProviders { multihash: content_key(key)? }),
        MessageType::AddProvider => {
            let multihash = content_key(key)?;
            let provider = own_entry(message, sender).ok_or(Refusal::NotTheSender)?;
            Ok(Request::AddProvider { multihash, provider })
        }
        MessageType::GetValue => Ok(Request::GetValue { key }),
        MessageType::PutValue => {
            let key = value_key(key)?;
            let body = message.record.ok_or(Refusal::BadRecord)?;
            let record = Record::decode(body).map_err(|_| Refusal::BadRecord)?;
            if record.key != key {
                return Err(Refusal::BadRecord);
            }
            Ok(Request::PutValue { key, value: record.value })
        }
    }
}

/// [`check`] of an ADD_PROVIDER that says of its sender what an earlier one on the same stream said, which passed: its
/// only provider entry has the body `own`. The multihash; `None` if it is any other request.
///
/// Whoever announces a thousand CIDs sends the same entry a thousand times, and to read it takes longer than all else.
pub fn check_repeat<'a>(message: &Message<'a>, own: &[u8]) -> Option<Result<&'a [u8], Refusal>> {
    let mut entries = message.provider_peers();
    let is_repeat = message.kind == MessageType::AddProvider
        && !message.key.is_empty()
        && entries.next().is_some_and(|entry| entry.as_bytes() == own)
        && entries.next().is_none();
    is_repeat.then(|| content_key(message.key))
}

fn content_key(key: &[u8]) -> Result<&[u8], Refusal> {
    if key.len() > MAX_KEY {
        return Err(Refusal::KeyTooLong);
    }
    if is_multihash(key) { Ok(key) } else { Err(Refusal::NotAMultihash) }
}

/// The key of a value to store, in one of the namespaces. That a peer id follows is left to [`super::values::validate`].
fn value_key(key: &[u8]) -> Result<&[u8], Refusal> {
    if key.len() > MAX_KEY {
        return Err(Refusal::KeyTooLong);
    }
    let known = NAMESPACES.iter().any(|namespace| key.len() > namespace.len() && key.starts_with(namespace));
    if known { Ok(key) } else { Err(Refusal::UnknownNamespace) }
}

/// The first entry of the sender that brings addresses, wherever it stands; else its first without any.
fn own_entry(message: &Message<'_>, sender: &PeerId) -> Option<PeerInfo> {
    let id = sender.to_bytes();
    let mut own = None;
    for entry in message.provider_peers().filter(|entry| entry.id == id).filter_map(|e| e.to_peer_info(MAX_ADDRESSES)) {
        if !entry.addrs.is_empty() {
            return Some(entry);
        }
        own = Some(entry);
    }
    own
}

/// Well-formed multihash: varint code, varint length, exactly that many bytes (PRV-1).
///
/// Any code; varints minimal. The bytes of a CIDv1 are none, read as code 1 and the codec as length; those of a CIDv0
/// are one, since a CIDv0 is nothing else.
pub fn is_multihash(bytes: &[u8]) -> bool {
    let Ok(Some((_code, at))) = read_varint(bytes) else { return false };
    let rest = &bytes[at..];
    let Ok(Some((length, at))) = read_varint(rest) else { return false };
    usize::try_from(length).is_ok_and(|length| rest[at..].len() == length)
}

/// PING is echoed.
pub fn answer_ping() -> Bytes {
    message::request(MessageType::Ping, &[])
}

/// SRV-1, 4, 5. `target_peer`: the peer whose id is the target, if the address book or the local node knows it.
///
/// It comes first and in addition to the k closest (unless it is one of them), even if it is the local node or the
/// sender. Like go's, the answer does not repeat the key, which may have any length.
pub fn answer_find_node(table: &TableView, target: &[u8], sender: &PeerId, target_peer: Option<&EncodedPeer>) -> Bytes {
    let key = target_key(target);
    // Without an address book's entry, the table's; the sender, left out below, may be asking for itself.
    let itself = target_peer.or_else(|| table.get_by_key(&key).map(|entry| &entry.encoded));
    let others = closest(table, &key, sender).into_iter().filter(|entry| entry.key != key);
    let closer = itself.into_iter().chain(others.map(|entry| &entry.encoded));
    message::answer(MessageType::FindNode, &[], None, None, closer)
}

/// PRV-8: providers (a random subset when they do not all fit; `seed` decides), then the k closest.
///
/// The sender's own record is among them if it is given (PRV-10).
pub fn answer_get_providers(
    table: &TableView,
    multihash: &[u8],
    sender: &PeerId,
    providers: &[EncodedPeer],
    seed: u64,
) -> Bytes {
    let closer = closest(table, &Key::for_content(multihash), sender);
    let mut providers: Vec<&EncodedPeer> = providers.iter().collect();
    // Below this all fit, whatever else is to be written: the order does not matter then.
    if providers.iter().map(|provider| provider.as_bytes().len() + 4).sum::<usize>() > MIN_PROVIDER_BYTES {
        Seeded::new(seed).shuffle(&mut providers);
    }
    let closer = closer.into_iter().map(|entry| &entry.encoded);
    message::answer(MessageType::GetProviders, multihash, None, providers, closer)
}

/// Longest `Record` body that is handed out: 4 KiB at least stay for peers (VAL-5). An IPNS record has 10 KiB at most
/// (VAL-3), to which come its key and time.
pub const MAX_RECORD: usize = MAX_WRITE - 4 * 1024 - 2 * MAX_KEY;

/// VAL-4: what was stored is echoed, dated by the receiver (RFC 3339). Of the request's record only what is stored: the
/// rest may be of any length.
pub fn answer_put_value(key: &[u8], value: &[u8], received: &str) -> Bytes {
    message::put_value(key, &message::record(key, value, received))
}

/// VAL-5: the record first, 4 KiB at least kept for peers. A record longer than [`MAX_RECORD`] is left out, and so is a
/// repeated key longer than [`MAX_KEY`], under which nothing is stored: peers have the room.
pub fn answer_get_value(table: &TableView, key: &[u8], sender: &PeerId, record: Option<&[u8]>) -> Bytes {
    let closer = closest(table, &Key::for_value(key), sender).into_iter().map(|entry| &entry.encoded);
    let record = record.filter(|record| record.len() <= MAX_RECORD);
    let repeated = if key.len() <= MAX_KEY { key } else { &[] };
    message::answer(MessageType::GetValue, repeated, record, None, closer)
}

/// The k closest servers but the sender (SRV-4); oneself is never in a table.
fn closest<'t>(table: &'t TableView, key: &Key, sender: &PeerId) -> Vec<&'t Entry> {
    table.closest_where(key, K, |entry| entry.peer.id != *sender)
}

/// The place of a FIND_NODE target: SHA-256 of its bytes, whatever they are.
pub fn target_key(target: &[u8]) -> Key {
    Key::for_value(target)
}

#[cfg(test)]
mod tests;
