//! A peer that advertises the DHT and does with its streams whatever the test wants: nothing at all, say.
#![allow(dead_code, missing_docs, clippy::unwrap_used, reason = "each user needs a part of it")]

use dhtstore::kad::{
    Dht, PeerInfo,
    message::{self, EncodedPeer, Message, MessageType},
};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, SwarmBuilder,
    core::upgrade::{DeniedUpgrade, InboundUpgrade, UpgradeInfo},
    core::{Endpoint, transport::PortUse},
    identify,
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
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// Takes each inbound stream of `/ipfs/kad/1.0.0`, with the peer that opened it.
pub type Serve = Arc<dyn Fn(PeerId, Stream) + Send + Sync>;

/// Starts a peer on TCP over loopback; it runs until the runtime ends.
pub async fn start(keypair: Keypair, serve: Serve) -> PeerInfo {
    let identify = identify::Config::new("ipfs/0.1.0".to_owned(), keypair.public());
    let behaviour = Behaviour { stub: Stub { serve }, identify: identify::Behaviour::new(identify) };
    let mut swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_| behaviour)
        .unwrap()
        .build();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    let info = PeerInfo { id: *swarm.local_peer_id(), addrs: vec![address] };
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    info
}

/// Holds its streams open and never answers.
pub fn mute() -> Serve {
    let held = std::sync::Mutex::new(Vec::new());
    Arc::new(move |_, stream| held.lock().unwrap().push(stream))
}

/// Answers each FIND_NODE, so long `after` it came, with the peers that `closer` names for its target.
pub fn answering(after: Duration, closer: impl Fn(&[u8]) -> Vec<PeerInfo> + Send + Sync + 'static) -> Serve {
    let closer = Arc::new(closer);
    Arc::new(move |_, mut stream| {
        let closer = closer.clone();
        tokio::spawn(async move {
            while let Some(target) = read_target(&mut stream).await {
                tokio::time::sleep(after).await;
                let named: Vec<_> = closer(&target).iter().map(|p| EncodedPeer::new(&p.id, &p.addrs)).collect();
                let answer = message::answer(MessageType::FindNode, b"", None, [], &named);
                if stream.write_all(&answer).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
        });
    })
}

/// The key of the next request; `None` at the end of the stream.
async fn read_target(stream: &mut Stream) -> Option<Vec<u8>> {
    let (mut length, mut shift, mut byte) = (0, 0, [0x80]);
    while byte[0] & 0x80 != 0 {
        stream.read_exact(&mut byte).await.ok()?;
        length |= usize::from(byte[0] & 0x7f) << shift;
        shift += 7;
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Message::decode(&body).ok()?.key.to_vec())
}

/// Ends its streams at once.
pub fn refusing() -> Serve {
    Arc::new(|_, stream| drop(stream))
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    stub: Stub,
    identify: identify::Behaviour,
}

#[derive(Clone)]
struct Stub {
    serve: Serve,
}

struct StubHandler {
    peer: PeerId,
    serve: Serve,
}

/// Takes the streams of the DHT as they are.
struct Take;

impl UpgradeInfo for Take {
    type Info = StreamProtocol;
    type InfoIter = [StreamProtocol; 1];
    fn protocol_info(&self) -> Self::InfoIter {
        [Dht::Wan.protocol()]
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

impl ConnectionHandler for StubHandler {
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

impl NetworkBehaviour for Stub {
    type ConnectionHandler = StubHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(StubHandler { peer, serve: self.serve.clone() })
    }
    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(StubHandler { peer, serve: self.serve.clone() })
    }
    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}
    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }
    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}
