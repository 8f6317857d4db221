//! The protobuf messages of the protocol: a borrowed decoder, a writer of pre-encoded parts.

use super::PeerInfo;
use bytes::Bytes;
use libp2p::{Multiaddr, PeerId};

/// At most this many bytes of addresses are written per peer (design: a 16 KiB message must hold 20).
pub const MAX_ADDRESS_BYTES: usize = 512;

/// Protobuf enum values of `Message.MessageType`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum MessageType {
    PutValue = 0,
    GetValue = 1,
    AddProvider = 2,
    GetProviders = 3,
    FindNode = 4,
    Ping = 5,
}

/// A decoded message that borrows the received bytes.
#[derive(Clone, Debug)]
#[allow(missing_docs, dead_code)]
pub struct Message<'a> {
    pub kind: MessageType,
    pub key: &'a [u8],
    /// The undecoded body of the `Record` submessage.
    pub record: Option<&'a [u8]>,
    body: &'a [u8],
}

/// One entry of `closerPeers` or `providerPeers`, undecoded.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, dead_code)]
pub struct RawPeer<'a> {
    pub id: &'a [u8],
    body: &'a [u8],
}

/// Why bytes are not a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct DecodeError(pub &'static str);

#[expect(unused_variables, missing_docs)]
impl<'a> Message<'a> {
    /// Decodes a body (without length prefix), nested peers included, so that the iterators cannot fail.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        todo!()
    }
    pub fn closer_peers(&self) -> impl Iterator<Item = RawPeer<'a>> + use<'a> {
        std::iter::empty()
    }
    pub fn provider_peers(&self) -> impl Iterator<Item = RawPeer<'a>> + use<'a> {
        std::iter::empty()
    }
}

#[expect(missing_docs)]
impl<'a> RawPeer<'a> {
    pub fn addrs(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        std::iter::empty()
    }
    /// The peer and those of its addresses that parse, own `/p2p` suffix stripped, at most `max_addrs`.
    pub fn to_peer_info(&self, _max_addrs: usize) -> Option<PeerInfo> {
        todo!()
    }
}

/// The body of a `Peer` submessage, encoded once and copied into every answer that names the peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodedPeer(Bytes);

#[expect(unused_variables, missing_docs)]
impl EncodedPeer {
    /// At most [`MAX_ADDRESS_BYTES`] of addresses are taken, in order.
    pub fn new<'m>(peer: &PeerId, addrs: impl IntoIterator<Item = &'m Multiaddr>) -> Self {
        todo!()
    }
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// FIND_NODE, GET_PROVIDERS, GET_VALUE, PING: a framed request with a key only.
#[expect(unused_variables)]
pub fn request(kind: MessageType, key: &[u8]) -> Bytes {
    todo!()
}
/// A framed ADD_PROVIDER.
#[expect(unused_variables)]
pub fn add_provider(multihash: &[u8], provider: &EncodedPeer) -> Bytes {
    todo!()
}
/// A framed answer. `record` is a whole `Record` submessage body. Peers beyond `MAX_WRITE` are left out from the end.
#[expect(unused_variables)]
pub fn answer<'p>(
    kind: MessageType,
    key: &[u8],
    record: Option<&[u8]>,
    providers: impl IntoIterator<Item = &'p EncodedPeer>,
    closer: impl IntoIterator<Item = &'p EncodedPeer>,
) -> Bytes {
    todo!()
}
