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

/// Reads of one frame: its header and its body.
const READS_PER_FRAME: usize = 2;

/// An encrypted connection on which a flush is put off until nothing can be read: whoever drives a connection reads last, until it
/// has to wait.
///
/// Where several frames came together, their streams' tasks stand in line, and the first answer would wake the connection's task
/// before the others are made. Then it goes to the end of the line once.
#[derive(Debug)]
pub(crate) struct Corked<T> {
    io: T,
    /// Bytes written and not flushed.
    held: usize,
    /// Since nothing could be read.
    reads: usize,
    /// More answers may follow the next one at once.
    patient: bool,
}

impl<T: AsyncWrite + Unpin> Corked<T> {
    pub(crate) fn new(io: T) -> Self {
        Self { io, held: 0, reads: 0, patient: false }
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
        if read.is_ready() {
            self.reads += 1;
            return read;
        }
        let several = self.reads > READS_PER_FRAME;
        self.reads = 0;
        if self.held == 0 {
            self.patient |= several;
        } else if self.patient {
            self.patient = false;
            cx.waker().wake_by_ref();
        } else {
            self.patient = several;
            if let Poll::Ready(Err(error)) = self.poll_let_go(cx) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Pending
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
