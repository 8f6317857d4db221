//! Noise as libp2p uses it: `Noise_XX_25519_ChaChaPoly_SHA256`, identities in the second and third message.
//! Source: the specification "noise-libp2p", and "inlined muxer negotiation" for [`Secured::muxer`].
//!
//! `snow` implements the protocol. This module exists because libp2p-noise 0.47 does not let us choose its primitives:
//! it does five X25519 multiplications of 37 us for each inbound connection, one of them for our own public key. Here
//! aws-lc does four, in 58 us together (`docs/decisions/transport.md`). This module also holds no buffer while a
//! connection is idle.

mod keys;
mod payload;
mod stream;
#[cfg(test)]
mod tests;

use crate::upgrade::{Muxer, Secured};
use futures::{AsyncRead, AsyncWrite};
use keys::{Resolver, StaticKey};
use libp2p::identity::{Keypair, PublicKey};
use payload::Payload;
use snow::{Builder, HandshakeState, params::NoiseParams};
use std::{
    io,
    sync::{Arc, LazyLock},
};
use stream::Frames;
pub use stream::NoiseStream;

/// The name of noise in multistream-select.
pub const PROTOCOL: &str = "/noise";

/// Prefix of what the identity key signs; the static key follows it.
const SIGNED_PREFIX: &[u8] = b"noise-libp2p-static-key:";

static PARAMS: LazyLock<NoiseParams> = LazyLock::new(|| match "Noise_XX_25519_ChaChaPoly_SHA256".parse() {
    Ok(params) => params,
    Err(error) => unreachable!("a valid name of a protocol: {error}"),
});

/// The static key of this process, and the proof that it belongs to our identity.
#[derive(Clone)]
pub struct Noise {
    key: Arc<StaticKey>,
    identity: Arc<Payload>,
}

impl Noise {
    /// Makes a static key, signed by `identity`.
    ///
    /// # Errors
    /// A key pair that cannot sign.
    pub fn new(identity: &Keypair) -> Result<Self, String> {
        let key = StaticKey::generate().map_err(|error| error.to_string())?;
        let signature = identity.sign(&signed(key.public())).map_err(|error| error.to_string())?;
        let identity = Payload::ours(identity.public().encode_protobuf(), signature);
        Ok(Self { key: Arc::new(key), identity: Arc::new(identity) })
    }

    /// The handshake as the side that was dialled.
    ///
    /// # Errors
    /// The connection ends, a message does not follow the protocol, or the peer does not prove its identity.
    pub async fn accept<C: AsyncRead + AsyncWrite + Unpin>(&self, socket: C) -> io::Result<Secured<NoiseStream<C>>> {
        let mut handshake = Handshake::new(socket, self.builder()?.build_responder())?;
        if !handshake.receive().await?.is_empty() {
            return Err(invalid("the first message must have no payload"));
        }
        handshake.send(&self.identity.encoded()).await?;
        let theirs = Payload::decode(&handshake.receive().await?)?;
        handshake.finish(&theirs)
    }

    /// The handshake as the side that dialled.
    ///
    /// # Errors
    /// As those of [`Noise::accept`].
    pub async fn dial<C: AsyncRead + AsyncWrite + Unpin>(&self, socket: C) -> io::Result<Secured<NoiseStream<C>>> {
        let mut handshake = Handshake::new(socket, self.builder()?.build_initiator())?;
        handshake.send(&[]).await?;
        let theirs = Payload::decode(&handshake.receive().await?)?;
        handshake.send(&self.identity.encoded()).await?;
        handshake.finish(&theirs)
    }

    fn builder(&self) -> io::Result<Builder<'_>> {
        let resolver = Box::new(Resolver::new(self.key.clone()));
        Builder::with_resolver(PARAMS.clone(), resolver)
            .local_private_key(StaticKey::PLACEHOLDER)
            .map_err(io::Error::other)
    }
}

struct Handshake<C> {
    frames: Frames<C>,
    state: HandshakeState,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Handshake<C> {
    fn new(socket: C, state: Result<HandshakeState, snow::Error>) -> io::Result<Self> {
        Ok(Self { frames: Frames::new(socket), state: state.map_err(io::Error::other)? })
    }

    async fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        let state = &mut self.state;
        self.frames.seal(payload, |payload, out| state.write_message(payload, out))?;
        self.frames.flush().await
    }

    async fn receive(&mut self) -> io::Result<Vec<u8>> {
        let frame = self.frames.next().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut payload = vec![0; frame.len()];
        let length = self.state.read_message(&frame, &mut payload).map_err(invalid)?;
        payload.truncate(length);
        Ok(payload)
    }

    fn finish(self, theirs: &Payload) -> io::Result<Secured<NoiseStream<C>>> {
        let key = self.state.get_remote_static().ok_or_else(|| invalid("the peer sent no static key"))?;
        let identity = PublicKey::try_decode_protobuf(theirs.identity_key()).map_err(invalid)?;
        if !identity.verify(&signed(key), theirs.identity_sig()) {
            return Err(invalid("the peer's identity did not sign its static key"));
        }
        let muxer = if theirs.offers(Muxer::YAMUX) { Muxer::Agreed } else { Muxer::Open };
        let state = self.state.into_transport_mode().map_err(io::Error::other)?;
        Ok(Secured { peer: identity.to_peer_id(), stream: NoiseStream::new(self.frames, state), muxer })
    }
}

fn signed(static_key: &[u8]) -> Vec<u8> {
    [SIGNED_PREFIX, static_key].concat()
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
