//! The protobuf messages of the protocol (MSG-1): a decoder that borrows the bytes, and a writer that copies
//! pre-encoded parts.
//!
//! ```protobuf
//! message Message {
//!     MessageType type = 1; bytes key = 2; Record record = 3;
//!     repeated Peer closerPeers = 8; repeated Peer providerPeers = 9; int32 clusterLevelRaw = 10;
//! }
//! message Peer { bytes id = 1; repeated bytes addrs = 2; ConnectionType connection = 3; }
//! message Record { bytes key = 1; bytes value = 2; string timeReceived = 5; }
//! ```
//!
//! The decoder is stricter than protobuf in three cases, which no known implementation sends. It refuses groups,
//! unknown message types, and a second `record`: protobuf would merge the two, which is impossible with borrowed bytes.

#[cfg(any(test, fuzzing, feature = "oracle"))]
#[doc(hidden)]
pub mod oracle;
pub mod wire;
mod writer;

pub(crate) use writer::put_bytes;
pub use writer::{
    EncodedPeer, MAX_ADDRESS_BYTES, MAX_SERVER_ADDRESS_BYTES, MIN_PROVIDER_BYTES, add_provider, answer, put_value,
    record, request,
};

use super::{PeerInfo, scope::strip_peer};
use libp2p_identity::PeerId;
use multiaddr::Multiaddr;
use std::collections::BTreeSet;
use wire::{Fields, Value};

/// Maximum number of entries parsed for each entry wanted. It bounds the cost of a message full of malformed addresses
/// or peers.
const TRIES_PER_ADDRESS: usize = 4;

mod field {
    //! Field numbers of the three messages.
    pub const TYPE: u32 = 1;
    pub const KEY: u32 = 2;
    pub const RECORD: u32 = 3;
    pub const CLOSER_PEERS: u32 = 8;
    pub const PROVIDER_PEERS: u32 = 9;
    pub const CLUSTER_LEVEL: u32 = 10;

    pub const PEER_ID: u32 = 1;
    pub const PEER_ADDRS: u32 = 2;
    pub const PEER_CONNECTION: u32 = 3;

    pub const RECORD_KEY: u32 = 1;
    pub const RECORD_VALUE: u32 = 2;
    pub const RECORD_TIME_RECEIVED: u32 = 5;
}

/// The type of a message, with the numbers of `Message.MessageType`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum MessageType {
    /// Store a value record. Protobuf's default, so a message without a type is one.
    PutValue = 0,
    /// Ask for a value record.
    GetValue = 1,
    /// Announce that the sender provides the key's content. Never answered (PRV-4).
    AddProvider = 2,
    /// Ask for the providers of the key's content.
    GetProviders = 3,
    /// Ask for the closest servers to the key.
    FindNode = 4,
    /// Deprecated: answered, never sent (MSG-3).
    Ping = 5,
}

impl MessageType {
    /// Uses the low 32 bits of the number on the wire, as generated code does.
    fn from_wire(value: u64) -> Option<Self> {
        Some(match value as u32 {
            0 => MessageType::PutValue,
            1 => MessageType::GetValue,
            2 => MessageType::AddProvider,
            3 => MessageType::GetProviders,
            4 => MessageType::FindNode,
            5 => MessageType::Ping,
            _ => return None,
        })
    }
}

/// Why bytes are not a message. The stream is reset (MSG-1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct DecodeError(
    /// What is wrong.
    pub &'static str,
);

/// A decoded message that borrows the received bytes.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// The type.
    pub kind: MessageType,
    /// A multihash, a binary peer id or a value's key; empty if absent.
    pub key: &'a [u8],
    /// The body of the `Record` submessage, undecoded but known to decode with [`Record::decode`].
    pub record: Option<&'a [u8]>,
    body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Decodes a body (without length prefix). Checks nested peers too, so that the iterators cannot fail.
    ///
    /// Skips unknown fields. If a scalar is repeated, the last one counts.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut message = Message { kind: MessageType::PutValue, key: &[], record: None, body };
        for field in Fields::new(body) {
            let (number, value) = field?;
            match number {
                field::TYPE => {
                    message.kind =
                        MessageType::from_wire(value.varint()?).ok_or(DecodeError("unknown message type"))?;
                }
                field::KEY => message.key = value.bytes()?,
                field::RECORD => {
                    let record = value.bytes()?;
                    Record::decode(record)?;
                    if message.record.replace(record).is_some() {
                        return Err(DecodeError("more than one record"));
                    }
                }
                field::CLOSER_PEERS | field::PROVIDER_PEERS => {
                    RawPeer::decode(value.bytes()?)?;
                }
                field::CLUSTER_LEVEL => {
                    value.varint()?;
                }
                _ => {}
            }
        }
        Ok(message)
    }

    /// Returns the entries of `closerPeers`, in order.
    pub fn closer_peers(&self) -> impl Iterator<Item = RawPeer<'a>> + use<'a> {
        peers(self.body, field::CLOSER_PEERS)
    }

    /// Returns the entries of `providerPeers`, in order.
    pub fn provider_peers(&self) -> impl Iterator<Item = RawPeer<'a>> + use<'a> {
        peers(self.body, field::PROVIDER_PEERS)
    }

    /// Returns `closerPeers`, decoded with [`decode_owned`].
    pub fn closer_peer_infos(&self, max_peers: usize, max_addrs: usize) -> Vec<PeerInfo> {
        decode_owned(self.closer_peers(), max_peers, max_addrs)
    }

    /// Returns `providerPeers`, decoded with [`decode_owned`].
    pub fn provider_peer_infos(&self, max_peers: usize, max_addrs: usize) -> Vec<PeerInfo> {
        decode_owned(self.provider_peers(), max_peers, max_addrs)
    }
}

