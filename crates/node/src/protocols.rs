//! The protocol ids of the streams that this node opens and accepts.

use crate::kad::Dht;
use libp2p::StreamProtocol;

pub(crate) const AUTONAT_V1: StreamProtocol = StreamProtocol::new("/libp2p/autonat/1.0.0");

/// AutoNAT v2: on this stream a client asks a server to dial it.
pub(crate) const AUTONAT_V2_REQUEST: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-request");

/// AutoNAT v2: on this stream a server proves that it reached the client.
pub(crate) const AUTONAT_V2_DIAL_BACK: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-back");

/// Returns the protocol id of a DHT.
pub(crate) const fn of(dht: Dht) -> StreamProtocol {
    StreamProtocol::new(dht.protocol())
}
