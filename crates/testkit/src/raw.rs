//! A client that writes any bytes: a connection, and streams on it that are negotiated by hand.

use crate::{
    connection::{OpenRequest, drive},
    read_message,
};
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{
    Multiaddr, PeerId, Transport,
    core::{
        Endpoint,
        muxing::{StreamMuxerBox, SubstreamBox},
        transport::{DialOpts, PortUse},
        upgrade::Version,
    },
    identity::Keypair,
    noise, quic, tcp, tls, yamux,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

/// The protocols of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Over {
    /// TCP, noise and yamux.
    Noise,
    /// TCP, TLS and yamux.
    Tls,
    /// QUIC.
    Quic,
}

impl Over {
    /// All of them.
    pub const ALL: [Over; 3] = [Over::Noise, Over::Tls, Over::Quic];

    /// Returns how a stream ends when the other side refuses it, which means that it drops the stream.
    pub fn refused(self) -> End {
        if self == Over::Quic { End::Closed } else { End::Reset }
    }
}

/// A connection that only the test uses.
pub struct Raw {
    /// Its peer id, new for each connection.
    pub id: PeerId,
    /// Streams opened. Several connections of a test may share the counter.
    pub opened: Arc<AtomicU64>,
    over: Over,
    open: mpsc::Sender<OpenRequest>,
}

/// How a stream ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Closed without an answer. Over QUIC a dropped stream ends this way too, because the other side's library closes
    /// it.
    Closed,
    /// Reset.
    Reset,
    /// Still open at the end of the time allowed.
    Open,
}

impl Raw {
    /// Connects with a new identity. Returns `None` if that fails.
    pub async fn try_connect(addr: Multiaddr, over: Over) -> Option<Self> {
        let key = Keypair::generate_ed25519();
        let id = key.public().to_peer_id();
        let tcp = || tcp::tokio::Transport::new(tcp::Config::default()).upgrade(Version::V1);
        let muxer = || {
            let mut muxer = yamux::Config::default();
            muxer.set_max_num_streams(2000);
            muxer
        };
        let boxed = |(peer, muxer), _| (peer, StreamMuxerBox::new(muxer));
        let mut transport = match over {
            Over::Noise => tcp().authenticate(noise::Config::new(&key).unwrap()).multiplex(muxer()).map(boxed).boxed(),
            Over::Tls => tcp()
                .authenticate(tls::Config::new(&key).unwrap())
                .multiplex(muxer())
                .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
                .boxed(),
            Over::Quic => quic::tokio::Transport::new(small_windows(quic::Config::new(&key)))
                .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
                .boxed(),
        };
        let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        let dial = transport.dial(addr, opts).unwrap();
        let (_, muxer) = dial.await.ok()?;
        let (open, requests) = mpsc::channel(1024);
        tokio::spawn(async move {
            drive(muxer, requests).await;
            drop(transport);
        });
        Some(Self { id, opened: Arc::default(), over, open })
    }

    /// Connects with a new identity.
    pub async fn connect(addr: Multiaddr, over: Over) -> Self {
        Self::try_connect(addr, over).await.unwrap()
    }

    /// Opens a stream of the WAN DHT.
    pub async fn stream(&self) -> RawStream {
        self.try_stream("/ipfs/kad/1.0.0").await.unwrap()
    }

    /// Opens a stream of any protocol. Returns `None` if the other side drops it.
    pub async fn try_stream(&self, protocol: &str) -> Option<RawStream> {
        let RawStream { mut stream, over } = self.try_bare().await?;
        for line in ["/multistream/1.0.0", protocol] {
            let line = [line.as_bytes(), b"\n"].concat();
            stream.write_all(&[&[line.len() as u8], &line[..]].concat()).await.ok()?;
            stream.flush().await.ok()?;
            let mut echo = vec![0; line.len() + 1];
            stream.read_exact(&mut echo).await.ok()?;
            if echo[1..] != line {
                return None;
            }
        }
        Some(RawStream { stream, over })
    }

    /// Opens a stream without negotiating a protocol.
    pub async fn try_bare(&self) -> Option<RawStream> {
        let (reply, opened) = oneshot::channel();
        self.open.send(reply).await.ok()?;
        self.opened.fetch_add(1, Ordering::Relaxed);
        Some(RawStream { stream: opened.await.ok()?, over: self.over })
    }
}

/// Limits unread bytes to what yamux allows, so that a peer that does not read is noticed as early as over TCP.
fn small_windows(mut config: quic::Config) -> quic::Config {
    config.max_stream_data = 256 * 1024;
    config.max_connection_data = 4 * 1024 * 1024;
    config
}

/// A stream of a [`Raw`] connection.
pub struct RawStream {
    stream: SubstreamBox,
    over: Over,
}

impl RawStream {
    /// Sends these bytes.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Sends as much as the other side accepts. Returns whether that is all of it.
    pub async fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// Reads the body of the next message. Returns `None` if the stream ends before that.
    pub async fn receive(&mut self) -> Option<Vec<u8>> {
        read_message(&mut self.stream).await
    }

    /// Waits until the other side ends the stream. Panics if it sends another byte first.
    pub async fn end_within(&mut self, time: Duration) -> End {
        let mut byte = [0];
        match tokio::time::timeout(time, self.stream.read(&mut byte)).await {
            Ok(Err(_)) => End::Reset,
            Ok(Ok(0)) if self.over == Over::Quic => End::Closed,
            // With yamux a read returns 0 in both cases. A closed stream still accepts writes, a reset one does not.
            Ok(Ok(0)) => {
                if self.try_send(&[0]).await {
                    End::Closed
                } else {
                    End::Reset
                }
            }
            Ok(Ok(_)) => panic!("an answer where there must be none"),
            Err(_) => End::Open,
        }
    }
}
