//! The body of the fuzz target `frame`. Compiled only for that target and for tests.

use crate::{
    framing::{Budget, FrameReader, ReadError},
    kad::frame::{self, FrameError, Header},
};
use futures::{AsyncRead, FutureExt};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

/// A stream that returns at most `step` bytes at a time.
struct Trickle<'d> {
    rest: &'d [u8],
    step: usize,
}

impl AsyncRead for Trickle<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let (now, rest) = self.rest.split_at(self.step.min(into.len()).min(self.rest.len()));
        into[..now.len()].copy_from_slice(now);
        self.rest = rest;
        Poll::Ready(Ok(now.len()))
    }
}

/// Compares the frame reader with a plain walk over all bytes. The first byte of `data` sets the size of the pieces in
/// which the reader gets the rest.
pub fn frame(data: &[u8]) {
    const MAX_BODY: usize = 5000;
    const BUDGET: usize = 1 << 20;
    let Some((&step, mut rest)) = data.split_first() else { return };
    let budget = Budget::new(BUDGET);
    let mut reader = FrameReader::new(&budget, MAX_BODY);
    // Only short input is read byte by byte: waking a reader for every byte is slow and finds nothing else.
    let step = if rest.len() > 512 { usize::from(step).max(16) } else { usize::from(step) + 1 };
    let mut stream = Trickle { rest, step };
    loop {
        let read = reader.next(&mut stream).now_or_never();
        let Some(read) = read else { panic!("the stream was ready, the reader was not") };
        assert!(budget.used() <= rest.len() + (32 << 10), "holds more than has arrived");
        match (frame::header(rest, MAX_BODY), read) {
            (Ok(Header::Complete { header, body }), Ok(Some(at))) if header + body <= rest.len() => {
                assert_eq!(reader.body(at), &rest[header..header + body]);
                reader.consume(at);
                rest = &rest[header + body..];
            }
            (Ok(Header::Incomplete), Ok(None)) if rest.is_empty() => break,
            (Ok(_), Err(ReadError::Truncated)) if !rest.is_empty() => break,
            (Err(expected), Err(ReadError::Frame(error))) => {
                assert_eq!(expected, error);
                if let FrameError::TooLong(length) = error {
                    assert!(length > MAX_BODY as u64);
                }
                break;
            }
            (expected, read) => panic!("{expected:?} expected, read {read:?}"),
        }
    }
    drop(reader);
    assert_eq!(budget.used(), 0, "bytes were not returned to the budget");
}
