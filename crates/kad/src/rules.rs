//! The rules of a server: checks a request and encodes its answer (SRV, PRV and VAL clauses). Functions only.

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

/// Longest key of content (PRV-1). The same limit applies to the keys of values. The longest of them, `/ipns/` with the
/// longest peer id, takes half of it.
pub const MAX_KEY: usize = 80;
/// Maximum number of addresses read from a provider's entry. go allows 8 KiB per peer, some hundred addresses. Honest
/// nodes send ten; a node with many interfaces sends dozens, followed by its circuits. [`super::useful`] decides which
/// of them are kept.
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
    /// Store that the sender provides this. Not answered (PRV-4).
    AddProvider {
        /// Well-formed, at most [`MAX_KEY`] bytes.
        multihash: &'a [u8],
        /// The sender with 0 to [`MAX_ADDRESSES`] addresses, without its own `/p2p` suffix, not filtered by scope.
        provider: PeerInfo,
    },
    /// Answer with [`answer_get_value`]. If nothing can be stored under the key, the answer has only closer servers
    /// (VAL-5).
    GetValue {
        /// Any bytes, not empty.
        key: &'a [u8],
    },
    /// Validate (VAL-2, VAL-3) and store the value, then answer with [`answer_put_value`] (VAL-4).
    PutValue {
        /// The record's key, in one of [`NAMESPACES`], at most [`MAX_KEY`] bytes.
        key: &'a [u8],
        /// The record's value.
        value: &'a [u8],
    },
}

/// Why a request is refused. Its stream is then closed without an answer (PRV-3, MSG-1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Refusal {
    /// The key is empty. Only PING may have no key.
    #[error("empty key")]
    EmptyKey,
    /// The key is longer than [`MAX_KEY`] (PRV-1).
    #[error("key longer than 80 bytes")]
    KeyTooLong,
    /// The key is not a multihash (PRV-1): see [`is_multihash`].
    #[error("key is not a multihash")]
    NotAMultihash,
    /// An ADD_PROVIDER names only peers other than its sender (PRV-2).
    #[error("no provider entry names the sender")]
    NotTheSender,
    /// The key is in none of [`NAMESPACES`] (VAL-1).
    #[error("values of this namespace are not stored")]
    UnknownNamespace,
    /// A PUT_VALUE has no record, or one with another key (VAL-4).
    #[error("record missing or malformed")]
    BadRecord,
}

/// Checks whether the sender may make this request (PRV-1, PRV-2, VAL-1, VAL-4).
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

/// Checks an ADD_PROVIDER whose only provider entry has the body `own`: the entry of an earlier request that came on
/// the same stream and passed [`check`]. Returns the multihash, or `None` if the request is any other.
///
/// A peer that announces a thousand CIDs sends the same entry a thousand times, and decoding it takes longer than all
/// other work on the request.
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

/// Checks the key of a value to store. [`super::values::validate`] checks that a peer id follows the namespace.
fn value_key(key: &[u8]) -> Result<&[u8], Refusal> {
    if key.len() > MAX_KEY {
        return Err(Refusal::KeyTooLong);
    }
    let known = NAMESPACES.iter().any(|namespace| key.len() > namespace.len() && key.starts_with(namespace));
    if known { Ok(key) } else { Err(Refusal::UnknownNamespace) }
}

/// Returns the sender's first entry that has addresses. If none has any, returns the sender's last entry.
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

/// Returns whether the bytes are a well-formed multihash: varint code, varint length, exactly that many bytes (PRV-1).
///
/// Any code is accepted; varints must be minimal. The bytes of a CIDv1 are not a multihash: read as one, they have code
/// 1 and the codec as length. The bytes of a CIDv0 are one, because a CIDv0 is a bare multihash.
pub fn is_multihash(bytes: &[u8]) -> bool {
    let Ok(Some((_code, at))) = read_varint(bytes) else { return false };
    let rest = &bytes[at..];
    let Ok(Some((length, at))) = read_varint(rest) else { return false };
    usize::try_from(length).is_ok_and(|length| rest[at..].len() == length)
}

