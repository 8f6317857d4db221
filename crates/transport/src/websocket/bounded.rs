//! A socket that returns a limited count of bytes until the limit is lifted.

use futures::{AsyncRead, AsyncWrite};
use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

/// The value of `left` that means no limit.
const LIFTED: usize = usize::MAX;

/// A socket with a limit on reading.
pub(super) struct Bounded<S> {
    socket: S,
    /// Bytes that may still be read.
    left: Arc<AtomicUsize>,
}

/// Lifts the limit of a socket that another owner has.
pub(super) struct Bound(Arc<AtomicUsize>);

impl<S> Bounded<S> {
    pub(super) fn new(socket: S, bytes: usize) -> (Self, Bound) {
        let left = Arc::new(AtomicUsize::new(bytes));
        (Self { socket, left: left.clone() }, Bound(left))
    }
}

impl Bound {
    pub(super) fn lift(self) {
        self.0.store(LIFTED, Ordering::Relaxed);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 && !buf.is_empty() {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the server's HTTP answer is too long",
            )));
        }
        let some = buf.len().min(left);
        let read = ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buf[..some]))?;
        if left != LIFTED {
            self.left.store(left - read, Ordering::Relaxed);
        }
        Poll::Ready(Ok(read))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx)
    }
}
