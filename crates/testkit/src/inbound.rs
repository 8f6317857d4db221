//! A libp2p behaviour that passes on the inbound streams of the WAN DHT, and does nothing else.

use dhtstore_kad::Dht;
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::upgrade::{DeniedUpgrade, InboundUpgrade, UpgradeInfo},
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::{ConnectionEvent, FullyNegotiatedInbound},
    },
};
use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

/// Receives each inbound stream of `/ipfs/kad/1.0.0`, with the peer that opened it.
pub type Serve = Arc<dyn Fn(PeerId, Stream) + Send + Sync>;

/// The behaviour.
#[derive(Clone)]
pub struct Inbound {
    /// Called with each stream.
    pub serve: Serve,
}

/// Passes on the streams of one connection.
pub struct InboundHandler {
    peer: PeerId,
    serve: Serve,
}

/// Accepts the protocol of the DHT, and leaves the stream as it is.
pub struct Take;

impl UpgradeInfo for Take {
    type Info = StreamProtocol;
    type InfoIter = [StreamProtocol; 1];
    fn protocol_info(&self) -> Self::InfoIter {
        [StreamProtocol::new(Dht::Wan.protocol())]
    }
}

impl InboundUpgrade<Stream> for Take {
    type Output = Stream;
    type Error = Infallible;
    type Future = Ready<Result<Stream, Infallible>>;
    fn upgrade_inbound(self, stream: Stream, _: StreamProtocol) -> Self::Future {
        ready(Ok(stream))
    }
}

impl ConnectionHandler for InboundHandler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Take;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Take, ()> {
        SubstreamProtocol::new(Take, ())
    }
    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), Infallible>> {
        Poll::Pending
    }
    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }
    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Take, DeniedUpgrade, (), ()>) {
        if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) = event {
            (self.serve)(self.peer, protocol);
        }
    }
}

impl NetworkBehaviour for Inbound {
    type ConnectionHandler = InboundHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(InboundHandler { peer, serve: self.serve.clone() })
    }
    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(InboundHandler { peer, serve: self.serve.clone() })
    }
    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}
    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }
    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}
