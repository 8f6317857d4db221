//! Messages on a stream (MSG-1). The reader's buffer grows with what has arrived, within a byte budget; a write fails
//! if the peer stops reading.

use crate::kad::frame::{self, FrameError, Header};
use futures::{AsyncRead, AsyncWrite, FutureExt};
use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::timeout;

/// Bytes that a reader may hold outside the budget: one ordinary request (FIND_NODE 45 bytes, ADD_PROVIDER about 200).
/// The limit on the number of streams limits the sum over all readers.
pub(crate) const FREE: usize = 1024;

/// Most bytes read at once from a stream that keeps sending: some 80 pipelined ADD_PROVIDERs.
const MAX_STEP: usize = 16 * 1024;

/// The bytes that all readers together may hold.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    left: Arc<AtomicUsize>,
    total: usize,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { left: Arc::new(AtomicUsize::new(bytes)), total: bytes }
    }

    pub(crate) fn lease(&self) -> Lease {
        Lease { budget: self.clone(), held: 0 }
    }

    /// Returns the bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.total.saturating_sub(self.left.load(Ordering::Relaxed))
    }

    #[cfg(test)]
    pub(crate) fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }
}

/// A part of a [`Budget`]. Dropping it returns the bytes to the budget.
#[derive(Debug)]
pub(crate) struct Lease {
    budget: Budget,
    held: usize,
}

impl Lease {
    /// Changes the lease to `bytes`. Returns false and changes nothing if the budget does not allow it.
    #[must_use]
    pub(crate) fn resize(&mut self, bytes: usize) -> bool {
        if bytes > self.held {
            let more = bytes - self.held;
            let taken = self.budget.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(more));
            if taken.is_err() {
                return false;
            }
        } else {
            self.budget.left.fetch_add(self.held - bytes, Ordering::Relaxed);
        }
        self.held = bytes;
        true
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.held, Ordering::Relaxed);
    }
}

/// Why reading a message from a stream failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the read budget is used up")]
    OverBudget,
    #[error("stream ended inside a message")]
    Truncated,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads length-prefixed messages. Holds at most [`FREE`] bytes while a stream is idle.
#[derive(Debug)]
pub(crate) struct FrameReader {
    buffer: Vec<u8>,
    /// Consumed bytes at the front of `buffer`.
    start: usize,
    /// Bytes to read next. Doubles each time the stream fills them.
    step: usize,
    lease: Lease,
    max_body: usize,
}

