//! libp2p's yamux, made cheaper in two ways:
//!
//! - A task of its own drives each connection, as QUIC does already. Bytes of open streams then do not wake the swarm's
//!   task of that connection. Each run of the swarm's task polls the handlers of all behaviours and compares all
//!   protocols that they listen for. The swarm's task handles only new streams and the end of the connection.
//! - Frames are sent when the task has nothing left to do, and not one by one: see `cork`.

mod cork;

use cork::Corked;
use futures::{
    AsyncRead, AsyncWrite,
    channel::{mpsc, oneshot},
    future::{self, FutureExt, Ready, poll_fn},
    stream::StreamExt,
};
use libp2p::{
    core::{
        muxing::{StreamMuxer, StreamMuxerEvent},
        upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo},
    },
    yamux,
};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio_util::task::AbortOnDropHandle;

/// Capacity of the inbound queue (the channel adds one slot per sender). While it is full, yamux keeps new streams, and
/// drops them beyond its own limit (256).
const WAITING: usize = 0;

/// A secured connection, as bytes in both directions.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> Socket for C {}

/// Turns a socket into a multiplexed connection.
#[derive(Clone, Debug)]
pub struct Yamux(yamux::Config);

impl Yamux {
    /// Returns an upgrade that allows at most `max` open streams on a connection.
    pub fn with_max_streams(max: usize) -> Self {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(max);
        Self(config)
    }
}

impl UpgradeInfo for Yamux {
    type Info = <yamux::Config as UpgradeInfo>::Info;
    type InfoIter = <yamux::Config as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

impl<C: Socket> InboundConnectionUpgrade<C> for Yamux {
    type Output = Driven;
    type Error = io::Error;
    type Future = Ready<io::Result<Driven>>;

    fn upgrade_inbound(self, socket: C, info: Self::Info) -> Self::Future {
        future::ready(self.0.upgrade_inbound(Corked::new(socket), info).into_inner().map(Driven::new))
    }
}

impl<C: Socket> OutboundConnectionUpgrade<C> for Yamux {
    type Output = Driven;
    type Error = io::Error;
    type Future = Ready<io::Result<Driven>>;

    fn upgrade_outbound(self, socket: C, info: Self::Info) -> Self::Future {
        future::ready(self.0.upgrade_outbound(Corked::new(socket), info).into_inner().map(Driven::new))
    }
}

/// The swarm's end of a connection. Dropping it without closing it cuts the connection.
#[derive(Debug)]
pub struct Driven {
    inbound: mpsc::Receiver<yamux::Stream>,
    /// Asks the driver for outbound streams. Dropping it closes the connection.
    opener: Option<mpsc::Sender<oneshot::Sender<yamux::Stream>>>,
    opening: Option<oneshot::Receiver<yamux::Stream>>,
    /// `None` once the driver has ended.
    driver: Option<AbortOnDropHandle<io::Result<()>>>,
}

impl Driven {
    /// Spawns a task that drives `muxer`. Must be called within the runtime.
    fn new<C: Socket>(muxer: yamux::Muxer<C>) -> Self {
        let (sender, inbound) = mpsc::channel(WAITING);
        let (opener, openings) = mpsc::channel(0);
        let driver = Driver { muxer, inbound: sender, openings, opening: None };
        let driver = AbortOnDropHandle::new(tokio::spawn(driver.run()));
        Self { inbound, opener: Some(opener), opening: None, driver: Some(driver) }
    }

    /// Returns how the connection ended; `Ok` for every call after the first.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(driver) = &mut self.driver else { return Poll::Ready(Ok(())) };
        let end = ready!(driver.poll_unpin(cx));
        self.driver = None;
        Poll::Ready(end.unwrap_or_else(|panic| Err(io::Error::other(panic))))
    }

    fn poll_error(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.poll_end(cx).map(|end| end.err().unwrap_or_else(closed))
    }
}

fn closed() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl StreamMuxer for Driven {
    type Substream = yamux::Stream;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<yamux::Stream>> {
        match ready!(self.inbound.poll_next_unpin(cx)) {
            Some(stream) => Poll::Ready(Ok(stream)),
            // The driver has dropped the sender, so it is about to end.
            None => self.poll_error(cx).map(Err),
        }
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<yamux::Stream>> {
        loop {
            if let Some(opening) = &mut self.opening {
                let opened = ready!(opening.poll_unpin(cx));
                self.opening = None;
                return match opened {
                    Ok(stream) => Poll::Ready(Ok(stream)),
                    Err(oneshot::Canceled) => self.poll_error(cx).map(Err),
                };
            }
            let Some(opener) = &mut self.opener else { return Poll::Ready(Err(closed())) };
            let (sender, opening) = oneshot::channel();
            // One at a time, so there is always room. If the driver has ended, the next turn of the loop reports that.
            let _ = opener.try_send(sender);
            self.opening = Some(opening);
        }
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.opener = None;
        self.inbound.close();
        self.poll_end(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        self.poll_error(cx).map(Err)
    }
}

/// The driver's end.
struct Driver<C> {
    muxer: yamux::Muxer<C>,
    inbound: mpsc::Sender<yamux::Stream>,
    openings: mpsc::Receiver<oneshot::Sender<yamux::Stream>>,
    opening: Option<oneshot::Sender<yamux::Stream>>,
}

impl<C: Socket> Driver<C> {
    async fn run(mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll(cx)).await?;
        poll_fn(|cx| Pin::new(&mut self.muxer).poll_close(cx)).await.map_err(io::Error::other)
    }

    /// Completes when the connection is to be closed, or has failed.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.opening.is_none() {
                match self.openings.poll_next_unpin(cx) {
                    Poll::Ready(Some(opening)) => self.opening = Some(opening),
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Pending => {}
                }
            }
            let mut muxer = Pin::new(&mut self.muxer);
            if self.opening.is_some()
                && let Poll::Ready(stream) = muxer.as_mut().poll_outbound(cx).map_err(io::Error::other)?
            {
                // The requester may have gone.
                self.opening.take().map(|opening| opening.send(stream));
                continue;
            }
            let polled = match self.inbound.poll_ready(cx) {
                // The swarm has closed its end.
                Poll::Ready(Err(_)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => muxer.poll_inbound(cx).map_ok(Some),
                // The queue is full. Open streams still make progress.
                Poll::Pending => muxer.poll(cx).map_ok(|StreamMuxerEvent::AddressChange(_)| None),
            };
            if let Some(stream) = ready!(polled).map_err(io::Error::other)? {
                let _ = self.inbound.start_send(stream);
            }
        }
    }
}

#[cfg(test)]
mod tests;
