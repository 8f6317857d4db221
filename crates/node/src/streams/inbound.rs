//! Streams that peers open, and their acceptor.

use super::together::Serving;
use crate::kad::Dht;
use libp2p::{PeerId, Stream};
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// The protocol of an inbound stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Protocol {
    Dht(Dht),
    /// AutoNAT v2: a peer proves that it could dial us.
    DialBack,
}

/// A stream that a peer opened.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) peer: PeerId,
    pub(crate) protocol: Protocol,
    pub(crate) stream: Stream,
    /// Places within the limits of the connection and of the process, held while the stream is served.
    pub(crate) permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

/// Accepts an inbound stream and returns the work to do for it, if any. Runs on the task of the connection and must not
/// block.
pub(crate) type Acceptor = Arc<dyn Fn(Inbound) -> Option<Serving> + Send + Sync>;
