//! Decodes the bytes and integers of a DAG-CBOR map, and checks that the whole map is well-formed.
//!
//! The library checks that numbers are minimal, lengths definite and floats finite, and limits the depth to some 120
//! levels. Neither the library, nor go, nor this module checks the order of keys. As in go, a duplicate key is refused
//! at every depth.

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use std::{collections::BTreeMap, fmt};

/// A well-formed value.
#[derive(PartialEq, Debug)]
pub(super) enum Node<'a> {
    /// A string of bytes.
    Bytes(&'a [u8]),
    /// From -2^63 to 2^64 - 1.
    Int(i128),
    /// A map.
    Map(BTreeMap<String, Node<'a>>),
    /// Anything else; ignored.
    Other,
}

/// Decodes bytes that consist of exactly one map. The length of `bytes` bounds the number of entries.
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

    // Numbers below -2^63 are refused by default, as in go.

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
                return Err(A::Error::custom("duplicate key"));
            }
        }
        Ok(Node::Map(found))
    }

    /// Accepts a link: bytes that are a CID.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, link: D) -> Result<Node<'de>, D::Error> {
        let Node::Bytes(bytes) = link.deserialize_bytes(Anything)? else {
            return Err(D::Error::custom("link without bytes"));
        };
        cid::Cid::try_from(bytes).map(|_| Node::Other).map_err(D::Error::custom)
    }
}
