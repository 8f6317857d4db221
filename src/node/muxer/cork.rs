//! Holds back what is written until the task has nothing left to do: yamux flushes after each frame, and each flush is a
//! message of noise and a call of the kernel, which cost more than all that an answer is made of.

use futures::{AsyncRead, AsyncWrite};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// More than this is not held back. The buffers of noise grow with it, three on each connection.
const MAX_HELD: usize = 16 * 1024;

/// An encrypted connection on which a flush is put off until nothing can be read: whoever drives a connection reads last, until it
/// has to wait.
#[derive(Debug)]
pub(crate) struct Corked<T> {
    io: T,
    /// Bytes written and not flushed.
    held: usize,
}

impl<T: AsyncWrite + Unpin> Corked<T> {
    pub(crate) fn new(io: T) -> Self {
        Self { io, held: 0 }
    }

    fn poll_let_go(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held > 0 {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.held = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Corked<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if read.is_pending()
            && let Poll::Ready(Err(error)) = self.poll_let_go(cx)
        {
            return Poll::Ready(Err(error));
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Corked<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.held >= MAX_HELD {
            ready!(self.poll_let_go(cx))?;
        }
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.held += written;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }
}
