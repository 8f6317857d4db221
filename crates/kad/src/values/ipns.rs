//! Values of `/ipns/`: signed pointers that their owners can change (VAL-3), defined by the IPNS record specification.
//!
//! ```protobuf
//! message IpnsEntry {
//!     bytes value = 1; bytes signatureV1 = 2; ValidityType validityType = 3; bytes validity = 4; uint64 sequence = 5;
//!     uint64 ttl = 6; bytes pubKey = 7; bytes signatureV2 = 8; bytes data = 9;
//! }
//! ```
//!
//! `data` is a DAG-CBOR map with the keys `Value`, `Validity`, `ValidityType`, `Sequence` and `TTL`, and possibly
//! others. Only `data` is signed, and only `data` counts. Fields 1 to 6 are copies for readers of the first version of
//! the format.
//!
//! This module accepts the records that go's implementation (boxo) accepts, with a few exceptions, which no known
//! publisher creates. Unlike boxo it refuses:
//! - records that cannot be resolved or ordered: a `Value` that is missing or not bytes, a `Sequence` that is missing
//!   or not an integer, and a `TTL` that is not an integer (it may be missing);
//! - in other entries of `data`: 16-bit floats, `undefined`, tags other than a link's, text that is not UTF-8, and more
//!   than some 120 levels;
//! - protobuf groups;
//! - keys and times that [`super::pk::decode`] and [`super::rfc3339::parse`] refuse.
//!
//! Unlike boxo it accepts V1 copies of numbers that are 2^63 or more.

mod cbor;
mod create;

pub use create::{CreateError, Entry, create};

use super::{Invalid, pk, rfc3339};
use crate::message::wire::{Fields, Value};
use cbor::Node;
use libp2p_identity::{PeerId, PublicKey};
use std::{cmp::Ordering, time::Duration};

/// The namespace. In a key, a name follows it: the binary peer id of the signing key.
pub const PREFIX: &[u8] = b"/ipns/";

/// The first bytes of the signed data. They separate it from anything else that the key signs.
const SIGNATURE_PREFIX: &[u8] = b"ipns-signature:";

mod field {
    //! Field numbers of `IpnsEntry`.
    pub const VALUE: u32 = 1;
    pub const SIGNATURE_V1: u32 = 2;
    pub const VALIDITY_TYPE: u32 = 3;
    pub const VALIDITY: u32 = 4;
    pub const SEQUENCE: u32 = 5;
    pub const TTL: u32 = 6;
    pub const PUB_KEY: u32 = 7;
    pub const SIGNATURE_V2: u32 = 8;
    pub const DATA: u32 = 9;
}

/// Returns the key under which the record of a name is stored.
pub fn key(name: &PeerId) -> Vec<u8> {
    [PREFIX, &name.to_bytes()].concat()
}

/// A decoded IPNS record that borrows the received bytes. Its signature is not checked: see [`super::validate`].
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// What the name points to, as signed: see [`Record::path`].
    pub value: &'a [u8],
    /// Sequence number; a higher one is newer. As in boxo, a negative number counts as the unsigned one with the same
    /// 64 bits.
    pub sequence: u64,
    /// The last moment at which the record is valid, counted from the Unix epoch.
    pub validity: Duration,
    /// A hint for how long a resolver may cache the record.
    pub ttl: Option<Duration>,
    /// The embedded public key as protobuf, unchecked; empty if the name contains the key.
    pub public_key: &'a [u8],
    /// The signature for readers of the first version of the format. Never checked; empty if absent.
    pub signature_v1: &'a [u8],
    signature_v2: &'a [u8],
    data: &'a [u8],
    /// The validity as text.
    validity_text: &'a [u8],
    copies: Copies<'a>,
}

/// The unsigned fields of version 1. Absent fields count as empty or zero.
#[derive(Clone, Copy, Default, Debug)]
struct Copies<'a> {
    value: &'a [u8],
    validity_type: i32,
    validity: &'a [u8],
    sequence: u64,
    ttl: u64,
}

