//! Records of one's own.

use super::{SIGNATURE_PREFIX, field};
use crate::{
    frame::put_varint,
    message::put_bytes,
    values::{MAX_VALUE, rfc3339},
};
use libp2p_identity::Keypair;
use serde::{Serialize, Serializer};
use std::time::Duration;

/// What a record is to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// Usually a path: `/ipfs/<cid>`.
    pub value: &'a [u8],
    /// Higher than that of the record before it. At most 2^63 - 1: go reads no larger ones.
    pub sequence: u64,
    /// The last moment at which it is valid, counted from the Unix epoch; at most the end of the year 9999. The network
    /// forgets it after 48 h anyway.
    pub validity: Duration,
    /// For how long resolvers may keep it: cut off at 292 years. The specification suggests five minutes.
    pub ttl: Duration,
}

/// Why there is no record.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CreateError {
    /// Over [`MAX_VALUE`].
    #[error("the record would have {0} bytes, more than 10240: point it at less")]
    TooLong(usize),
    /// go could not read it.
    #[error("sequence number {0} is over 2^63 - 1")]
    SequenceTooLarge(u64),
    /// RFC 3339 has four digits for the year.
    #[error("valid beyond the year 9999")]
    ValidityTooLate,
    /// From the identity library.
    #[error("cannot sign: {0}")]
    Signing(String),
}

/// The signed part, its keys by length, then alphabet.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Data<'a> {
    #[serde(rename = "TTL")]
    ttl: u64,
    value: Bytes<'a>,
    sequence: u64,
    validity: Bytes<'a>,
    validity_type: u64,
}

struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// The record of `keypair`'s own name, with both signatures, byte for byte as boxo makes it.
///
/// The same every time: RSA with PKCS#1 v1.5 and Ed25519 need no randomness, ECDSA and secp256k1 draw theirs from what is
/// signed. (go's ECDSA does not.)
pub fn create(keypair: &Keypair, entry: &Entry<'_>) -> Result<Vec<u8>, CreateError> {
    if i64::try_from(entry.sequence).is_err() {
        return Err(CreateError::SequenceTooLarge(entry.sequence));
    }
    let validity = rfc3339::format(entry.validity).ok_or(CreateError::ValidityTooLate)?;
    let ttl = i64::try_from(entry.ttl.as_nanos()).unwrap_or(i64::MAX) as u64;
    let sign = |bytes: &[u8]| keypair.sign(bytes).map_err(|error| CreateError::Signing(error.to_string()));

    let data = Data {
        ttl,
        value: Bytes(entry.value),
        sequence: entry.sequence,
        validity: Bytes(validity.as_bytes()),
        validity_type: 0,
    };
    let data = serde_ipld_dagcbor::to_vec(&data).map_err(|error| CreateError::Signing(error.to_string()))?;
    let signature_v1 = sign(&[entry.value, validity.as_bytes(), b"EOL"].concat())?;
    let signature_v2 = sign(&[SIGNATURE_PREFIX, &data].concat())?;
    let public = keypair.public();
    let public_key = public.encode_protobuf();
    // A short key is part of the name.
    let inlined = public.to_peer_id().as_ref().digest() == public_key;

    let mut record = Vec::with_capacity(512);
    if !entry.value.is_empty() {
        put_bytes(&mut record, field::VALUE, entry.value);
    }
    put_bytes(&mut record, field::SIGNATURE_V1, &signature_v1);
    put_number(&mut record, field::VALIDITY_TYPE, 0);
    put_bytes(&mut record, field::VALIDITY, validity.as_bytes());
    put_number(&mut record, field::SEQUENCE, entry.sequence);
    put_number(&mut record, field::TTL, ttl);
    if !inlined {
        put_bytes(&mut record, field::PUB_KEY, &public_key);
    }
    put_bytes(&mut record, field::SIGNATURE_V2, &signature_v2);
    put_bytes(&mut record, field::DATA, &data);
    if record.len() > MAX_VALUE { Err(CreateError::TooLong(record.len())) } else { Ok(record) }
}

fn put_number(record: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(record, u64::from(number << 3));
    put_varint(record, value);
}
