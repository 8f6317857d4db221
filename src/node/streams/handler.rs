//! One connection's part: negotiates our two protocols in both directions.

use super::{Acceptor, Inbound};
use crate::{
    kad::Dht,
    node::counters::{Counter, Counters},
};
use libp2p::{
    PeerId, Stream, StreamProtocol,
    core::upgrade::{InboundUpgrade, ReadyUpgrade, UpgradeInfo},
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use std::{
    convert::Infallible,
    fmt,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Outbound streams that are being negotiated on one connection at a time. Fewer than the 256 that yamux lets be
/// unacknowledged; pooled streams need two.
const MAX_NEGOTIATING: usize = 64;

/// A peer that does not agree on a protocol within this time is taken for mute: as long as for an answer.
const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(10);

/// A request for an outbound stream.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) dht: Dht,
    pub(crate) reply: oneshot::Sender<Result<Stream, OpenError>>,
}

/// Why there is no outbound stream.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The peer does not speak the protocol.
    Unsupported,
    Timeout(Duration),
    Io(std::io::Error),
}

/// The handler of one connection.
pub(crate) struct Handler {
    peer: PeerId,
    acceptor: Acceptor,
    /// Inbound streams of this connection, and of the process.
    limits: (Arc<Semaphore>, Arc<Semaphore>),
    requests: mpsc::Receiver<Open>,
    negotiating: usize,
    counters: Arc<Counters>,
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("streams::Handler").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Handler {
    pub(super) fn new(
        peer: PeerId,
        acceptor: Acceptor,
        limits: (Arc<Semaphore>, Arc<Semaphore>),
        requests: mpsc::Receiver<Open>,
        counters: Arc<Counters>,
    ) -> Self {
        Self { peer, acceptor, limits, requests, negotiating: 0, counters }
    }

    fn accept(&self, stream: Stream, dht: Dht) {
        let Ok(of_connection) = self.limits.0.clone().try_acquire_owned() else {
            return self.counters.add(Counter::StreamsOverConnectionLimit);
        };
        let Ok(of_process) = self.limits.1.clone().try_acquire_owned() else {
            return self.counters.add(Counter::StreamsOverProcessLimit);
        };
        self.counters.add(Counter::StreamsServed);
        (self.acceptor)(Inbound { peer: self.peer, dht, stream, permits: (of_connection, of_process) });
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = EitherDht;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = oneshot::Sender<Result<Stream, OpenError>>;

    fn listen_protocol(&self) -> SubstreamProtocol<EitherDht, ()> {
        SubstreamProtocol::new(EitherDht, ())
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Infallible>> {
        // At the limit nothing is polled: the end of a negotiation polls the handler again.
        while self.negotiating < MAX_NEGOTIATING {
            match self.requests.poll_recv(cx) {
                Poll::Ready(Some(open)) if open.reply.is_closed() => {}
                Poll::Ready(Some(Open { dht, reply })) => {
                    self.negotiating += 1;
                    let upgrade = ReadyUpgrade::new(dht.protocol());
                    let protocol = SubstreamProtocol::new(upgrade, reply).with_timeout(NEGOTIATION_TIMEOUT);
                    return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
                }
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, EitherDht, ReadyUpgrade<StreamProtocol>, (), Self::OutboundOpenInfo>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: (stream, dht), .. }) => {
                self.accept(stream, dht);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                self.negotiating -= 1;
                // Whoever asked may have given up: then the stream is dropped here.
                let _ = info.send(Ok(protocol));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                self.negotiating -= 1;
                let _ = info.send(Err(match error {
                    StreamUpgradeError::Timeout => OpenError::Timeout(NEGOTIATION_TIMEOUT),
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    StreamUpgradeError::Apply(never) => match never {},
                    StreamUpgradeError::Io(error) => OpenError::Io(error),
                }));
            }
            _ => {}
        }
    }
}

/// Accepts both protocols and tells which one was chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EitherDht;

impl UpgradeInfo for EitherDht {
    type Info = StreamProtocol;
    type InfoIter = [StreamProtocol; 2];

    fn protocol_info(&self) -> Self::InfoIter {
        Dht::ALL.map(Dht::protocol)
    }
}

impl InboundUpgrade<Stream> for EitherDht {
    type Output = (Stream, Dht);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, chosen: StreamProtocol) -> Self::Future {
        let dht = if chosen == Dht::Lan.protocol() { Dht::Lan } else { Dht::Wan };
        ready(Ok((stream, dht)))
    }
}
