//! The same messages, decoded with `prost`, for comparison in the decoder's tests and fuzz target.
#![allow(missing_docs, reason = "for tests and fuzz targets")]

use super::{Fields, Message as Ours, MessageType, RawPeer, Record as OurRecord, field};
use prost::Message as _;

#[derive(Clone, PartialEq, prost::Message)]
pub struct Message {
    #[prost(int32, tag = "1")]
    pub kind: i32,
    #[prost(bytes = "vec", tag = "2")]
    pub key: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    pub record: Option<Record>,
    #[prost(message, repeated, tag = "8")]
    pub closer_peers: Vec<Peer>,
    #[prost(message, repeated, tag = "9")]
    pub provider_peers: Vec<Peer>,
    #[prost(int32, tag = "10")]
    pub cluster_level_raw: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Peer {
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub addrs: Vec<Vec<u8>>,
    #[prost(int32, tag = "3")]
    pub connection: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Record {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
    #[prost(string, tag = "5")]
    pub time_received: String,
}

/// Panics unless our decoder and `prost` agree on these bytes, apart from what ours refuses on purpose.
pub fn agrees(bytes: &[u8]) {
    match (Ours::decode(bytes), Message::decode(bytes)) {
        (Ok(ours), Ok(theirs)) => assert_eq!(as_prost_sees(&ours), without_ignored(theirs)),
        (Ok(ours), Err(error)) => panic!("prost refuses {ours:?}: {error}"),
        (Err(_), Ok(theirs)) => {
            let unknown_type = !(0..6).contains(&theirs.kind);
            // Ours refuses an unknown type even if a later field overrides it.
            let on_purpose = unknown_type || uses_what_we_refuse(bytes) || has_unknown_type(bytes);
            assert!(on_purpose, "prost takes {theirs:?}");
        }
        (Err(_), Err(_)) => {}
    }
}

/// Converts a message of our decoder into one of `prost`.
fn as_prost_sees(message: &Ours<'_>) -> Message {
    let peer = |peer: RawPeer<'_>| Peer {
        id: peer.id.to_vec(),
        addrs: peer.addrs().map(<[u8]>::to_vec).collect(),
        connection: 0,
    };
    // `Message::decode` has decoded the record once.
    let record = message.record.and_then(|body| OurRecord::decode(body).ok()).map(|record| Record {
        key: record.key.to_vec(),
        value: record.value.to_vec(),
        time_received: record.time_received.to_owned(),
    });
    Message {
        kind: message.kind as i32,
        key: message.key.to_vec(),
        record,
        closer_peers: message.closer_peers().map(peer).collect(),
        provider_peers: message.provider_peers().map(peer).collect(),
        cluster_level_raw: 0,
    }
}

/// Sets the fields that our decoder ignores to their defaults.
fn without_ignored(mut message: Message) -> Message {
    message.cluster_level_raw = 0;
    for peer in message.closer_peers.iter_mut().chain(&mut message.provider_peers) {
        peer.connection = 0;
    }
    message
}

/// Returns whether `bytes` contain groups or a second record, which protobuf allows and we refuse. May be true for
/// malformed bytes too.
fn uses_what_we_refuse(bytes: &[u8]) -> bool {
    fn group(bytes: &[u8], nested: bool) -> bool {
        let (mut rest, mut records) = (bytes, 0);
        while !rest.is_empty() {
            let Ok((number, wire_type)) = prost::encoding::decode_key(&mut rest) else { return false };
            if matches!(wire_type, prost::encoding::WireType::StartGroup) {
                return true;
            }
            let before = rest;
            let context = prost::encoding::DecodeContext::default();
            if prost::encoding::skip_field(wire_type, number, &mut rest, context).is_err() {
                return false;
            }
            if nested && matches!(wire_type, prost::encoding::WireType::LengthDelimited) {
                records += usize::from(number == 3);
                let mut inner = &before[..before.len() - rest.len()];
                let _ = prost::encoding::decode_varint(&mut inner);
                if records > 1 || (matches!(number, 3 | 8 | 9) && group(inner, false)) {
                    return true;
                }
            }
        }
        false
    }
    group(bytes, true)
}

fn has_unknown_type(bytes: &[u8]) -> bool {
    Fields::new(bytes).flatten().any(|(number, value)| {
        number == field::TYPE && value.varint().is_ok_and(|kind| MessageType::from_wire(kind).is_none())
    })
}
