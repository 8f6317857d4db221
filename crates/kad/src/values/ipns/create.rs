//! Creates and signs records.

use super::{SIGNATURE_PREFIX, field};
use crate::{
    frame::put_varint,
    message::put_bytes,
    values::{MAX_VALUE, rfc3339},
};
use libp2p_identity::{Keypair, SigningError};
use serde::{Serialize, Serializer};
use std::{error::Error, time::Duration};

/// The content of a record to create.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// What the name points to, usually a path: `/ipfs/<cid>`.
    pub value: &'a [u8],
    /// Sequence number; must be higher than that of the previous record. At most 2^63 - 1, the largest that go reads.
    pub sequence: u64,
    /// The last moment at which it is valid, counted from the Unix epoch; at most the end of the year 9999. The network
    /// drops it after 48 h anyway.
    pub validity: Duration,
    /// How long resolvers may cache it; longer times are cut to 292 years. The specification suggests five minutes.
    pub ttl: Duration,
}

/// Why a record cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The record would be longer than [`MAX_VALUE`].
    #[error("the record would have {0} bytes, more than 10240; use a shorter value")]
    TooLong(usize),
    /// The sequence number is larger than go can read.
    #[error("sequence number {0} is over 2^63 - 1")]
    SequenceTooLarge(u64),
    /// The validity ends after the year 9999, for which RFC 3339 has no form.
    #[error("the validity ends after the year 9999; use a shorter lifetime")]
    ValidityTooLate,
    /// The signed data cannot be encoded.
    #[error("cannot encode the record: {0}")]
    Encoding(#[source] Box<dyn Error + Send + Sync>),
    /// The key cannot sign.
    #[error("cannot sign: {0}")]
    Signing(#[source] SigningError),
}

/// The signed part. Keys are ordered by length, then alphabetically.
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

/// Creates the record of `keypair`'s name, with both signatures, byte for byte the same as boxo's.
///
/// The same input gives the same record: RSA with PKCS#1 v1.5 and Ed25519 need no randomness, and ECDSA and secp256k1
/// derive theirs from the signed bytes. (go's ECDSA does not.)
pub fn create(keypair: &Keypair, entry: &Entry<'_>) -> Result<Vec<u8>, CreateError> {
    if i64::try_from(entry.sequence).is_err() {
        return Err(CreateError::SequenceTooLarge(entry.sequence));
    }
    let validity = rfc3339::format(entry.validity).ok_or(CreateError::ValidityTooLate)?;
    let ttl = i64::try_from(entry.ttl.as_nanos()).unwrap_or(i64::MAX) as u64;
    let sign = |bytes: &[u8]| keypair.sign(bytes).map_err(CreateError::Signing);

    let data = Data {
        ttl,
        value: Bytes(entry.value),
        sequence: entry.sequence,
        validity: Bytes(validity.as_bytes()),
        validity_type: 0,
    };
    let data = serde_ipld_dagcbor::to_vec(&data).map_err(|error| CreateError::Encoding(error.into()))?;
    let signature_v1 = sign(&[entry.value, validity.as_bytes(), b"EOL"].concat())?;
    let signature_v2 = sign(&[SIGNATURE_PREFIX, &data].concat())?;
    let public = keypair.public();
    let public_key = public.encode_protobuf();
    // A short key is part of the name and not embedded.
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