impl FrameReader {
    pub(crate) fn new(budget: &Budget, max_body: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, step: FREE, lease: budget.lease(), max_body }
    }

    /// Returns the sizes of header and body of the next message if all of it has arrived.
    pub(crate) fn message(&self) -> Result<Option<(usize, usize)>, FrameError> {
        let bytes = self.bytes();
        Ok(match frame::header(bytes, self.max_body)? {
            Header::Complete { header, body } if bytes.len() >= header + body => Some((header, body)),
            _ => None,
        })
    }

    /// Returns the body of a message that [`FrameReader::message`] found.
    pub(crate) fn body(&self, (header, body): (usize, usize)) -> &[u8] {
        self.bytes().get(header..header + body).unwrap_or_default()
    }

    /// Drops a message from the buffer.
    pub(crate) fn consume(&mut self, (header, body): (usize, usize)) {
        self.start = (self.start + header + body).min(self.buffer.len());
        if self.is_empty() {
            self.buffer.clear();
            self.start = 0;
        }
    }

    /// Returns true until the first byte of the next message has arrived.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.buffer.len()
    }

    /// Frees memory if no message has begun. Keeps a small buffer for the next request.
    pub(crate) fn release(&mut self) {
        if self.is_empty() {
            if self.buffer.capacity() > FREE {
                self.buffer = Vec::new();
            }
            self.start = 0;
            self.step = FREE;
            let _less_always_works = self.lease.resize(0);
        }
    }

    /// Reads the bytes that are available and returns their number, 0 at the end of the stream. Loses nothing if the
    /// caller stops polling.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Poll<Result<usize, ReadError>> {
        self.make_room()?;
        let end = self.buffer.len();
        // Without `unsafe` the buffer must be zeroed first; a limited step keeps that cheap.
        self.buffer.resize(end + self.step, 0);
        let polled = Pin::new(stream).poll_read(cx, self.buffer.get_mut(end..).unwrap_or_default());
        let read = match &polled {
            Poll::Ready(Ok(n)) => *n,
            _ => 0,
        };
        self.buffer.truncate(end + read);
        ready!(polled)?;
        if read == self.step {
            self.step = (self.step * 2).min(MAX_STEP);
        }
        Poll::Ready(Ok(read))
    }

    /// Reads one message of an answer. Returns `None` if the stream ends before the message begins.
    pub(crate) async fn next(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Result<Option<(usize, usize)>, ReadError> {
        loop {
            if let Some(message) = self.message()? {
                return Ok(Some(message));
            }
            if poll_fn(|cx| self.poll_fill(cx, stream)).await? == 0 {
                return if self.is_empty() { Ok(None) } else { Err(ReadError::Truncated) };
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// Makes room for `step` more bytes, or for [`FREE`] if the budget allows no more.
    fn make_room(&mut self) -> Result<(), ReadError> {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let held = self.buffer.len();
        if self.lease_for(held + self.step) {
            self.buffer.reserve_exact(self.step);
            return Ok(());
        }
        self.step = FREE;
        if self.lease_for(held + self.step) {
            self.buffer.reserve_exact(self.step);
            return Ok(());
        }
        Err(ReadError::OverBudget)
    }

    fn lease_for(&mut self, bytes: usize) -> bool {
        // The buffer may still have a larger capacity from before; that counts too.
        let bytes = bytes.max(self.buffer.capacity());
        self.lease.resize(bytes.saturating_sub(FREE))
    }
}

/// Why writing to a stream failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("the peer does not read: no progress for {0:?}")]
    Stalled(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes all of `bytes`. Fails if the peer takes no byte for `stall`.
pub(crate) async fn write_moving(
    stream: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    stall: Duration,
) -> Result<(), WriteError> {
    while !bytes.is_empty() {
        let written = moving(stall, poll_fn(|cx| Pin::new(&mut *stream).poll_write(cx, bytes))).await?;
        if written == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// Flushes the stream. Fails after `stall`.
pub(crate) async fn flush_moving(stream: &mut (impl AsyncWrite + Unpin), stall: Duration) -> Result<(), WriteError> {
    moving(stall, poll_fn(|cx| Pin::new(&mut *stream).poll_flush(cx))).await
}

/// Waits at most `stall` for `io`. Polls it once first: nearly all writes are ready at once and then need no timer.
async fn moving<T>(stall: Duration, mut io: impl Future<Output = io::Result<T>> + Unpin) -> Result<T, WriteError> {
    if let Poll::Ready(done) = poll_fn(|cx| Poll::Ready(io.poll_unpin(cx))).await {
        return Ok(done?);
    }
    Ok(timeout(stall, io).await.map_err(|_| WriteError::Stalled(stall))??)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::io::Cursor;

    fn framed(body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut n = body.len();
        while n >= 0x80 {
            out.push((n as u8) | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn a_lease_cannot_take_more_than_is_left_and_gives_back() {
        let budget = Budget::new(100);
        let mut one = budget.lease();
        let mut two = budget.lease();
        assert!(one.resize(80));
        assert!(!two.resize(21));
        assert!(two.resize(20));
        assert_eq!(budget.left(), 0);
        drop(one);
        assert!(two.resize(100));
        drop(two);
        assert_eq!(budget.left(), 100);
    }

    #[tokio::test]
    async fn messages_come_in_order_whatever_their_size() {
        let bodies = [vec![], vec![1; 10], vec![2; 5000], vec![3; 60_000], vec![4; 1]];
        let bytes: Vec<u8> = bodies.iter().flat_map(|b| framed(b)).collect();
        let budget = Budget::new(1 << 20);
        let mut reader = FrameReader::new(&budget, 64 * 1024);
        let mut stream = Cursor::new(bytes);
        for body in &bodies {
            let at = reader.next(&mut stream).await.unwrap().unwrap();
            assert_eq!(reader.body(at), &body[..]);
            reader.consume(at);
        }
        assert!(reader.next(&mut stream).await.unwrap().is_none());
        reader.release();
        assert_eq!(budget.left(), 1 << 20);
    }

    #[tokio::test]
    async fn a_reader_holds_no_more_than_has_arrived_and_a_step() {
        let budget = Budget::new(1 << 20);
        let mut reader = FrameReader::new(&budget, 64 * 1024);
        // Announces 60,000 bytes and sends 100.
        let mut bytes = framed(&vec![0; 60_000]);
        bytes.truncate(100);
        let mut stream = Cursor::new(bytes);
        assert!(matches!(reader.next(&mut stream).await, Err(ReadError::Truncated)));
        assert!((1 << 20) - budget.left() <= 2 * FREE);
    }

    #[tokio::test]
    async fn a_used_up_budget_refuses_long_messages_only() {
        let budget = Budget::new(2000);
        let mut stream = Cursor::new([framed(&[7; 40]), framed(&[8; 30_000])].concat());
        let mut reader = FrameReader::new(&budget, 64 * 1024);
        let at = reader.next(&mut stream).await.unwrap().unwrap();
        assert_eq!(reader.body(at), &[7; 40][..]);
        reader.consume(at);
        assert!(matches!(reader.next(&mut stream).await, Err(ReadError::OverBudget)));
        drop(reader);
        assert_eq!(budget.left(), 2000);
    }

    #[tokio::test]
    async fn a_length_over_the_limit_is_refused_at_once() {
        let budget = Budget::new(1 << 20);
        let mut reader = FrameReader::new(&budget, 64 * 1024);
        let mut stream = Cursor::new(framed(&vec![0; 64 * 1024 + 1]));
        assert!(matches!(reader.next(&mut stream).await, Err(ReadError::Frame(_))));
    }

    #[tokio::test]
    async fn msg_3_a_client_reads_4_mib_and_a_server_64_kib_and_neither_more() {
        for max in [frame::MAX_ANSWER, frame::MAX_REQUEST] {
            let budget = Budget::new(64 << 20);
            let mut reader = FrameReader::new(&budget, max);
            let at = reader.next(&mut Cursor::new(framed(&vec![7; max]))).await.unwrap().unwrap();
            assert_eq!(reader.body(at).len(), max);
            reader.consume(at);
            let longer = reader.next(&mut Cursor::new(framed(&vec![7; max + 1]))).await;
            assert!(matches!(longer, Err(ReadError::Frame(FrameError::TooLong(_)))));
        }
        assert_eq!((frame::MAX_ANSWER, frame::MAX_REQUEST), (4 << 20, 64 << 10));
    }
}
