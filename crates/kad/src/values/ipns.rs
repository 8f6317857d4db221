//! `/ipns/`: signed pointers that their owners move (VAL-3), as the IPNS record specification has them.
//!
//! ```protobuf
//! message IpnsEntry {
//!     bytes value = 1; bytes signatureV1 = 2; ValidityType validityType = 3; bytes validity = 4; uint64 sequence = 5;
//!     uint64 ttl = 6; bytes pubKey = 7; bytes signatureV2 = 8; bytes data = 9;
//! }
//! ```
//!
//! `data` is a DAG-CBOR map with the keys `Value`, `Validity`, `ValidityType`, `Sequence` and `TTL`, perhaps more. Only
//! it is signed, and only it counts. Fields 1 to 6 are copies for readers of the first version of the format.
//!
//! What go's implementation (boxo) takes is taken, with these exceptions, which no known publisher makes. Refused here:
//! - records that nobody could resolve or order: without `Value` or `Sequence`, or with another kind than bytes and an
//!   integer in their place; a `TTL` that is not an integer (it may be missing);
//! - in further entries of `data`: floats of 16 bits, `undefined`, tags other than a link's, text that is not UTF-8, more
//!   than some 120 levels;
//! - protobuf groups;
//! - keys and times outside the forms of [`super::pk::decode`] and [`super::rfc3339::parse`].
//!
//! Taken here but not there: V1 copies of numbers from 2^63 on.

mod cbor;
mod create;

pub use create::{CreateError, Entry, create};

use super::{Invalid, pk, rfc3339};
use crate::message::wire::{Fields, Value};
use cbor::Node;
use libp2p_identity::{PeerId, PublicKey};
use std::{cmp::Ordering, time::Duration};

/// The namespace. A name follows: the binary peer id of the key that signs.
pub const PREFIX: &[u8] = b"/ipns/";

/// What is signed begins with this, to be told from anything else that the key signs.
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

/// The key under which the record of a name is stored.
pub fn key(name: &PeerId) -> Vec<u8> {
    [PREFIX, &name.to_bytes()].concat()
}

/// An IPNS record taken apart, its signature not checked: see [`super::validate`]. Borrows the record.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// What the name points at, as signed: see [`Record::path`].
    pub value: &'a [u8],
    /// The higher, the newer. A negative number counts as the unsigned one of the same 64 bits, as boxo writes it.
    pub sequence: u64,
    /// The last moment at which the record is valid, counted from the Unix epoch.
    pub validity: Duration,
    /// For how long a resolver may keep it without asking again. A hint.
    pub ttl: Option<Duration>,
    /// The embedded public key, protobuf, unchecked; empty if the name has it.
    pub public_key: &'a [u8],
    /// Without it readers of the first version of the format do not take the record. Never checked: empty if absent.
    pub signature_v1: &'a [u8],
    signature_v2: &'a [u8],
    data: &'a [u8],
    /// The validity as written.
    validity_text: &'a [u8],
    copies: Copies<'a>,
}

/// The unsigned fields of version 1. Those that are absent count as empty or zero.
#[derive(Clone, Copy, Default, Debug)]
struct Copies<'a> {
    value: &'a [u8],
    validity_type: i32,
    validity: &'a [u8],
    sequence: u64,
    ttl: u64,
}

impl<'a> Record<'a> {
    /// Takes a record apart: all that can be said without key, name and time.
    ///
    /// Unknown fields are passed over, as are those of another wire type. Of a repeated field the last counts.
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
                // An enum has the low 32 bits.
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
        // The only type there is: valid until a time.
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

    /// What the name points at, as text: a path as it stands; the bytes of a CID, as some write, as `/ipfs/<cid>`.
    ///
    /// `None` for anything else. Whether a path leads anywhere is not looked at.
    pub fn path(&self) -> Option<String> {
        if self.value.starts_with(b"/") {
            return std::str::from_utf8(self.value).ok().map(str::to_owned);
        }
        cid::Cid::try_from(self.value).ok().map(|cid| format!("/ipfs/{cid}"))
    }

    /// The key that the record must be signed with: embedded, or part of the name.
    fn signer(&self, name: &PeerId) -> Result<PublicKey, Invalid> {
        if !self.public_key.is_empty() {
            return pk::decode(name, self.public_key);
        }
        const IDENTITY: u64 = 0;
        let hash = name.as_ref();
        if hash.code() == IDENTITY { pk::decode(name, hash.digest()) } else { Err(Invalid::NoKey) }
    }

    /// Where there is a V1 signature or value, all copies must equal what is signed.
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

/// Whether `value` is a record of `name` that is valid at `now`. The signature is checked last: it costs the most.
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

/// The higher sequence number, then the longer validity, then the greater bytes, as boxo decides. What is no record is
/// worse than one that is.
pub(super) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |bytes| Record::decode(bytes).ok().map(|record| (record.sequence, record.validity));
    rank(a).cmp(&rank(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests;
