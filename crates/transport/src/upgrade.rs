//! From a stream of bytes to a connection that knows its peer and carries streams: the security and the multiplexer are
//! negotiated and applied in one future, so that a handshake is one task from its first byte to its last.
//!
//! Where both sides can, the multiplexer is agreed within the handshake of the security ("inlined muxer negotiation"),
//! which saves a round trip. libp2p's own builder always negotiates the multiplexer after the security.

use crate::{
    muxer::{Driven, Yamux},
    noise::{self, Noise, NoiseStream},
    tls::{self, Tls, TlsStream},
};
use futures::{AsyncRead, AsyncWrite, future::Either};
use libp2p::{
    PeerId,
    core::{
        ConnectedPoint, Endpoint,
        upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade},
    },
    identity::Keypair,
};
use multistream_select::{Negotiated, Version, dialer_select_proto, listener_select_proto};
use std::io;

/// What a handshake yields.
pub struct Secured<S> {
    /// The peer that proved its identity.
    pub peer: PeerId,
    pub stream: S,
    pub muxer: Muxer,
}

/// Whether a handshake settled the multiplexer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Muxer {
    /// Both sides named yamux.
    Agreed,
    /// multistream-select decides.
    Open,
}

impl Muxer {
    /// The only multiplexer of this node (NET-2).
    pub const YAMUX: &str = "/yamux/1.0.0";
}

impl<S> Secured<S> {
    fn map<T>(self, stream: impl FnOnce(S) -> T) -> Secured<T> {
        Secured { peer: self.peer, stream: stream(self.stream), muxer: self.muxer }
    }
}

/// Noise or TLS, whichever the other side takes, and yamux above it (NET-2).
#[derive(Clone)]
pub struct Upgrade {
    tls: Tls,
    noise: Noise,
    yamux: Yamux,
}

impl Upgrade {
    /// TLS is preferred, as in Kubo.
    const SECURITY: [&str; 2] = [tls::PROTOCOL, noise::PROTOCOL];

    /// # Errors
    /// A key pair that cannot sign.
    pub fn new(identity: &Keypair, yamux: Yamux) -> Result<Self, String> {
        Ok(Self { tls: Tls::new(identity)?, noise: Noise::new(identity)?, yamux })
    }

    /// Upgrades a connection that is at `point`.
    ///
    /// # Errors
    /// The connection ends, the sides have no protocol in common, or the peer does not prove its identity.
    pub async fn apply<C>(self, socket: C, point: ConnectedPoint) -> io::Result<(PeerId, Driven)>
    where
        C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let side = match point {
            ConnectedPoint::Dialer { role_override, .. } => role_override,
            ConnectedPoint::Listener { .. } => Endpoint::Listener,
        };
        let (security, socket) = select(socket, Self::SECURITY, side).await?;
        let secured = self.secure(security, socket, side).await?;
        let connection = match secured.muxer {
            Muxer::Agreed => multiplex(self.yamux, secured.stream, side).await,
            Muxer::Open => {
                let (_, stream) = select(secured.stream, [Muxer::YAMUX], side).await?;
                multiplex(self.yamux, stream, side).await
            }
        };
        Ok((secured.peer, connection?))
    }

    async fn secure<C>(&self, security: &'static str, socket: C, side: Endpoint) -> io::Result<Secured<Stream<C>>>
    where
        C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        match (security == tls::PROTOCOL, side) {
            (true, Endpoint::Listener) => Ok(self.tls.accept(socket).await?.map(Either::Left)),
            (true, Endpoint::Dialer) => Ok(self.tls.dial(socket).await?.map(Either::Left)),
            (false, Endpoint::Listener) => Ok(self.noise.accept(socket).await?.map(Either::Right)),
            (false, Endpoint::Dialer) => Ok(self.noise.dial(socket).await?.map(Either::Right)),
        }
    }
}

/// A secured stream of either kind.
type Stream<C> = Either<TlsStream<C>, NoiseStream<C>>;

async fn multiplex<S>(yamux: Yamux, stream: S, side: Endpoint) -> io::Result<Driven>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match side {
        Endpoint::Listener => yamux.upgrade_inbound(stream, Muxer::YAMUX).await,
        Endpoint::Dialer => yamux.upgrade_outbound(stream, Muxer::YAMUX).await,
    }
}

async fn select<C, const N: usize>(
    socket: C,
    names: [&'static str; N],
    side: Endpoint,
) -> io::Result<(&'static str, Negotiated<C>)>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let selected = match side {
        Endpoint::Listener => listener_select_proto(socket, names).await,
        Endpoint::Dialer => dialer_select_proto(socket, names, Version::V1Lazy).await,
    };
    selected.map_err(io::Error::other)
}
