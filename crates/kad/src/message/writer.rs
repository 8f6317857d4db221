//! Encoding: what does not change between answers is encoded once and copied. Fields stand in the order of their
//! numbers, absent where they are empty, as go writes them.

use super::{MessageType, field};
use crate::{
    frame::{MAX_WRITE, put_varint, varint_len},
    table::K,
    useful::within,
};
use bytes::Bytes;
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use multihash::Multihash;
use std::iter;

/// Bytes of addresses that are written per peer at most. A dual-stack Kubo with all of its transports announces some 600
/// ([`crate::useful`]), to which comes a circuit.
pub const MAX_ADDRESS_BYTES: usize = 672;

/// The same for a server of the routing table: 20 of them must fit into a message of 16 KiB beside
/// [`MIN_PROVIDER_BYTES`] of providers.
pub const MAX_SERVER_ADDRESS_BYTES: usize = 512;

/// Bytes of an answer that closer peers leave to providers, if there are providers to fill them.
pub const MIN_PROVIDER_BYTES: usize = 4 * 1024;

/// The body of a `Peer` submessage, encoded once and copied into every answer that names the peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodedPeer(Bytes);

impl EncodedPeer {
    /// At most [`MAX_ADDRESS_BYTES`] of addresses are taken, in order; one that no longer fits is left out.
    ///
    /// Addresses are to be given without a trailing `/p2p/<id>`: everybody knows whose they are, and with it an
    /// answer is nearly twice as long.
    pub fn new<'m>(peer: &PeerId, addrs: impl IntoIterator<Item = &'m Multiaddr>) -> Self {
        Self::within(MAX_ADDRESS_BYTES, peer, addrs)
    }

    /// The entry of a server of the routing table, with [`MAX_SERVER_ADDRESS_BYTES`]. Where not all addresses fit: the first
    /// one, which is known to work, and the most useful others ([`crate::useful`]).
    pub fn of_server(peer: &PeerId, addrs: &[Multiaddr]) -> Self {
        let size = |addr: &Multiaddr| bytes_len(addr.len());
        match addrs {
            [first, others @ ..] if addrs.iter().map(size).sum::<usize>() > MAX_SERVER_ADDRESS_BYTES => {
                let others = within(MAX_SERVER_ADDRESS_BYTES.saturating_sub(size(first)), others.to_vec());
                Self::within(MAX_SERVER_ADDRESS_BYTES, peer, iter::once(first).chain(&others))
            }
            all => Self::within(MAX_SERVER_ADDRESS_BYTES, peer, all),
        }
    }

    fn within<'m>(mut room: usize, peer: &PeerId, addrs: impl IntoIterator<Item = &'m Multiaddr>) -> Self {
        // In memory of the right size, as [`answer`]: a GET_PROVIDERS does this for each provider.
        let id: &Multihash<64> = peer.as_ref();
        let id_len = id.encoded_len();
        let mut length = bytes_len(id_len);
        let fits = |addr: &&Multiaddr| {
            let size = bytes_len(addr.len());
            let fits = size <= room;
            if fits {
                room -= size;
                length += size;
            }
            fits
        };
        let addrs: Vec<&Multiaddr> = addrs.into_iter().filter(fits).collect();
        let mut body = Vec::with_capacity(length);
        put_varint(&mut body, u64::from(field::PEER_ID << 3 | 2));
        put_varint(&mut body, id_len as u64);
        put_varint(&mut body, id.code());
        put_varint(&mut body, u64::from(id.size()));
        body.extend_from_slice(id.digest());
        for addr in addrs {
            put_bytes(&mut body, field::PEER_ADDRS, addr.as_ref());
        }
        debug_assert_eq!(body.len(), length);
        Self(body.into())
    }

    /// The submessage's body, without tag and length.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Bytes that it takes in a message.
    fn size(&self) -> usize {
        bytes_len(self.0.len())
    }
}

/// FIND_NODE, GET_PROVIDERS, GET_VALUE, PING: a framed request with a key only.
///
/// As long as the key and some ten bytes: a server that keeps to the specification takes 80 bytes of key.
pub fn request(kind: MessageType, key: &[u8]) -> Bytes {
    let mut body = start(kind, key.len() + 8);
    put_nonempty(&mut body, field::KEY, key);
    framed(body)
}

/// A framed ADD_PROVIDER.
pub fn add_provider(multihash: &[u8], provider: &EncodedPeer) -> Bytes {
    let mut body = start(MessageType::AddProvider, multihash.len() + provider.size() + 8);
    put_nonempty(&mut body, field::KEY, multihash);
    put_bytes(&mut body, field::PROVIDER_PEERS, provider.as_bytes());
    framed(body)
}

