//! Secures a connection with noise or TLS, whichever the other side supports (NET-2).

use futures::{
    AsyncRead, AsyncWrite, FutureExt, TryFutureExt,
    future::{BoxFuture, Either},
};
use libp2p::{
    PeerId,
    core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
    identity::Keypair,
    noise, tls,
};
use std::io;

/// Offers both protocols. TLS is preferred, as in Kubo.
#[derive(Clone)]
pub struct Security {
    tls: tls::Config,
    noise: noise::Config,
}

/// A stream secured by either protocol.
pub type Secured<C> = Either<tls::TlsStream<C>, noise::Output<C>>;

impl Security {
    /// Returns an upgrade for this identity. Fails only if the key pair cannot sign.
    pub fn new(identity: &Keypair) -> Result<Self, String> {
        let tls = tls::Config::new(identity).map_err(|error| error.to_string())?;
        let noise = noise::Config::new(identity).map_err(|error| error.to_string())?;
        Ok(Self { tls, noise })
    }

    fn is_tls(&self, chosen: &str) -> bool {
        self.tls.protocol_info().any(|name| name == chosen)
    }
}

impl UpgradeInfo for Security {
    type Info = &'static str;
    type InfoIter = Vec<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.tls.protocol_info().chain(self.noise.protocol_info()).collect()
    }
}

fn tls_side<C>((peer, stream): (PeerId, tls::TlsStream<C>)) -> (PeerId, Secured<C>) {
    (peer, Either::Left(stream))
}

fn noise_side<C>((peer, stream): (PeerId, noise::Output<C>)) -> (PeerId, Secured<C>) {
    (peer, Either::Right(stream))
}

impl<C> InboundConnectionUpgrade<C> for Security
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = (PeerId, Secured<C>);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_inbound(self, socket: C, chosen: &'static str) -> Self::Future {
        if self.is_tls(chosen) {
            InboundConnectionUpgrade::<C>::upgrade_inbound(self.tls, socket, chosen)
                .map_ok(tls_side)
                .map_err(io::Error::other)
                .boxed()
        } else {
            InboundConnectionUpgrade::<C>::upgrade_inbound(self.noise, socket, chosen)
                .map_ok(noise_side)
                .map_err(io::Error::other)
                .boxed()
        }
    }
}

impl<C> OutboundConnectionUpgrade<C> for Security
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = (PeerId, Secured<C>);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_outbound(self, socket: C, chosen: &'static str) -> Self::Future {
        if self.is_tls(chosen) {
            OutboundConnectionUpgrade::<C>::upgrade_outbound(self.tls, socket, chosen)
                .map_ok(tls_side)
                .map_err(io::Error::other)
                .boxed()
        } else {
            OutboundConnectionUpgrade::<C>::upgrade_outbound(self.noise, socket, chosen)
                .map_ok(noise_side)
                .map_err(io::Error::other)
                .boxed()
        }
    }
}
