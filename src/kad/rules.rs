//! What a server makes of a request, and the bytes of its answer (SRV, PRV clauses). Functions only.

use super::{
    PeerInfo,
    keyspace::Key,
    message::{EncodedPeer, Message},
    table::TableView,
};
use bytes::Bytes;
use libp2p::PeerId;

/// PRV-1.
pub const MAX_KEY: usize = 80;
/// Addresses taken from one ADD_PROVIDER.
pub const MAX_ADDRESSES: usize = 32;

/// A request that passed the checks.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Request<'a> {
    Ping,
    FindNode {
        target: &'a [u8],
    },
    GetProviders {
        multihash: &'a [u8],
    },
    /// The sender provides this; its addresses as sent, parsed, own `/p2p` suffix stripped, not yet filtered by scope.
    AddProvider {
        multihash: &'a [u8],
        provider: PeerInfo,
    },
    GetValue {
        key: &'a [u8],
    },
    PutValue {
        key: &'a [u8],
        record: &'a [u8],
    },
}

/// Why a request closes its stream without an answer (PRV-3, MSG-1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Refusal {
    #[error("empty key")]
    EmptyKey,
    #[error("key longer than 80 bytes")]
    KeyTooLong,
    #[error("key is not a multihash")]
    NotAMultihash,
    #[error("no provider entry of the sender")]
    NotTheSender,
    #[error("values of this namespace are not stored")]
    UnknownNamespace,
    #[error("record missing or malformed")]
    BadRecord,
}

/// PRV-1, PRV-2, VAL-1: what the sender may ask.
#[expect(unused_variables)]
pub fn check<'a>(message: &Message<'a>, sender: &PeerId) -> Result<Request<'a>, Refusal> {
    todo!()
}

/// Well-formed multihash: varint code, varint length, exactly that many bytes (PRV-1).
#[expect(unused_variables)]
pub fn is_multihash(bytes: &[u8]) -> bool {
    todo!()
}

/// PING is echoed.
pub fn answer_ping() -> Bytes {
    todo!()
}

/// SRV-1, 4, 5. `target_peer`: the peer whose id is the target, if the address book or the local node knows it.
#[expect(unused_variables)]
pub fn answer_find_node(table: &TableView, target: &[u8], sender: &PeerId, target_peer: Option<&EncodedPeer>) -> Bytes {
    todo!()
}

/// PRV-8: providers (a random subset when they do not all fit; `seed` decides), then the k closest.
#[expect(unused_variables)]
pub fn answer_get_providers(
    table: &TableView,
    multihash: &[u8],
    sender: &PeerId,
    providers: &[EncodedPeer],
    seed: u64,
) -> Bytes {
    todo!()
}

/// VAL-5: the record first, 4 KiB at least kept for peers.
#[expect(unused_variables)]
pub fn answer_get_value(table: &TableView, key: &[u8], sender: &PeerId, record: Option<&[u8]>) -> Bytes {
    todo!()
}

/// The place of a FIND_NODE target: SHA-256 of its bytes, whatever they are.
pub fn target_key(target: &[u8]) -> Key {
    Key::for_value(target)
}
