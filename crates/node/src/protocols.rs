//! The protocol ids of streams that this node opens and takes.

use crate::kad::Dht;
use libp2p::StreamProtocol;

/// AutoNAT v1.
pub(crate) const AUTONAT_V1: StreamProtocol = StreamProtocol::new("/libp2p/autonat/1.0.0");

/// AutoNAT v2, where a server is asked.
pub(crate) const AUTONAT_V2_REQUEST: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-request");

/// AutoNAT v2, where a server shows that it reached us.
pub(crate) const AUTONAT_V2_DIAL_BACK: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-back");

/// The protocol id of a DHT, as libp2p has it.
pub(crate) const fn of(dht: Dht) -> StreamProtocol {
    StreamProtocol::new(dht.protocol())
}
