//! A connection over TCP (noise, yamux) or QUIC, whose streams are negotiated by hand.

use super::requests;
use crate::connection::{OpenRequest, drive};
use dhtstore_kad::Dht;
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{
    Multiaddr, Transport,
    core::{
        Endpoint,
        muxing::{StreamMuxerBox, SubstreamBox},
        transport::{Boxed, DialOpts, PortUse},
        upgrade::Version,
    },
    identity::{Keypair, PeerId},
    multiaddr::Protocol,
    noise, quic, tcp, yamux,
};
use std::time::Duration;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// Time allowed for a handshake, and for the negotiation of a stream.
const PATIENCE: Duration = Duration::from_secs(20);

/// Most streams on a connection: at least what any measured server allows.
const MAX_STREAMS: usize = 4096;

/// A connection. Dropping it ends it.
pub struct Connection {
    identity: u64,
    open: mpsc::Sender<OpenRequest>,
}

impl Connection {
    /// Connects with identity number `identity`. Returns `None` if that fails.
    pub async fn open(target: Multiaddr, identity: u64) -> Option<Self> {
        let key = requests::identity(identity);
        let mut bare = Multiaddr::empty();
        target.iter().filter(|p| !matches!(p, Protocol::P2p(_))).for_each(|p| bare.push(p));
        let mut transport = transport(&key, bare.iter().any(|p| p == Protocol::QuicV1));
        let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let (_, muxer) = timeout(PATIENCE, transport.dial(bare, opts).ok()?).await.ok()?.ok()?;
        let (open, requests) = mpsc::channel(1024);
        tokio::spawn(async move {
            drive(muxer, requests).await;
            drop(transport);
        });
        Some(Self { identity, open })
    }

    /// Returns the number of its identity.
    pub fn identity(&self) -> u64 {
        self.identity
    }

    /// Opens a stream of the WAN DHT. Returns `None` if the other side drops it.
    pub async fn stream(&self) -> Option<SubstreamBox> {
        timeout(PATIENCE, self.negotiated()).await.ok()?
    }

    async fn negotiated(&self) -> Option<SubstreamBox> {
        let (reply, opened) = oneshot::channel();
        self.open.send(reply).await.ok()?;
        let mut stream = opened.await.ok()?;
        let dht = Dht::Wan.protocol();
        let lines: Vec<u8> = ["/multistream/1.0.0", dht]
            .iter()
            .flat_map(|line| [&[line.len() as u8 + 1], line.as_bytes(), b"\n"].concat())
            .collect();
        stream.write_all(&lines).await.ok()?;
        stream.flush().await.ok()?;
        let mut echo = vec![0; lines.len()];
        stream.read_exact(&mut echo).await.ok()?;
        (echo == lines).then_some(stream)
    }
}

fn transport(key: &Keypair, over_quic: bool) -> Boxed<(PeerId, StreamMuxerBox)> {
    if over_quic {
        let transport = quic::tokio::Transport::new(quic::Config::new(key));
        return transport.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer))).boxed();
    }
    let mut muxer = yamux::Config::default();
    muxer.set_max_num_streams(MAX_STREAMS);
    tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key).unwrap())
        .multiplex(muxer)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed()
}
