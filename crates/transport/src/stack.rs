//! Builds the transport of a node from its parts.

use crate::{
    certificate::Certificates,
    muxer::{Driven, Yamux},
    resolver::{Logged, Resolver},
    upgrade::Upgrade,
    wake_at_end::WakesAtEnd,
    websocket::WebSockets,
};
use dhtstore_host::clock::Clock;
use futures::{AsyncRead, AsyncWrite, FutureExt};
use libp2p::{
    PeerId, Transport,
    core::{
        ConnectedPoint,
        muxing::{StreamMuxer, StreamMuxerBox},
        transport::{Boxed, timeout::TransportTimeout},
    },
    identity::Keypair,
    pnet::{PnetConfig, PreSharedKey},
    quic, tcp,
};
use std::{sync::Arc, time::Duration};

/// Time allowed for a handshake, inbound or outbound. A connection that needs longer is dropped.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest limit of streams that yamux accepts: its receive window of 1 GiB must have 256 KiB for each stream.
const YAMUX_MAX_STREAMS: usize = 4096;

/// Unread bytes that QUIC accepts on one stream. A request has at most 64 KiB.
const QUIC_STREAM_WINDOW: u32 = 256 * 1024;
/// Unread bytes that QUIC accepts on one connection: several stream windows, so that one stream that is not read does
/// not stop the others.
const QUIC_CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Limits of one connection.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Streams that the other side may have open on one connection.
    pub max_inbound_streams: usize,
    /// Streams of both sides on one connection: yamux counts them together.
    pub max_streams: usize,
}

/// A transport whose connections have proven their peer id, over any of the protocols below.
pub type Peered = Boxed<(PeerId, StreamMuxerBox)>;

/// Returns a transport for TCP, QUIC and WebSockets that also resolves host names. Nothing is bound yet.
///
/// A private network (`psk`) has no QUIC, because pnet is defined for TCP only.
///
/// WebSockets are tried first. They resolve host names themselves, because they check certificates against them.
/// A `/dnsaddr` is resolved after them, so a WebSocket address in its TXT records is not dialled.
///
/// # Errors
/// Fails if the key pair cannot sign.
pub fn build(
    settings: &Settings,
    identity: &Keypair,
    psk: Option<PreSharedKey>,
    certificates: Arc<Certificates>,
    clock: &Arc<dyn Clock>,
) -> Result<Peered, String> {
    let yamux = Yamux::with_max_streams(settings.max_streams.min(YAMUX_MAX_STREAMS));
    let streams = Streams { psk, upgrade: Upgrade::new(identity, yamux)? };
    let logged = Logged::default();
    let resolved_tcp = Resolver::new(tcp().boxed(), clock.clone(), logged.clone()).boxed();
    let websockets = streams.upgrade(WebSockets::new(resolved_tcp, certificates));
    let tcp = streams.upgrade(tcp());
    let direct = match psk {
        Some(_) => tcp,
        None => tcp.or_transport(quic(settings, identity)).map(|either, _| either.into_inner()).boxed(),
    };
    let others = Resolver::new(direct, clock.clone(), logged).boxed();
    let all = websockets.or_transport(others).map(|either, _| either.into_inner());
    Ok(TransportTimeout::new(all, HANDSHAKE_TIMEOUT).boxed())
}

fn tcp() -> tcp::tokio::Transport {
    tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
}

fn quic(settings: &Settings, identity: &Keypair) -> Peered {
    let mut quic = quic::Config::new(identity);
    quic.max_concurrent_stream_limit = u32::try_from(settings.max_inbound_streams).unwrap_or(u32::MAX);
    quic.max_stream_data = QUIC_STREAM_WINDOW;
    quic.max_connection_data = QUIC_CONNECTION_WINDOW;
    quic::tokio::Transport::new(quic).map(|(peer, muxer), _| (peer, boxed(muxer))).boxed()
}

fn boxed<M>(muxer: M) -> StreamMuxerBox
where
    M: StreamMuxer<Substream: Send + Unpin, Error: Send + Sync> + Send + Unpin + 'static,
{
    StreamMuxerBox::new(WakesAtEnd::new(muxer))
}

/// Turns a stream of bytes into a connection: first the pre-shared key of a private network (inside a WebSocket, as in
/// go-libp2p), then noise or TLS, then yamux.
struct Streams {
    psk: Option<PreSharedKey>,
    upgrade: Upgrade,
}

impl Streams {
    fn upgrade<T>(&self, transport: T) -> Peered
    where
        T: Transport<Output: AsyncRead + AsyncWrite + Send + Unpin + 'static, Error: Send + Sync + 'static>
            + Send
            + Unpin
            + 'static,
        T::Dial: Send + 'static,
        T::ListenerUpgrade: Send + 'static,
    {
        let upgrade = self.upgrade.clone();
        match self.psk {
            None => transport.and_then(move |socket, point| upgrade.apply(socket, point).boxed()).map(peered).boxed(),
            Some(psk) => transport
                .and_then(move |socket, _| PnetConfig::new(psk).handshake(socket))
                .and_then(move |socket, point| upgrade.apply(socket, point).boxed())
                .map(peered)
                .boxed(),
        }
    }
}

fn peered((peer, muxer): (PeerId, Driven), _: ConnectedPoint) -> (PeerId, StreamMuxerBox) {
    (peer, boxed(muxer))
}