/// Encodes the answer to PING, which is an echo.
pub fn answer_ping() -> Bytes {
    message::request(MessageType::Ping, &[])
}

/// Encodes the answer to FIND_NODE (SRV-1, SRV-4, SRV-5). `target_peer` is the peer whose id is the target, if the
/// caller knows its addresses.
///
/// That peer comes first, in addition to the k closest (unless it is one of them), even if it is the local node or the
/// sender. As in go, the answer does not repeat the key, which may have any length.
pub fn answer_find_node(table: &TableView, target: &[u8], sender: &PeerId, target_peer: Option<&EncodedPeer>) -> Bytes {
    let key = target_key(target);
    // Falls back to the table. The sender may ask for itself, although `closest` leaves it out.
    let itself = target_peer.or_else(|| table.get_by_key(&key).map(|entry| &entry.encoded));
    let others = closest(table, &key, sender).into_iter().filter(|entry| entry.key != key);
    let closer = itself.into_iter().chain(others.map(|entry| &entry.encoded));
    message::answer(MessageType::FindNode, &[], None, None, closer)
}

/// Encodes the answer to GET_PROVIDERS (PRV-8): the providers and the k closest servers. If not all providers fit,
/// `seed` selects a random subset.
///
/// The sender's own record is included if it is among `providers` (PRV-10).
pub fn answer_get_providers(
    table: &TableView,
    multihash: &[u8],
    sender: &PeerId,
    providers: &[EncodedPeer],
    seed: u64,
) -> Bytes {
    let closer = closest(table, &Key::for_content(multihash), sender);
    let mut providers: Vec<&EncodedPeer> = providers.iter().collect();
    // Below this size all providers always fit, and their order does not matter.
    if providers.iter().map(|provider| provider.as_bytes().len() + 4).sum::<usize>() > MIN_PROVIDER_BYTES {
        Seeded::new(seed).shuffle(&mut providers);
    }
    let closer = closer.into_iter().map(|entry| &entry.encoded);
    message::answer(MessageType::GetProviders, multihash, None, providers, closer)
}

/// Longest `Record` body in an answer. At least 4 KiB remain for peers (VAL-5). An IPNS record has at most 10 KiB
/// (VAL-3), plus its key and time.
pub const MAX_RECORD: usize = MAX_WRITE - 4 * 1024 - 2 * MAX_KEY;

/// Encodes the answer to PUT_VALUE (VAL-4): an echo of what was stored, with the time of receipt (RFC 3339). It repeats
/// no other field of the request's record, because those may have any length.
pub fn answer_put_value(key: &[u8], value: &[u8], received: &str) -> Bytes {
    message::put_value(key, &message::record(key, value, received))
}

/// Encodes the answer to GET_VALUE (VAL-5): the record, then peers, for which at least 4 KiB are kept. Leaves out a
/// record longer than [`MAX_RECORD`]. Does not repeat a key longer than [`MAX_KEY`], under which nothing can be stored.
pub fn answer_get_value(table: &TableView, key: &[u8], sender: &PeerId, record: Option<&[u8]>) -> Bytes {
    let closer = closest(table, &Key::for_value(key), sender).into_iter().map(|entry| &entry.encoded);
    let record = record.filter(|record| record.len() <= MAX_RECORD);
    let repeated = if key.len() <= MAX_KEY { key } else { &[] };
    message::answer(MessageType::GetValue, repeated, record, None, closer)
}

/// Returns the k closest servers without the sender (SRV-4). The local node is never in its own table.
fn closest<'t>(table: &'t TableView, key: &Key, sender: &PeerId) -> Vec<&'t Entry> {
    table.closest_where(key, K, |entry| entry.peer.id != *sender)
}

/// Returns the place of a FIND_NODE target: the SHA-256 of its bytes, whatever they are.
pub fn target_key(target: &[u8]) -> Key {
    Key::for_value(target)
}

#[cfg(test)]
mod tests;