/// The body of a `Record` submessage. `time_received` is RFC 3339; left out if empty.
pub fn record(key: &[u8], value: &[u8], time_received: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(key.len() + value.len() + time_received.len() + 16);
    put_nonempty(&mut body, field::RECORD_KEY, key);
    put_nonempty(&mut body, field::RECORD_VALUE, value);
    put_nonempty(&mut body, field::RECORD_TIME_RECEIVED, time_received.as_bytes());
    body
}

/// A framed PUT_VALUE, request and answer alike (VAL-4). `record` is a whole `Record` submessage body.
pub fn put_value(key: &[u8], record: &[u8]) -> Bytes {
    let mut body = start(MessageType::PutValue, key.len() + record.len() + 16);
    put_nonempty(&mut body, field::KEY, key);
    put_bytes(&mut body, field::RECORD, record);
    framed(body)
}

/// A framed answer. `record` is a whole `Record` submessage body. Peers beyond [`MAX_WRITE`] are left out from the end.
///
/// The record goes first. Closer peers get what it leaves, less [`MIN_PROVIDER_BYTES`] or what the providers need if
/// that is less; providers get the rest. A record or key that alone is over the limit is left out.
pub fn answer<'p>(
    kind: MessageType,
    key: &[u8],
    record: Option<&[u8]>,
    providers: impl IntoIterator<Item = &'p EncodedPeer>,
    closer: impl IntoIterator<Item = &'p EncodedPeer>,
) -> Bytes {
    // The length prefix counts, too: nobody has to know whether a peer's limit is meant with or without it.
    let limit = MAX_WRITE - varint_len(MAX_WRITE);
    // First what goes in, then all of it into memory of the right size: an answer is some 5 KB, and copied once.
    let mut length = kind_len(kind);
    let key = Some(key).filter(|key| !key.is_empty() && length + bytes_len(key.len()) <= limit);
    length += key.map_or(0, |key| bytes_len(key.len()));
    let record = record.filter(|record| length + bytes_len(record.len()) <= limit);
    length += record.map_or(0, |record| bytes_len(record.len()));

    let (mut wanting, mut wanted) = (Vec::new(), 0);
    for provider in providers {
        if wanted + provider.size() > limit {
            break;
        }
        wanted += provider.size();
        wanting.push(provider);
    }
    let closer = fitting(&mut length, limit.saturating_sub(wanted.min(MIN_PROVIDER_BYTES)), closer);
    let providers = fitting(&mut length, limit, wanting);

    let mut frame = Vec::with_capacity(varint_len(length) + length);
    put_varint(&mut frame, length as u64);
    put_kind(&mut frame, kind);
    if let Some(key) = key {
        put_bytes(&mut frame, field::KEY, key);
    }
    if let Some(record) = record {
        put_bytes(&mut frame, field::RECORD, record);
    }
    for (list, peers) in [(field::CLOSER_PEERS, closer), (field::PROVIDER_PEERS, providers)] {
        for peer in peers {
            put_bytes(&mut frame, list, peer.as_bytes());
        }
    }
    debug_assert_eq!(frame.len(), varint_len(length) + length);
    frame.into()
}

/// Peers until the first that would make a body of `length` longer than `limit`.
fn fitting<'p>(
    length: &mut usize,
    limit: usize,
    peers: impl IntoIterator<Item = &'p EncodedPeer>,
) -> Vec<&'p EncodedPeer> {
    let mut fitting = Vec::with_capacity(K);
    for peer in peers {
        if *length + peer.size() > limit {
            break;
        }
        *length += peer.size();
        fitting.push(peer);
    }
    fitting
}

fn start(kind: MessageType, capacity: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(capacity.min(MAX_WRITE));
    put_kind(&mut body, kind);
    body
}

fn put_kind(body: &mut Vec<u8>, kind: MessageType) {
    if kind != MessageType::PutValue {
        put_varint(body, u64::from(field::TYPE << 3));
        put_varint(body, kind as u64);
    }
}

/// Bytes of the kind: one of tag and one of value, none for protobuf's default.
fn kind_len(kind: MessageType) -> usize {
    if kind == MessageType::PutValue { 0 } else { 2 }
}

fn put_nonempty(body: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_bytes(body, number, bytes);
    }
}

/// Appends a field of bytes.
pub(crate) fn put_bytes(body: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(body, u64::from(number << 3 | 2));
    put_varint(body, bytes.len() as u64);
    body.extend_from_slice(bytes);
}

/// Size of a field of `length` bytes: every field number in use has a tag of one byte.
fn bytes_len(length: usize) -> usize {
    1 + varint_len(length) + length
}

fn framed(body: Vec<u8>) -> Bytes {
    let mut frame = Vec::with_capacity(body.len() + varint_len(body.len()));
    put_varint(&mut frame, body.len() as u64);
    frame.extend_from_slice(&body);
    frame.into()
}
