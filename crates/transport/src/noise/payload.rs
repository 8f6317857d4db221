//! The payload of the second and third message of a handshake (noise-libp2p, "The libp2p Handshake Payload").

use super::invalid;
use crate::upgrade::Muxer;
use prost::Message;
use std::io;

/// Who sends a handshake message, and what it offers.
#[derive(Clone, PartialEq, Message)]
pub struct Payload {
    /// The protobuf of the sender's public key.
    #[prost(bytes = "vec", optional, tag = "1")]
    identity_key: Option<Vec<u8>>,
    /// The signature of that key over the static key.
    #[prost(bytes = "vec", optional, tag = "2")]
    identity_sig: Option<Vec<u8>>,
    #[prost(message, optional, tag = "4")]
    extensions: Option<Extensions>,
}

#[derive(Clone, PartialEq, Message)]
struct Extensions {
    /// In order of preference ("inlined muxer negotiation").
    #[prost(string, repeated, tag = "2")]
    stream_muxers: Vec<String>,
}

impl Payload {
    pub fn ours(identity_key: Vec<u8>, identity_sig: Vec<u8>) -> Self {
        let extensions = Extensions { stream_muxers: vec![Muxer::YAMUX.into()] };
        Self { identity_key: Some(identity_key), identity_sig: Some(identity_sig), extensions: Some(extensions) }
    }

    /// # Errors
    /// The bytes are not a payload.
    pub fn decode(bytes: &[u8]) -> io::Result<Self> {
        Message::decode(bytes).map_err(invalid)
    }

    pub fn encoded(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    pub fn offers(&self, muxer: &str) -> bool {
        self.extensions.as_ref().is_some_and(|extensions| extensions.stream_muxers.iter().any(|name| name == muxer))
    }
}
