//! The messages of AutoNAT v1 (`autonat/README.md` of the libp2p specifications) and v2 (`autonat/autonat-v2.md`) that
//! a client needs, without their length prefix.

use crate::kad::{
    frame::put_varint,
    message::{
        DecodeError,
        wire::{Fields, Value},
    },
};
use libp2p::{Multiaddr, PeerId};

/// Most padding bytes in one message.
const MAX_PADDING: usize = 4096;

/// Padding bytes that a server may request before it dials an IP address other than the one at which it sees us. They
/// make it costly to have servers attack a third party.
pub(super) const PADDING: std::ops::RangeInclusive<u64> = 30_000..=100_000;

/// The verdict of a server on our addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Said {
    /// It reached us.
    Reached,
    /// It tried and could not reach us.
    NotReached,
    /// No verdict: it did not try.
    Nothing,
}

/// An answer of a v2 server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    Dialled(Said),
    /// It first wants this number of padding bytes.
    Padding(u64),
}

/// Encodes a v1 request to dial us at any of `addrs`.
pub(super) fn v1_request(local: &PeerId, addrs: &[Multiaddr]) -> Vec<u8> {
    let mut peer = Vec::new();
    put_bytes(&mut peer, 1, &local.to_bytes());
    for addr in addrs {
        put_bytes(&mut peer, 2, addr.as_ref());
    }
    let mut dial = Vec::new();
    put_bytes(&mut dial, 1, &peer);
    let mut message = Vec::new();
    put_number(&mut message, 1, 0);
    put_bytes(&mut message, 2, &dial);
    message
}

/// Decodes a v1 answer.
pub(super) fn v1_answer(body: &[u8]) -> Result<Said, DecodeError> {
    const OK: u64 = 0;
    const DIAL_ERROR: u64 = 100;
    let response = bytes_of(body, 3)?.ok_or(DecodeError("no answer to the dial request"))?;
    Ok(match number_of(response, 1)? {
        Some(OK) => Said::Reached,
        Some(DIAL_ERROR) => Said::NotReached,
        _ => Said::Nothing,
    })
}

/// Encodes a v2 request to dial us at `addr` and to send `nonce` there.
pub(super) fn v2_request(addr: &Multiaddr, nonce: u64) -> Vec<u8> {
    let mut dial = Vec::new();
    put_bytes(&mut dial, 1, addr.as_ref());
    put_fixed64(&mut dial, 2, nonce);
    wrapped(1, &dial)
}

/// Encodes one v2 message of padding and returns the number of padding bytes in it.
pub(super) fn v2_padding(left: u64) -> (Vec<u8>, u64) {
    let size = usize::try_from(left).unwrap_or(MAX_PADDING).min(MAX_PADDING);
    let mut data = Vec::with_capacity(size + 8);
    put_bytes(&mut data, 1, &vec![0; size]);
    (wrapped(4, &data), size as u64)
}

/// Decodes a v2 answer to a request that names one address.
pub(super) fn v2_answer(body: &[u8]) -> Result<Answer, DecodeError> {
    const OK: u64 = 200;
    const DIALLED: u64 = 200;
    const DIAL_ERROR: u64 = 100;
    if let Some(wants) = bytes_of(body, 3)? {
        return Ok(Answer::Padding(number_of(wants, 2)?.unwrap_or(0)));
    }
    let response = bytes_of(body, 2)?.ok_or(DecodeError("no answer to the dial request"))?;
    if number_of(response, 1)? != Some(OK) || number_of(response, 2)?.unwrap_or(0) != 0 {
        return Ok(Answer::Dialled(Said::Nothing));
    }
    Ok(Answer::Dialled(match number_of(response, 3)? {
        Some(DIALLED) => Said::Reached,
        Some(DIAL_ERROR) => Said::NotReached,
        // It connected but could not open the stream: that proves nothing.
        _ => Said::Nothing,
    }))
}

/// Decodes the nonce that a v2 server sends when it dials back.
pub(super) fn dial_back(body: &[u8]) -> Result<u64, DecodeError> {
    for field in Fields::new(body) {
        if let (1, Value::Fixed(bytes)) = field?
            && let Ok(bytes) = bytes.try_into()
        {
            return Ok(u64::from_le_bytes(bytes));
        }
    }
    Err(DecodeError("no nonce"))
}

/// The v2 message that confirms a nonce. Status OK is 0, which proto3 omits, so the message is empty.
pub(super) const DIAL_BACK_OK: &[u8] = &[];

