//! A bare listener: libp2p's transports, or ours, and a swarm whose only behaviour accepts streams of the WAN DHT.

use dhtstore_testkit::inbound::Inbound;
pub use dhtstore_testkit::inbound::Serve;
use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, SwarmBuilder, Transport,
    core::{muxing::StreamMuxerBox, transport::Boxed, upgrade::Version},
    identity::Keypair,
    noise, quic,
    swarm::SwarmEvent,
    tcp, yamux,
};
use std::time::Duration;

/// Maximum number of streams of a connection: as many as any benchmark opens.
const MAX_STREAMS: usize = 4096;

/// The implementation of yamux over TCP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Yamux {
    Libp2p,
    Ours,
}

/// Listens on these addresses, over TCP and QUIC, until the runtime ends. Returns the addresses with their ports.
pub async fn listen(keypair: Keypair, addrs: &[Multiaddr], yamux: Yamux, serve: Serve) -> Vec<Multiaddr> {
    let mut swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_other_transport(|keypair| transport(keypair, yamux))
        .unwrap()
        .with_behaviour(|_| Inbound { serve })
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

fn transport(keypair: &Keypair, yamux: Yamux) -> Boxed<(PeerId, StreamMuxerBox)> {
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(keypair).unwrap());
    let tcp = match yamux {
        Yamux::Libp2p => {
            let mut muxer = yamux::Config::default();
            muxer.set_max_num_streams(MAX_STREAMS);
            tcp.multiplex(muxer).map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))).boxed()
        }
        Yamux::Ours => {
            let muxer = dhtstore::transport::muxer::Yamux::with_max_streams(MAX_STREAMS);
            tcp.multiplex(muxer).map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))).boxed()
        }
    };
    let quic = quic::tokio::Transport::new(quic::Config::new(keypair));
    let quic = quic.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    tcp.or_transport(quic).map(|either, _| either.into_inner()).boxed()
}