impl<'a> Record<'a> {
    /// Decodes a record. Checks everything that does not depend on the key, the name or the time.
    ///
    /// Skips unknown fields and fields with another wire type. If a field is repeated, the last one counts.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Invalid> {
        if bytes.len() > super::MAX_VALUE {
            return Err(Invalid::TooLong);
        }
        let (mut data, mut signature_v1, mut signature_v2, mut public_key): (&[u8], &[u8], &[u8], &[u8]) =
            Default::default();
        let mut copies = Copies::default();
        for entry in Fields::new(bytes) {
            match entry.map_err(|_| Invalid::Malformed("protobuf"))? {
                (field::VALUE, Value::Bytes(bytes)) => copies.value = bytes,
                (field::SIGNATURE_V1, Value::Bytes(bytes)) => signature_v1 = bytes,
                // An enum uses the low 32 bits.
                (field::VALIDITY_TYPE, Value::Varint(number)) => copies.validity_type = number as i32,
                (field::VALIDITY, Value::Bytes(bytes)) => copies.validity = bytes,
                (field::SEQUENCE, Value::Varint(number)) => copies.sequence = number,
                (field::TTL, Value::Varint(number)) => copies.ttl = number,
                (field::PUB_KEY, Value::Bytes(bytes)) => public_key = bytes,
                (field::SIGNATURE_V2, Value::Bytes(bytes)) => signature_v2 = bytes,
                (field::DATA, Value::Bytes(bytes)) => data = bytes,
                _ => {}
            }
        }
        if signature_v2.is_empty() || data.is_empty() {
            return Err(Invalid::NotSigned);
        }
        let entries = cbor::map(data).ok_or(Invalid::Malformed("DAG-CBOR"))?;
        let Some(&Node::Bytes(value)) = entries.get("Value") else { return Err(Invalid::Malformed("Value")) };
        // The only defined type: valid until a time.
        let Some(Node::Int(0)) = entries.get("ValidityType") else { return Err(Invalid::Malformed("ValidityType")) };
        let Some(&Node::Bytes(validity_text)) = entries.get("Validity") else {
            return Err(Invalid::Malformed("Validity"));
        };
        let validity = std::str::from_utf8(validity_text).ok().and_then(rfc3339::parse);
        let sequence = match entries.get("Sequence") {
            Some(&Node::Int(number)) => u64::try_from(number).or_else(|_| i64::try_from(number).map(|n| n as u64)).ok(),
            _ => None,
        };
        let ttl = match entries.get("TTL") {
            Some(&Node::Int(number)) => Some(u64::try_from(number).map_err(|_| Invalid::Malformed("TTL"))?),
            Some(_) => return Err(Invalid::Malformed("TTL")),
            None => None,
        };
        Ok(Self {
            value,
            sequence: sequence.ok_or(Invalid::Malformed("Sequence"))?,
            validity: validity.ok_or(Invalid::Malformed("Validity"))?,
            ttl: ttl.map(Duration::from_nanos),
            public_key,
            signature_v1,
            signature_v2,
            data,
            validity_text,
            copies,
        })
    }

    /// Returns what the name points to as text: a path unchanged, or `/ipfs/<cid>` for the bytes of a CID, which some
    /// publishers write.
    ///
    /// Returns `None` for anything else. Does not check that a path exists.
    pub fn path(&self) -> Option<String> {
        if self.value.starts_with(b"/") {
            return std::str::from_utf8(self.value).ok().map(str::to_owned);
        }
        cid::Cid::try_from(self.value).ok().map(|cid| format!("/ipfs/{cid}"))
    }

    /// Returns the key with which the record must be signed: the embedded one, or the one in the name.
    fn signer(&self, name: &PeerId) -> Result<PublicKey, Invalid> {
        if !self.public_key.is_empty() {
            return pk::decode(name, self.public_key);
        }
        const IDENTITY: u64 = 0;
        let hash = name.as_ref();
        if hash.code() == IDENTITY { pk::decode(name, hash.digest()) } else { Err(Invalid::NoKey) }
    }

    /// Checks that all copies equal the signed fields if there is a V1 signature or a V1 value.
    fn check_copies(&self) -> Result<(), Invalid> {
        if self.signature_v1.is_empty() && self.copies.value.is_empty() {
            return Ok(());
        }
        let same = [
            ("value", self.copies.value == self.value),
            ("validityType", self.copies.validity_type == 0),
            ("validity", self.copies.validity == self.validity_text),
            ("sequence", self.copies.sequence == self.sequence),
            ("ttl", self.ttl == Some(Duration::from_nanos(self.copies.ttl))),
        ];
        same.iter().find(|(_, same)| !same).map_or(Ok(()), |(name, _)| Err(Invalid::Differs(name)))
    }
}

/// Checks that `value` is a record of `name` that is valid at `now`. The signature comes last, because checking it
/// costs most.
pub(super) fn validate(name: &PeerId, value: &[u8], now: Duration) -> Result<(), Invalid> {
    let record = Record::decode(value)?;
    if now > record.validity {
        return Err(Invalid::Expired);
    }
    record.check_copies()?;
    let signer = record.signer(name)?;
    let signed = [SIGNATURE_PREFIX, record.data].concat();
    if signer.verify(&signed, record.signature_v2) { Ok(()) } else { Err(Invalid::BadSignature) }
}

/// Compares by sequence number, then by validity, then by bytes, as boxo does. Bytes that are not a record are worse
/// than any record.
pub(super) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |bytes| Record::decode(bytes).ok().map(|record| (record.sequence, record.validity));
    rank(a).cmp(&rank(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests;
