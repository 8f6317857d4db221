//! A bare listener: libp2p's transports and a swarm whose only behaviour hands streams of the WAN DHT out.

#[path = "../../tests/support/inbound.rs"]
mod inbound;

use futures::StreamExt;
use inbound::Inbound;
pub use inbound::Serve;
use libp2p::{Multiaddr, SwarmBuilder, identity::Keypair, noise, swarm::SwarmEvent, tcp, yamux};
use std::time::Duration;

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