/// Returns the last field with this number that holds bytes.
fn bytes_of(body: &[u8], wanted: u32) -> Result<Option<&[u8]>, DecodeError> {
    let mut found = None;
    for field in Fields::new(body) {
        if let (number, Value::Bytes(bytes)) = field?
            && number == wanted
        {
            found = Some(bytes);
        }
    }
    Ok(found)
}

fn number_of(body: &[u8], wanted: u32) -> Result<Option<u64>, DecodeError> {
    let mut found = None;
    for field in Fields::new(body) {
        if let (number, Value::Varint(value)) = field?
            && number == wanted
        {
            found = Some(value);
        }
    }
    Ok(found)
}

fn wrapped(number: u32, inner: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(inner.len() + 4);
    put_bytes(&mut message, number, inner);
    message
}

fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number << 3));
    put_varint(out, value);
}

fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number << 3 | 2));
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_fixed64(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number << 3 | 1));
    out.extend_from_slice(&value.to_le_bytes());
}

/// Prefixes a message with its length.
pub(super) fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(body.len() + 3);
    put_varint(&mut frame, body.len() as u64);
    frame.extend_from_slice(body);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    struct V2 {
        #[prost(message, optional, tag = "1")]
        request: Option<V2Request>,
        #[prost(message, optional, tag = "2")]
        response: Option<V2Response>,
        #[prost(message, optional, tag = "3")]
        wants: Option<V2Wants>,
        #[prost(message, optional, tag = "4")]
        padding: Option<V2Padding>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct V2Request {
        #[prost(bytes = "vec", repeated, tag = "1")]
        addrs: Vec<Vec<u8>>,
        #[prost(fixed64, tag = "2")]
        nonce: u64,
    }
    #[derive(Clone, PartialEq, Message)]
    struct V2Response {
        #[prost(int32, tag = "1")]
        status: i32,
        #[prost(uint32, tag = "2")]
        index: u32,
        #[prost(int32, tag = "3")]
        dial: i32,
    }
    #[derive(Clone, PartialEq, Message)]
    struct V2Wants {
        #[prost(uint32, tag = "1")]
        index: u32,
        #[prost(uint64, tag = "2")]
        bytes: u64,
    }
    #[derive(Clone, PartialEq, Message)]
    struct V2Padding {
        #[prost(bytes = "vec", tag = "1")]
        data: Vec<u8>,
    }
    #[derive(Clone, PartialEq, Message)]
    struct DialBack {
        #[prost(fixed64, tag = "1")]
        nonce: u64,
    }

    fn response(status: i32, dial: i32) -> Answer {
        let message = V2 { response: Some(V2Response { status, index: 0, dial }), ..V2::default() };
        v2_answer(&message.encode_to_vec()).unwrap()
    }

    #[test]
    fn what_we_write_prost_reads() {
        let addr: Multiaddr = "/ip4/192.0.2.1/udp/4001/quic-v1".parse().unwrap();
        let request = V2::decode(&v2_request(&addr, u64::MAX - 1)[..]).unwrap().request.unwrap();
        assert_eq!((request.addrs, request.nonce), (vec![addr.to_vec()], u64::MAX - 1));
        let mut left = 10_000;
        while left > 0 {
            let (message, in_it) = v2_padding(left);
            assert_eq!(V2::decode(&message[..]).unwrap().padding.unwrap().data.len() as u64, in_it);
            left -= in_it;
        }
    }

    #[test]
    fn what_prost_writes_we_read() {
        assert_eq!(response(200, 200), Answer::Dialled(Said::Reached));
        assert_eq!(response(200, 100), Answer::Dialled(Said::NotReached));
        for (status, dial) in [(200, 101), (200, 0), (0, 0), (100, 0), (101, 100), (7, 200)] {
            assert_eq!(response(status, dial), Answer::Dialled(Said::Nothing), "{status} {dial}");
        }
        let wants = V2 { wants: Some(V2Wants { index: 0, bytes: 40_000 }), ..V2::default() };
        assert_eq!(v2_answer(&wants.encode_to_vec()).unwrap(), Answer::Padding(40_000));
        assert_eq!(dial_back(&DialBack { nonce: 5 << 60 }.encode_to_vec()).unwrap(), 5 << 60);
        assert_eq!(dial_back(&[]), Err(DecodeError("no nonce")));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = (v1_answer(&body), v2_answer(&body), dial_back(&body));
        }
    }
}
