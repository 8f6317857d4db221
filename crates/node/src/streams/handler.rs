//! The handler of one connection. It negotiates our protocols in both directions, the inbound ones as the node's mode
//! allows (MODE-1). A change of mode wakes the connection; libp2p then sees the new list of protocols, and identify
//! pushes it to the peer at once.

use super::{
    inbound::{Acceptor, Inbound, Protocol},
    together::Together,
};
use crate::{
    kad::{Dht, mode::Decision},
    metrics::Metrics,
    peers::connections::{Connections, Open, OpenError},
    protocols::{self, AUTONAT_V2_DIAL_BACK as DIAL_BACK},
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
    future::{Ready, pending, ready},
    iter::Flatten,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::ReusableBoxFuture;

/// Most outbound streams under negotiation on one connection. Yamux allows 256 unacknowledged ones; pooled streams need
/// two.
const MAX_NEGOTIATING: usize = 64;

/// Time-out of negotiating a protocol, as long as that of an answer.
const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Handler {
    peer: PeerId,
    acceptor: Acceptor,
    /// Runs the work for the inbound streams.
    together: Together,
    /// Places for inbound streams: of this connection, and of the process.
    limits: (Arc<Semaphore>, Arc<Semaphore>),
    requests: mpsc::Receiver<Open>,
    negotiating: usize,
    metrics: Arc<Metrics>,
    connections: Connections,
    listens: Listens,
    /// Ready when the node's mode has changed; `None` once the node is gone.
    mode: ReusableBoxFuture<'static, Option<watch::Receiver<Decision>>>,
}

async fn changed(mut mode: watch::Receiver<Decision>) -> Option<watch::Receiver<Decision>> {
    mode.changed().await.ok()?;
    Some(mode)
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
        metrics: Arc<Metrics>,
        connections: Connections,
        (mut mode, dial_back): (watch::Receiver<Decision>, bool),
    ) -> Self {
        let listens = Listens { decision: *mode.borrow_and_update(), dial_back };
        let mode = ReusableBoxFuture::new(changed(mode));
        let together = Together::new(limits.0.available_permits());
        Self { peer, acceptor, together, limits, requests, negotiating: 0, metrics, connections, listens, mode }
    }

    fn accept(&mut self, stream: Stream, protocol: Protocol) {
        let alone = self.limits.0.available_permits() == self.together.max;
        let Ok(of_connection) = self.limits.0.clone().try_acquire_owned() else {
            return self.metrics.streams_over_connection_limit.inc();
        };
        let Ok(of_process) = self.limits.1.clone().try_acquire_owned() else {
            return self.metrics.streams_over_process_limit.inc();
        };
        if matches!(protocol, Protocol::Dht(_)) {
            self.metrics.streams_served.inc();
        }
        let inbound = Inbound { peer: self.peer, protocol, stream, permits: (of_connection, of_process) };
        if let Some(serving) = (self.acceptor)(inbound) {
            self.together.spawn(serving, alone);
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Listens;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = oneshot::Sender<Result<Stream, OpenError>>;

    fn listen_protocol(&self) -> SubstreamProtocol<Listens, ()> {
        SubstreamProtocol::new(self.listens, ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.connections.is_kept(&self.peer)
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Infallible>> {
        while let Poll::Ready(changed_mode) = self.mode.poll(cx) {
            match changed_mode {
                Some(mut mode) => {
                    self.listens.decision = *mode.borrow_and_update();
                    self.mode.set(changed(mode));
                }
                None => self.mode.set(pending()),
            }
        }
        // At the limit the queue is not polled: the end of a negotiation polls the handler again.
        while self.negotiating < MAX_NEGOTIATING {
            match self.requests.poll_recv(cx) {
                Poll::Ready(Some(open)) if open.reply.is_closed() => {}
                Poll::Ready(Some(Open { protocol, reply })) => {
                    self.negotiating += 1;
                    let upgrade = ReadyUpgrade::new(protocol);
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
        event: ConnectionEvent<'_, Listens, ReadyUpgrade<StreamProtocol>, (), Self::OutboundOpenInfo>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol), ..
            }) => {
                self.accept(stream, protocol);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                self.negotiating -= 1;
                // If the requester has given up, the stream is dropped here.
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

/// The protocols that the connection advertises and accepts now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listens {
    decision: Decision,
    /// Whether we ask other peers to dial us back.
    dial_back: bool,
}

impl UpgradeInfo for Listens {
    type Info = StreamProtocol;
    type InfoIter = Flatten<std::array::IntoIter<Option<StreamProtocol>, 3>>;

    fn protocol_info(&self) -> Self::InfoIter {
        let [wan, lan] = Dht::ALL.map(|dht| self.decision.serves(dht).then(|| protocols::of(dht)));
        [wan, lan, self.dial_back.then_some(DIAL_BACK)].into_iter().flatten()
    }
}

impl InboundUpgrade<Stream> for Listens {
    type Output = (Stream, Protocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, chosen: StreamProtocol) -> Self::Future {
        let dht = Dht::ALL.into_iter().find(|dht| protocols::of(*dht) == chosen);
        ready(Ok((stream, dht.map_or(Protocol::DialBack, Protocol::Dht))))
    }
}
