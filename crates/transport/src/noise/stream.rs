//! Messages of noise on a socket: two bytes of length, then at most 65,535 bytes (noise-libp2p, "Wire Format").
//!
//! A connection that has nothing to read and nothing to write holds no buffer: what arrives goes to a scratch buffer of
//! the thread first, and only what remains behind a whole message is kept.

use super::invalid;
use futures::{AsyncRead, AsyncWrite, future::poll_fn};
use snow::TransportState;
use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

const HEADER: usize = 2;
const MAX_MESSAGE: usize = 65_535;
/// Bytes that the cipher adds to a message.
const TAG: usize = 16;
/// Bytes that one message carries.
const MAX_CLEAR: usize = MAX_MESSAGE - TAG;
/// Bytes that are read at once.
const READ_AT_ONCE: usize = 16 * 1024;
/// A buffer of at most this size stays with an idle connection.
const KEPT: usize = 256;

thread_local! {
    /// Filled and emptied within one poll.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; HEADER + MAX_MESSAGE]);
}

/// Bytes, and the position up to which they have been used.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    at: usize,
}

impl Buffer {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Marks `count` bytes as used. Once all are used, frees the memory except for [`KEPT`] bytes.
    fn advance(&mut self, count: usize) {
        self.at += count;
        if self.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT);
            self.at = 0;
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }
}

/// A socket that is read and written by messages.
pub struct Frames<C> {
    socket: C,
    /// Read, and not yet taken.
    incoming: Buffer,
    /// Sealed, and not yet written.
    outgoing: Buffer,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Frames<C> {
    pub fn new(socket: C) -> Self {
        Self { socket, incoming: Buffer::default(), outgoing: Buffer::default() }
    }

    /// The next message; `None` at the end of the connection.
    ///
    /// # Errors
    /// The connection fails, or ends within a message.
    pub async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(length) = poll_fn(|cx| self.poll_fill(cx)).await? else { return Ok(None) };
        let message = self.incoming.rest()[HEADER..length].to_vec();
        self.incoming.advance(length);
        Ok(Some(message))
    }

    /// Seals `clear` into one message, which [`Frames::flush`] sends.
    ///
    /// # Errors
    /// More bytes than a message carries.
    pub fn seal(
        &mut self,
        clear: &[u8],
        seal: impl FnOnce(&[u8], &mut [u8]) -> Result<usize, snow::Error>,
    ) -> io::Result<()> {
        SCRATCH.with_borrow_mut(|scratch| {
            let length = seal(clear, &mut scratch[HEADER..]).map_err(invalid)?;
            let header = u16::try_from(length).map_err(invalid)?.to_be_bytes();
            scratch[..HEADER].copy_from_slice(&header);
            self.outgoing.push(&scratch[..HEADER + length]);
            Ok(())
        })
    }

    /// # Errors
    /// The connection fails.
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Reads until a whole message is there, and returns its length with the header.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<usize>>> {
        loop {
            if let [high, low, rest @ ..] = self.incoming.rest() {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if rest.len() >= length {
                    return Poll::Ready(Ok(Some(HEADER + length)));
                }
            }
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let read = ready!(Pin::new(&mut self.socket).poll_read(cx, &mut scratch[..READ_AT_ONCE]))?;
                self.incoming.push(&scratch[..read]);
                Poll::Ready(io::Result::Ok(read))
            });
            if ready!(read)? == 0 {
                return Poll::Ready(match self.incoming.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                });
            }
        }
    }

    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, self.outgoing.rest()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }
}

/// A connection behind its handshake.
pub struct NoiseStream<C> {
    frames: Frames<C>,
    state: TransportState,
    /// Decrypted, and not yet read.
    readable: Buffer,
    /// Written, and not yet sealed: at most [`MAX_CLEAR`] bytes.
    written: Vec<u8>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> NoiseStream<C> {
    pub(super) fn new(frames: Frames<C>, state: TransportState) -> Self {
        Self { frames, state, readable: Buffer::default(), written: Vec::new() }
    }

    /// Decrypts the next message; false at the end of the connection.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let Some(length) = ready!(self.frames.poll_fill(cx))? else { return Poll::Ready(Ok(false)) };
        let sealed = &self.frames.incoming.rest()[HEADER..length];
        self.readable.bytes.resize(sealed.len(), 0);
        let opened = self.state.read_message(sealed, &mut self.readable.bytes).map_err(invalid)?;
        self.readable.bytes.truncate(opened);
        self.frames.incoming.advance(length);
        Poll::Ready(Ok(true))
    }

    /// Bytes of memory that its buffers take.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        let buffers = [&self.frames.incoming, &self.frames.outgoing, &self.readable];
        buffers.map(|buffer| buffer.bytes.capacity()).iter().sum::<usize>() + self.written.capacity()
    }

    #[cfg(test)]
    pub fn into_socket(self) -> C {
        self.frames.socket
    }

    fn seal(&mut self) -> io::Result<()> {
        if !self.written.is_empty() {
            let state = &mut self.state;
            self.frames.seal(&self.written, |clear, out| state.write_message(clear, out))?;
            self.written.clear();
            self.written.shrink_to(KEPT);
        }
        Ok(())
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncRead for NoiseStream<C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        // A message may be empty.
        while self.readable.is_empty() {
            if !ready!(self.poll_open(cx))? {
                return Poll::Ready(Ok(0));
            }
        }
        let rest = self.readable.rest();
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        self.readable.advance(count);
        Poll::Ready(Ok(count))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncWrite for NoiseStream<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.written.len() == MAX_CLEAR {
            ready!(self.frames.poll_write_out(cx))?;
            self.seal()?;
        }
        let count = buf.len().min(MAX_CLEAR - self.written.len());
        self.written.extend_from_slice(&buf[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // At most one sealed message waits: the next is sealed once the socket has accepted the one before.
        ready!(self.frames.poll_write_out(cx))?;
        self.seal()?;
        self.frames.poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.frames.socket).poll_close(cx)
    }
}
