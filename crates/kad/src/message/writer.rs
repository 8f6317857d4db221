//! Encodes messages. Parts that do not change between answers are encoded once and copied. As in go, fields are in the
//! order of their numbers, and empty ones are omitted.

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

/// Maximum number of bytes of addresses written per peer. A dual-stack Kubo with all of its transports announces some
/// 600 ([`crate::useful`]), plus a circuit.
pub const MAX_ADDRESS_BYTES: usize = 672;

/// Maximum number of bytes of addresses written for a server of the routing table: 20 of them must fit into a message
/// of 16 KiB, next to [`MIN_PROVIDER_BYTES`] of providers.
pub const MAX_SERVER_ADDRESS_BYTES: usize = 512;

/// Bytes of an answer reserved for providers, as far as there are providers to fill them.
pub const MIN_PROVIDER_BYTES: usize = 4 * 1024;

/// The body of a `Peer` submessage, encoded once and copied into every answer that names the peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodedPeer(Bytes);

impl EncodedPeer {
    /// Encodes a peer with at most [`MAX_ADDRESS_BYTES`] of addresses, in order. An address that no longer fits is left
    /// out.
    ///
    /// Pass addresses without a trailing `/p2p/<id>`: it is redundant and makes an answer nearly twice as long.
    pub fn new<'m>(peer: &PeerId, addrs: impl IntoIterator<Item = &'m Multiaddr>) -> Self {
        Self::within(MAX_ADDRESS_BYTES, peer, addrs)
    }

    /// Encodes a server of the routing table with at most [`MAX_SERVER_ADDRESS_BYTES`] of addresses. If not all fit,
    /// keeps the first one, which is known to work, and the most useful others ([`crate::useful`]).
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
        // Allocates exactly once, like [`answer`]: a GET_PROVIDERS does this for each provider.
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

    /// Returns the body of the submessage, without tag and length.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the number of bytes that it takes in a message.
    fn size(&self) -> usize {
        bytes_len(self.0.len())
    }
}

/// Encodes a framed request that has only a key: FIND_NODE, GET_PROVIDERS, GET_VALUE or PING.
///
/// The frame is some ten bytes longer than the key. By the specification, servers accept a key of up to 80 bytes.
pub fn request(kind: MessageType, key: &[u8]) -> Bytes {
    let mut body = start(kind, key.len() + 8);
    put_nonempty(&mut body, field::KEY, key);
    framed(body)
}

/// Encodes a framed ADD_PROVIDER.
pub fn add_provider(multihash: &[u8], provider: &EncodedPeer) -> Bytes {
    let mut body = start(MessageType::AddProvider, multihash.len() + provider.size() + 8);
    put_nonempty(&mut body, field::KEY, multihash);
    put_bytes(&mut body, field::PROVIDER_PEERS, provider.as_bytes());
    framed(body)
}

/// Encodes the body of a `Record` submessage. `time_received` is RFC 3339; it is omitted if empty.
pub fn record(key: &[u8], value: &[u8], time_received: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(key.len() + value.len() + time_received.len() + 16);
    put_nonempty(&mut body, field::RECORD_KEY, key);
    put_nonempty(&mut body, field::RECORD_VALUE, value);
    put_nonempty(&mut body, field::RECORD_TIME_RECEIVED, time_received.as_bytes());
    body
}

/// Encodes a framed PUT_VALUE, a request or an answer (VAL-4). `record` is the body of a `Record` submessage.
pub fn put_value(key: &[u8], record: &[u8]) -> Bytes {
    let mut body = start(MessageType::PutValue, key.len() + record.len() + 16);
    put_nonempty(&mut body, field::KEY, key);
    put_bytes(&mut body, field::RECORD, record);
    framed(body)
}

/// Encodes a framed answer. `record` is the body of a `Record` submessage. If not all peers fit into [`MAX_WRITE`], the
/// last ones are left out.
///
/// The record has priority. Closer peers get the rest, minus [`MIN_PROVIDER_BYTES`], or minus the need of the providers
/// if that is less. Providers get what remains. A record or key that alone exceeds the limit is left out.
pub fn answer<'p>(
    kind: MessageType,
    key: &[u8],
    record: Option<&[u8]>,
    providers: impl IntoIterator<Item = &'p EncodedPeer>,
    closer: impl IntoIterator<Item = &'p EncodedPeer>,
) -> Bytes {
    // The length prefix counts too, so that the frame also fits if a peer's limit includes it.
    let limit = MAX_WRITE - varint_len(MAX_WRITE);
    // Selects the content first, then allocates exactly once: an answer of some 5 KB is copied only once.
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

/// Returns the peers before the first that would make the body longer than `limit`. Adds their size to `length`.
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

/// Returns the size of the type field: tag and value take one byte each; protobuf's default takes none.
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

/// Returns the size of a field with `length` bytes. Every field number in use has a tag of one byte.
fn bytes_len(length: usize) -> usize {
    1 + varint_len(length) + length
}

fn framed(body: Vec<u8>) -> Bytes {
    let mut frame = Vec::with_capacity(body.len() + varint_len(body.len()));
    put_varint(&mut frame, body.len() as u64);
    frame.extend_from_slice(&body);
    frame.into()
}
