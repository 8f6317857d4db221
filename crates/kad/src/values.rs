//! Values: validates those stored under `/pk/` and `/ipns/`, and decides which of two is better (VAL-1 to VAL-3).
//!
//! A key is a namespace followed by a binary peer id. Only [`validate`] checks the peer id. A GET_VALUE whose key has
//! no peer id is answered like any other, but never finds a value; by the specification its key is "an unstructured
//! array of bytes", and go answers it too.
//!
//! The cost of [`validate`] is that of checking the signature of an IPNS record, including decoding and hashing the
//! key. In an optimized build, on one core of a 2-core virtual machine: Ed25519 0.09 ms, secp256k1 0.17 ms, ECDSA 0.7
//! ms, RSA 0.1 ms with 2048 bits and 0.3 ms with 4096 bits. RSA with 8192 bits, the maximum, should cost four times as
//! much as with 4096 bits. Cheap checks come first, so that most invalid values cost microseconds. A peer that signs
//! with its own key can cause the full cost.

pub mod ipns;
pub mod key_text;
pub mod pk;
pub mod rfc3339;

use libp2p_identity::PeerId;
use std::{cmp::Ordering, time::Duration};

/// Longest value: the limit for an IPNS record (VAL-3).
pub const MAX_VALUE: usize = 10 * 1024;

/// Why a value is refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Invalid {
    /// The key is neither in `/pk/` nor in `/ipns/` (VAL-1).
    #[error("values of this namespace are not stored")]
    UnknownNamespace,
    /// The namespace is not followed by a binary peer id: a SHA-256 or identity multihash.
    #[error("the key does not contain a peer id")]
    NotAPeer,
    /// The value is longer than [`MAX_VALUE`].
    #[error("value longer than 10 KiB")]
    TooLong,
    /// The public key does not parse, is not in the exact form that is hashed, or has an unsupported kind or size.
    #[error("public key malformed or of an unsupported kind")]
    BadKey,
    /// The public key belongs to a peer other than the one in the key.
    #[error("public key of another peer")]
    WrongKey,
    /// The IPNS record has no public key, and its name contains only the hash of one.
    #[error("neither the record nor its name contains a public key")]
    NoKey,
    /// This part of the IPNS record does not parse or is missing.
    #[error("malformed IPNS record: {0}")]
    Malformed(&'static str),
    /// The IPNS record has no V2 signature.
    #[error("IPNS record without V2 signature")]
    NotSigned,
    /// The V2 signature was not made with the name's key.
    #[error("signature does not match")]
    BadSignature,
    /// This V1 field differs from the signed data.
    #[error("unsigned field {0} differs from the signed one")]
    Differs(&'static str),
    /// The validity has ended.
    #[error("IPNS record has expired")]
    Expired,
}

/// Checks that `value` may be stored and served under `key` at `now`, counted from the Unix epoch.
///
/// A valid value can become invalid only through [`Invalid::Expired`], when the validity of an IPNS record ends.
pub fn validate(key: &[u8], value: &[u8], now: Duration) -> Result<(), Invalid> {
    match split(key) {
        None => Err(Invalid::UnknownNamespace),
        Some(_) if value.len() > MAX_VALUE => Err(Invalid::TooLong),
        Some((Namespace::Pk, peer)) => pk::decode(&peer_id(peer)?, value).map(drop),
        Some((Namespace::Ipns, name)) => ipns::validate(&peer_id(name)?, value, now),
    }
}

/// Compares two valid values of `key`. The better one is greater.
///
/// For each key this is a total order, even of invalid values. All public keys of one peer are equal.
pub fn compare(key: &[u8], a: &[u8], b: &[u8]) -> Ordering {
    match split(key) {
        Some((Namespace::Ipns, _)) => ipns::compare(a, b),
        _ => Ordering::Equal,
    }
}

/// Returns when a value says that it ends, counted from the Unix epoch; after that [`validate`] refuses it. `None` if
/// it never ends.
pub fn ends(key: &[u8], value: &[u8]) -> Option<Duration> {
    match split(key) {
        Some((Namespace::Ipns, _)) => ipns::Record::decode(value).ok().map(|record| record.validity),
        _ => None,
    }
}

enum Namespace {
    Pk,
    Ipns,
}

/// Splits a key into the namespace and the rest.
fn split(key: &[u8]) -> Option<(Namespace, &[u8])> {
    let pk = key.strip_prefix(pk::PREFIX).map(|peer| (Namespace::Pk, peer));
    pk.or_else(|| key.strip_prefix(ipns::PREFIX).map(|name| (Namespace::Ipns, name)))
}

fn peer_id(bytes: &[u8]) -> Result<PeerId, Invalid> {
    PeerId::from_bytes(bytes).map_err(|_| Invalid::NotAPeer)
}

#[cfg(test)]
mod tests;
