//! TLS 1.3 as libp2p uses it (the specification "libp2p TLS Handshake"): certificates that the identity key signed, and
//! the name of the multiplexer in ALPN ("inlined muxer negotiation").

#[cfg(test)]
mod tests;

use crate::upgrade::{Muxer, Secured};
use futures::{AsyncRead, AsyncWrite};
pub use futures_rustls::TlsStream;
use futures_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, CommonState, ServerConfig,
        pki_types::{IpAddr, Ipv4Addr, ServerName},
    },
};
use libp2p::{identity::Keypair, tls};
use std::{io, sync::Arc};

/// The name of TLS in multistream-select.
pub const PROTOCOL: &str = "/tls/1.0.0";

/// The ALPN name that the sides agree on if they agree on no multiplexer.
const ALPN: &[u8] = b"libp2p";

/// The certificate of this process, for both sides of a handshake.
#[derive(Clone)]
pub struct Tls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Tls {
    /// Makes a certificate, signed by `identity`.
    ///
    /// # Errors
    /// A key pair that cannot sign.
    pub fn new(identity: &Keypair) -> Result<Self, String> {
        let alpn = vec![Muxer::YAMUX.as_bytes().to_vec(), ALPN.to_vec()];
        let mut server = tls::make_server_config(identity).map_err(|error| error.to_string())?;
        server.alpn_protocols.clone_from(&alpn);
        // Neither we nor go-libp2p resume sessions, so a ticket would cost work and a message for nothing.
        server.send_tls13_tickets = 0;
        let mut client = tls::make_client_config(identity, None).map_err(|error| error.to_string())?;
        client.alpn_protocols = alpn;
        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }

    /// The handshake as the side that was dialled.
    ///
    /// # Errors
    /// The connection ends, or the peer does not prove its identity.
    pub async fn accept<C: AsyncRead + AsyncWrite + Unpin>(&self, socket: C) -> io::Result<Secured<TlsStream<C>>> {
        secured(TlsAcceptor::from(self.server.clone()).accept(socket).await?.into())
    }

    /// The handshake as the side that dialled.
    ///
    /// # Errors
    /// As those of [`Tls::accept`].
    pub async fn dial<C: AsyncRead + AsyncWrite + Unpin>(&self, socket: C) -> io::Result<Secured<TlsStream<C>>> {
        // The specification forbids sending a server name, and an IP address is never sent as one.
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0; 4])));
        secured(TlsConnector::from(self.client.clone()).connect(name, socket).await?.into())
    }
}

fn secured<C>(stream: TlsStream<C>) -> io::Result<Secured<TlsStream<C>>> {
    let (_, state) = stream.get_ref();
    let state: &CommonState = state;
    let Some([certificate]) = state.peer_certificates() else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the peer must send one certificate"));
    };
    let peer = tls::certificate::parse(certificate).map_err(io::Error::other)?.peer_id();
    let muxer = if state.alpn_protocol() == Some(Muxer::YAMUX.as_bytes()) { Muxer::Agreed } else { Muxer::Open };
    Ok(Secured { peer, stream, muxer })
}
