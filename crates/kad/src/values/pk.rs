//! Values of `/pk/`: public keys that are too long to be part of their peer ids (VAL-2).

use super::Invalid;
use libp2p_identity::{
    PeerId, {KeyType, PublicKey},
};
use std::ops::RangeInclusive;

/// The namespace. In a key, a binary peer id follows it.
pub const PREFIX: &[u8] = b"/pk/";

/// Bits of an RSA modulus that go accepts, and for which signatures can be checked.
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;
/// Bits of an RSA exponent that go accepts.
const RSA_EXPONENT_BITS: RangeInclusive<usize> = 2..=31;

/// Returns the key under which a peer's public key is stored.
pub fn key(peer: &PeerId) -> Vec<u8> {
    [PREFIX, &peer.to_bytes()].concat()
}

/// Decodes the public key of `peer` from its protobuf.
///
/// Accepts Ed25519, secp256k1, ECDSA over P-256, and RSA of 2048 to 8192 bits, only in the form that hashes to the peer
/// id. So each peer has exactly one valid value. go also accepts other ECDSA curves, Ed25519 keys that are not points
/// of the curve, and protobufs with fields swapped or added.
pub fn decode(peer: &PeerId, bytes: &[u8]) -> Result<PublicKey, Invalid> {
    let public = PublicKey::try_decode_protobuf(bytes).map_err(|_| Invalid::BadKey)?;
    if public.key_type() == KeyType::RSA {
        let rsa = public.clone().try_into_rsa().map_err(|_| Invalid::BadKey)?;
        let (modulus, exponent) = rsa_bits(&rsa.encode_pkcs1()).ok_or(Invalid::BadKey)?;
        if !RSA_BITS.contains(&modulus) || !RSA_EXPONENT_BITS.contains(&exponent) {
            return Err(Invalid::BadKey);
        }
    }
    if public.encode_protobuf() != bytes {
        return Err(Invalid::BadKey);
    }
    if public.to_peer_id() == *peer { Ok(public) } else { Err(Invalid::WrongKey) }
}

/// Returns the bits of modulus and exponent of a PKCS#1 `RSAPublicKey`, which the identity library keeps unchecked.
fn rsa_bits(der: &[u8]) -> Option<(usize, usize)> {
    let (body, []) = tagged(0x30, der)? else { return None };
    let (modulus, rest) = tagged(0x02, body)?;
    let (exponent, []) = tagged(0x02, rest)? else { return None };
    Some((positive_bits(modulus)?, positive_bits(exponent)?))
}

/// Returns the content of a DER value with this tag, and the bytes after it. Accepts minimal lengths below 64 KiB.
fn tagged(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (length, rest) = match *rest {
        [0x82, high, low, ref rest @ ..] if high > 0 => (usize::from(u16::from_be_bytes([high, low])), rest),
        [0x81, length, ref rest @ ..] if length > 0x7f => (usize::from(length), rest),
        [length, ref rest @ ..] if length <= 0x7f => (usize::from(length), rest),
        _ => return None,
    };
    if found == tag { rest.split_at_checked(length) } else { None }
}

/// Returns the bits of a minimal positive DER INTEGER. A leading zero byte is allowed only before a byte whose high bit
/// is set, which would otherwise be a sign.
fn positive_bits(integer: &[u8]) -> Option<usize> {
    let digits = match *integer {
        [0, ref digits @ ..] if digits.first()? > &0x7f => digits,
        [1..=0x7f, ..] => integer,
        _ => return None,
    };
    Some(digits.len() * 8 - digits.first()?.leading_zeros() as usize)
}
