//! WebSockets over TCP, with or without TLS (NET-5). Browsers reach a node this way.
//!
//! This is our own transport over soketto and rustls. `libp2p-websocket` (0.46) cannot change its certificate while it
//! runs, and accepts messages of 256 MiB on connections that it dialled. The tests use that crate as the other side.

mod address;
mod bounded;
mod connection;

use super::certificate::{Certificates, Tls};
use address::target;
pub use address::{Suffix, Target};
use connection::Connection;
use futures::{AsyncRead, AsyncWrite, FutureExt, future::BoxFuture};
use futures_rustls::{TlsAcceptor, TlsConnector};
use libp2p::{
    Multiaddr,
    core::transport::{Boxed, DialOpts, ListenerId, Transport, TransportError, TransportEvent},
    tcp,
};
use soketto::handshake::{Client, Server, ServerResponse, server::Response};
use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// Longest HTTP answer of a server that we dial, in bytes. soketto has no limit for answers; for requests it has this
/// one.
const MAX_ANSWER: usize = 8 * 1024;

/// A WebSocket transport over TCP.
pub struct WebSockets {
    /// TCP, which resolves host names itself. So this transport still knows the name, and checks the certificate
    /// against it.
    tcp: Boxed<tcp::tokio::TcpStream>,
    certificates: Arc<Certificates>,
    /// The end of each listener's address, after its port.
    listeners: HashMap<ListenerId, Suffix>,
}

impl WebSockets {
    pub fn new(tcp: Boxed<tcp::tokio::TcpStream>, certificates: Arc<Certificates>) -> Self {
        Self { tcp, certificates, listeners: HashMap::new() }
    }

    /// Appends the end of the listener's address to `tcp`, an address that TCP reported. Returns the result.
    fn whole(&self, listener: ListenerId, tcp: Multiaddr) -> Multiaddr {
        match self.listeners.get(&listener) {
            Some(suffix) => suffix.put_on(tcp),
            None => tcp,
        }
    }
}

type Upgrade = BoxFuture<'static, io::Result<Connection>>;

impl Transport for WebSockets {
    type Output = Connection;
    type Error = io::Error;
    type ListenerUpgrade = Upgrade;
    type Dial = Upgrade;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<io::Error>> {
        let Some((tcp, suffix)) = Suffix::split(&addr) else {
            return Err(TransportError::MultiaddrNotSupported(addr));
        };
        self.tcp.listen_on(id, tcp)?;
        self.listeners.insert(id, suffix);
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.tcp.remove_listener(id)
    }

    fn dial(&mut self, addr: Multiaddr, opts: DialOpts) -> Result<Upgrade, TransportError<io::Error>> {
        let Some(target) = target(&addr) else { return Err(TransportError::MultiaddrNotSupported(addr)) };
        let socket = self.tcp.dial(target.tcp.clone(), opts)?;
        let tls = self.certificates.current();
        Ok(async move { connect(socket.await?, target, &tls).await }.boxed())
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Upgrade, io::Error>> {
        let event = std::task::ready!(Pin::new(&mut self.tcp).poll(cx));
        Poll::Ready(match event {
            TransportEvent::NewAddress { listener_id, listen_addr } => {
                TransportEvent::NewAddress { listener_id, listen_addr: self.whole(listener_id, listen_addr) }
            }
            TransportEvent::AddressExpired { listener_id, listen_addr } => {
                TransportEvent::AddressExpired { listener_id, listen_addr: self.whole(listener_id, listen_addr) }
            }
            TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr } => {
                let secure = self.listeners.get(&listener_id).is_none_or(|suffix| suffix.tls());
                // Read for each connection, so that the next one already uses a renewed certificate.
                let tls = self.certificates.current();
                TransportEvent::Incoming {
                    listener_id,
                    upgrade: async move { accept(upgrade.await?, secure.then_some(&*tls)).await }.boxed(),
                    local_addr: self.whole(listener_id, local_addr),
                    send_back_addr: self.whole(listener_id, send_back_addr),
                }
            }
            TransportEvent::ListenerClosed { listener_id, reason } => {
                self.listeners.remove(&listener_id);
                TransportEvent::ListenerClosed { listener_id, reason }
            }
            TransportEvent::ListenerError { listener_id, error } => {
                TransportEvent::ListenerError { listener_id, error }
            }
        })
    }
}

async fn accept(socket: tcp::tokio::TcpStream, tls: Option<&Tls>) -> io::Result<Connection> {
    let Some(tls) = tls else { return serve(socket).await };
    let Some(server) = &tls.server else {
        return Err(io::Error::other("cannot accept a secure WebSocket: no certificate is set"));
    };
    serve(TlsAcceptor::from(server.clone()).accept(socket).await?).await
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(socket: S) -> io::Result<Connection> {
    let mut server = Server::new(socket);
    let key = server.receive_request().await.map_err(handshake_failed)?.key();
    server.send_response(&Response::Accept { key, protocol: None }).await.map_err(handshake_failed)?;
    Ok(Connection::new(server.into_builder()))
}

async fn connect(socket: tcp::tokio::TcpStream, target: Target, tls: &Tls) -> io::Result<Connection> {
    match target.tls {
        None => ask(socket, &target.host_port).await,
        Some(name) => ask(TlsConnector::from(tls.client.clone()).connect(name, socket).await?, &target.host_port).await,
    }
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(socket: S, host: &str) -> io::Result<Connection> {
    let (socket, bound) = bounded::Bounded::new(socket, MAX_ANSWER);
    let mut client = Client::new(socket, host, "/");
    match client.handshake().await.map_err(handshake_failed)? {
        ServerResponse::Accepted { .. } => {
            bound.lift();
            Ok(Connection::new(client.into_builder()))
        }
        // Redirects are not followed: the connection goes to the address that was dialled or fails.
        ServerResponse::Redirect { status_code, .. } | ServerResponse::Rejected { status_code } => {
            Err(io::Error::other(format!("the server refuses a WebSocket: HTTP status {status_code}")))
        }
    }
}

fn handshake_failed(error: soketto::handshake::Error) -> io::Error {
    match error {
        soketto::handshake::Error::Io(error) => error,
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

#[cfg(test)]
mod tests;
