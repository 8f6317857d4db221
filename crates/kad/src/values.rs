//! Values: what may be stored under `/pk/` and `/ipns/`, and which of two is the better (VAL-1 to VAL-3).
//!
//! A key is a namespace and a binary peer id. [`validate`] is the one place that checks the peer id: a GET_VALUE whose
//! key has none is answered like any other (its key is "an unstructured array of bytes", and go answers it, too), it
//! just never finds anything.
//!
//! What [`validate`] costs is the signature check of an IPNS record, key decoded and hashed included. On one core of a
//! 2-core virtual machine, optimized: Ed25519 0.09 ms, secp256k1 0.17 ms, ECDSA 0.7 ms, RSA of 2048 bits 0.1 ms, of 4096
//! bits 0.3 ms. A key of 8192 bits, the most that is taken, should cost four times the latter. Everything cheap comes
//! first, so that most rubbish costs microseconds; who has a key of their own can make us pay the full price.

pub mod ipns;
pub mod key_text;
pub mod pk;
pub mod rfc3339;

use libp2p_identity::PeerId;
use std::{cmp::Ordering, time::Duration};

/// Longest value: the limit of an IPNS record (VAL-3).
pub const MAX_VALUE: usize = 10 * 1024;

/// Why a value is refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Invalid {
    /// Neither `/pk/` nor `/ipns/` (VAL-1).
    #[error("values of this namespace are not stored")]
    UnknownNamespace,
    /// What follows the namespace is no binary peer id: SHA-256 or identity multihash.
    #[error("the key names no peer")]
    NotAPeer,
    /// Over [`MAX_VALUE`].
    #[error("value longer than 10 KiB")]
    TooLong,
    /// A public key that does not parse, or not in the one form that is hashed, or of a kind or size that is not taken.
    #[error("public key malformed or of an unsupported kind")]
    BadKey,
    /// A public key of another peer than the key names.
    #[error("public key of another peer")]
    WrongKey,
    /// An IPNS record without public key, under a name that is but the hash of one.
    #[error("no public key, neither in the record nor in its name")]
    NoKey,
    /// Not an IPNS record: this part of it does not parse or is missing.
    #[error("malformed IPNS record: {0}")]
    Malformed(&'static str),
    /// An IPNS record with V1 signature only, or none.
    #[error("IPNS record without V2 signature")]
    NotSigned,
    /// The V2 signature is not that of the name's key.
    #[error("signature does not match")]
    BadSignature,
    /// A V1 field says something else than what is signed.
    #[error("unsigned field {0} differs from the signed one")]
    Differs(&'static str),
    /// Its validity has ended.
    #[error("IPNS record has expired")]
    Expired,
}

/// Whether `value` may be stored and served under `key` at `now`, counted from the Unix epoch.
///
/// Of what holds today only [`Invalid::Expired`] may come later: an IPNS record ends with its validity.
pub fn validate(key: &[u8], value: &[u8], now: Duration) -> Result<(), Invalid> {
    match split(key) {
        None => Err(Invalid::UnknownNamespace),
        Some(_) if value.len() > MAX_VALUE => Err(Invalid::TooLong),
        Some((Namespace::Pk, peer)) => pk::decode(&peer_id(peer)?, value).map(drop),
        Some((Namespace::Ipns, name)) => ipns::validate(&peer_id(name)?, value, now),
    }
}

/// Which of two values is the better for `key`, both of them valid (`Greater`: `a`).
///
/// A total order for each key, whatever the values. Public keys of one peer are all the same.
pub fn compare(key: &[u8], a: &[u8], b: &[u8]) -> Ordering {
    match split(key) {
        Some((Namespace::Ipns, _)) => ipns::compare(a, b),
        _ => Ordering::Equal,
    }
}

/// The end of a value's validity by its own word, counted from the Unix epoch: from then on [`validate`] refuses it.
/// `None` if it says nothing of that.
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

/// The namespace and what follows it.
fn split(key: &[u8]) -> Option<(Namespace, &[u8])> {
    let pk = key.strip_prefix(pk::PREFIX).map(|peer| (Namespace::Pk, peer));
    pk.or_else(|| key.strip_prefix(ipns::PREFIX).map(|name| (Namespace::Ipns, name)))
}

fn peer_id(bytes: &[u8]) -> Result<PeerId, Invalid> {
    PeerId::from_bytes(bytes).map_err(|_| Invalid::NotAPeer)
}

#[cfg(test)]
mod tests;
