//! Streams that peers open, and who takes them.

use super::together::Serving;
use crate::kad::Dht;
use libp2p::{PeerId, Stream};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// What an inbound stream speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Protocol {
    Dht(Dht),
    /// AutoNAT v2: a peer shows that it could dial us.
    DialBack,
}

/// A stream that a peer opened.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) peer: PeerId,
    pub(crate) protocol: Protocol,
    pub(crate) stream: Stream,
    /// Counts against the limits of connection and process while it lives.
    pub(crate) permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

/// Takes inbound streams: what is to be done for one, if anything. Called on a connection's task: must not block.
pub(crate) type Acceptor = Arc<dyn Fn(Inbound) -> Option<Serving> + Send + Sync>;
