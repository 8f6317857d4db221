//! A bare listener: libp2p's transports and a swarm whose only behaviour hands streams of the WAN DHT out.

use dhtstore::kad::Dht;
use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, SwarmBuilder,
    core::{
        Endpoint,
        transport::PortUse,
        upgrade::{DeniedUpgrade, ReadyUpgrade},
    },
    identity::Keypair,
    noise,
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        SubstreamProtocol, SwarmEvent, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::{ConnectionEvent, FullyNegotiatedInbound},
    },
    tcp, yamux,
};
use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// Takes an inbound stream.
pub type Serve = Arc<dyn Fn(Stream) + Send + Sync>;

/// Streams of one connection, as many as any benchmark opens.
const MAX_STREAMS: usize = 4096;

/// Listens on these addresses, over TCP and QUIC, until the runtime ends; gives the addresses with their ports.
pub async fn listen(keypair: Keypair, addrs: &[Multiaddr], serve: Serve) -> Vec<Multiaddr> {
    let mut swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, || {
            let mut muxer = yamux::Config::default();
            muxer.set_max_num_streams(MAX_STREAMS);
            muxer
        })
        .unwrap()
        .with_quic()
        .with_behaviour(|_| Accept { serve })
        .unwrap()
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(Duration::from_secs(600))
                .with_max_negotiating_inbound_streams(MAX_STREAMS)
        })
        .build();
    for addr in addrs {
        swarm.listen_on(addr.clone()).unwrap();
    }
    let mut listening = Vec::new();
    while listening.len() < addrs.len() {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            listening.push(address);
        }
    }
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    listening
}

struct Accept {
    serve: Serve,
}

struct AcceptHandler {
    serve: Serve,
}

type Kad = ReadyUpgrade<StreamProtocol>;

impl ConnectionHandler for AcceptHandler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Kad;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Kad, ()> {
        SubstreamProtocol::new(ReadyUpgrade::new(Dht::Wan.protocol()), ())
    }
    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), Infallible>> {
        Poll::Pending
    }
    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }
    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Kad, DeniedUpgrade, (), ()>) {
        if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) = event {
            (self.serve)(protocol);
        }
    }
}

impl NetworkBehaviour for Accept {
    type ConnectionHandler = AcceptHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(AcceptHandler { serve: self.serve.clone() })
    }
    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(AcceptHandler { serve: self.serve.clone() })
    }
    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}
    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }
    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}