fn peers<'a>(body: &'a [u8], list: u32) -> impl Iterator<Item = RawPeer<'a>> + use<'a> {
    // `decode` has checked every field, so there are no errors to skip here.
    Fields::new(body)
        .map_while(Result::ok)
        .filter(move |(number, _)| *number == list)
        .filter_map(|(_, value)| RawPeer::decode(value.bytes().ok()?).ok())
}

/// Decodes at most `max_peers` peers with at most `max_addrs` addresses each. Skips entries whose id is malformed, and
/// repetitions of a peer. Keeps a peer without any usable address: the caller may know some.
pub fn decode_owned<'a>(peers: impl Iterator<Item = RawPeer<'a>>, max_peers: usize, max_addrs: usize) -> Vec<PeerInfo> {
    let mut seen = BTreeSet::new();
    // The same limit on malformed entries as on malformed addresses.
    peers
        .take(max_peers.saturating_mul(TRIES_PER_ADDRESS))
        .filter(|peer| seen.insert(peer.id))
        .filter_map(|peer| peer.to_peer_info(max_addrs))
        .take(max_peers)
        .collect()
}

/// One entry of `closerPeers` or `providerPeers`, undecoded.
#[derive(Clone, Copy, Debug)]
pub struct RawPeer<'a> {
    /// The binary peer id, unchecked; empty if absent.
    pub id: &'a [u8],
    body: &'a [u8],
}

impl<'a> RawPeer<'a> {
    fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut peer = RawPeer { id: &[], body };
        for field in Fields::new(body) {
            let (number, value) = field?;
            match number {
                field::PEER_ID => peer.id = value.bytes()?,
                field::PEER_ADDRS => {
                    value.bytes()?;
                }
                // Any number is accepted: newer implementations may know more kinds of connection.
                field::PEER_CONNECTION => {
                    value.varint()?;
                }
                _ => {}
            }
        }
        Ok(peer)
    }

    /// Returns the body of the submessage.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.body
    }

    /// Returns the addresses as sent, in order.
    pub fn addrs(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        Fields::new(self.body)
            .map_while(Result::ok)
            .filter(|(number, _)| *number == field::PEER_ADDRS)
            .filter_map(|(_, value)| value.bytes().ok())
    }

    /// Decodes the peer and at most `max_addrs` of its addresses, without the peer's own `/p2p` suffix.
    ///
    /// Leaves out addresses that do not parse, repetitions, addresses that [`strip_peer`] refuses, and addresses longer
    /// than [`MAX_ADDRESS_BYTES`], which could never be handed on. Returns `None` if the id is malformed.
    pub fn to_peer_info(&self, max_addrs: usize) -> Option<PeerInfo> {
        let id = PeerId::from_bytes(self.id).ok()?;
        let mut addrs: Vec<Multiaddr> = Vec::new();
        for bytes in self.addrs().take(max_addrs.saturating_mul(TRIES_PER_ADDRESS)) {
            if addrs.len() >= max_addrs {
                break;
            }
            if bytes.len() > MAX_ADDRESS_BYTES {
                continue;
            }
            let parsed = Multiaddr::try_from(bytes.to_vec()).ok().and_then(|addr| strip_peer(addr, &id));
            if let Some(addr) = parsed.filter(|addr| !addrs.contains(addr)) {
                addrs.push(addr);
            }
        }
        Some(PeerInfo { id, addrs })
    }
}

/// A decoded `Record` submessage that borrows the received bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// The key it is stored under, equal to the message's (VAL-4).
    pub key: &'a [u8],
    /// The public key or the IPNS record.
    pub value: &'a [u8],
    /// RFC 3339, set by the receiver; empty if absent.
    pub time_received: &'a str,
}

impl<'a> Record<'a> {
    /// Decodes the body of a `Record`.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut record = Record { key: &[], value: &[], time_received: "" };
        for field in Fields::new(body) {
            let (number, value) = field?;
            match number {
                field::RECORD_KEY => record.key = value.bytes()?,
                field::RECORD_VALUE => record.value = value.bytes()?,
                field::RECORD_TIME_RECEIVED => {
                    record.time_received =
                        std::str::from_utf8(value.bytes()?).map_err(|_| DecodeError("timeReceived is not UTF-8"))?;
                }
                _ => {}
            }
        }
        Ok(record)
    }
}

impl<'a> Value<'a> {
    fn bytes(self) -> Result<&'a [u8], DecodeError> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(DecodeError("bytes expected")),
        }
    }

    fn varint(self) -> Result<u64, DecodeError> {
        match self {
            Value::Varint(value) => Ok(value),
            _ => Err(DecodeError("number expected")),
        }
    }
}

#[cfg(test)]
mod tests;
