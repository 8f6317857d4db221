//! DAG-CBOR as far as it matters here: which bytes and integers a map has, and whether all of it is well-formed.
//!
//! The library sees to minimal numbers, definite lengths, finite floats and depth (some 120 levels); the order of keys
//! it leaves to us, and go does not look at it. Keys that are there twice are refused at every depth, as in go.

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use std::{collections::BTreeMap, fmt};

/// A value, checked.
#[derive(PartialEq, Debug)]
pub(super) enum Node<'a> {
    /// A string of bytes.
    Bytes(&'a [u8]),
    /// From -2^63 to 2^64 - 1.
    Int(i128),
    /// A map.
    Map(BTreeMap<String, Node<'a>>),
    /// Anything else: it is passed over.
    Other,
}

/// The entries of a map that is all there is. Their number is bounded by the length of `bytes`.
pub(super) fn map(bytes: &[u8]) -> Option<BTreeMap<String, Node<'_>>> {
    match serde_ipld_dagcbor::from_slice(bytes) {
        Ok(Node::Map(entries)) => Some(entries),
        _ => None,
    }
}

impl<'de> Deserialize<'de> for Node<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Anything)
    }
}

struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DAG-CBOR")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Node<'de>, E> {
        Ok(Node::Other)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Node<'de>, E> {
        Ok(Node::Int(number.into()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Node<'de>, E> {
        Ok(Node::Int(number.into()))
    }

    // Larger numbers, below -2^63, are refused by default, as in go.

    fn visit_f64<E: Error>(self, _: f64) -> Result<Node<'de>, E> {
        Ok(Node::Other)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Node<'de>, E> {
        Ok(Node::Other)
    }

    fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Node<'de>, E> {
        Ok(Node::Bytes(bytes))
    }

    fn visit_none<E: Error>(self) -> Result<Node<'de>, E> {
        Ok(Node::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node<'de>, A::Error> {
        while items.next_element::<Node<'de>>()?.is_some() {}
        Ok(Node::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node<'de>, A::Error> {
        let mut found = BTreeMap::new();
        while let Some((key, value)) = entries.next_entry::<String, Node<'de>>()? {
            if found.insert(key, value).is_some() {
                return Err(A::Error::custom("key is there twice"));
            }
        }
        Ok(Node::Map(found))
    }

    /// A link: bytes that must be a CID.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, link: D) -> Result<Node<'de>, D::Error> {
        let Node::Bytes(bytes) = link.deserialize_bytes(Anything)? else {
            return Err(D::Error::custom("link without bytes"));
        };
        cid::Cid::try_from(bytes).map(|_| Node::Other).map_err(D::Error::custom)
    }
}
