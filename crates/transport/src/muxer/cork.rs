//! Holds back written bytes until the task has nothing left to do.
//!
//! yamux flushes after each frame. Each flush is a noise message and a system call, and together these cost more than
//! making the answer.

use futures::{AsyncRead, AsyncWrite};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// Once this many bytes are held back, the next write flushes first. The three noise buffers of each connection grow
/// with this value.
const MAX_HELD: usize = 16 * 1024;

/// An encrypted connection that delays a flush until nothing can be read. The task that drives the connection does its
/// reads last, and reads until it has to wait.
#[derive(Debug)]
pub struct Corked<T> {
    io: T,
    /// Bytes written and not flushed yet.
    held: usize,
}

impl<T: AsyncWrite + Unpin> Corked<T> {
    pub fn new(io: T) -> Self {
        Self { io, held: 0 }
    }

    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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
            && let Poll::Ready(Err(error)) = self.poll_release(cx)
        {
            return Poll::Ready(Err(error));
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Corked<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.held >= MAX_HELD {
            ready!(self.poll_release(cx))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures::task::noop_waker_ref;

    /// A socket that allows `readable` reads, and counts bytes and flushes.
    #[derive(Default)]
    struct Io {
        readable: usize,
        written: usize,
        /// The bytes written up to each flush.
        flushes: Vec<usize>,
        is_broken: bool,
        is_stuck: bool,
    }

    impl AsyncRead for Io {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
            if self.readable == 0 {
                return Poll::Pending;
            }
            self.readable -= 1;
            Poll::Ready(Ok(buf.len()))
        }
    }

    impl AsyncWrite for Io {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.written += buf.len();
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.is_stuck {
                return Poll::Pending;
            }
            if self.is_broken {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let written = self.written;
            self.flushes.push(written);
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.poll_flush(cx)
        }
    }

    struct Task(Corked<Io>);

    impl Task {
        fn new() -> Self {
            Self(Corked::new(Io::default()))
        }

        fn write(&mut self, bytes: usize) -> Poll<io::Result<usize>> {
            let mut cx = Context::from_waker(noop_waker_ref());
            let written = Pin::new(&mut self.0).poll_write(&mut cx, &vec![0; bytes]);
            assert!(Pin::new(&mut self.0).poll_flush(&mut cx).is_ready());
            written
        }

        /// Makes `times` reads possible, and reads until it has to wait.
        fn read(&mut self, times: usize) -> Poll<io::Result<usize>> {
            self.0.io.readable += times;
            loop {
                match Pin::new(&mut self.0).poll_read(&mut Context::from_waker(noop_waker_ref()), &mut [0; 12]) {
                    Poll::Ready(Ok(_)) => {}
                    end => return end,
                }
            }
        }
    }

    #[test]
    fn what_is_written_leaves_when_nothing_can_be_read() {
        let mut task = Task::new();
        assert!(task.write(100).is_ready() && task.write(200).is_ready());
        assert!(task.0.io.flushes.is_empty());
        assert!(task.read(0).is_pending());
        assert_eq!(task.0.io.flushes, [300]);
        // Nothing was written since, so there is no empty noise message.
        assert!(task.read(2).is_pending());
        assert_eq!(task.0.io.flushes.len(), 1);
    }

    #[test]
    fn what_can_be_read_is_read_first_and_then_nothing_is_held_back() {
        let mut task = Task::new();
        for turn in 1..100 {
            assert!(task.write(100).is_ready() && task.write(100).is_ready() && task.read(5).is_pending());
            assert_eq!(task.0.io.flushes.last(), Some(&(turn * 200)));
            assert_eq!(task.0.io.flushes.len(), turn);
        }
    }

    #[test]
    fn no_more_is_held_than_the_bound_even_if_something_can_always_be_read() {
        let mut task = Task::new();
        for _ in 0..100 {
            assert!(task.write(5000).is_ready());
            assert!(task.0.held < MAX_HELD + 5000);
        }
        assert!(task.0.io.flushes.len() >= 20);
        // A reader that takes nothing stops the writers.
        task.0.io.is_stuck = true;
        assert!((0..5).any(|_| task.write(5000).is_pending()));
        assert!(task.0.held < MAX_HELD + 5000);
    }

    #[test]
    fn an_error_of_a_flush_is_told_and_closing_flushes() {
        let mut task = Task::new();
        task.0.io.is_broken = true;
        assert!(task.write(1).is_ready());
        assert!(matches!(task.read(0), Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe));
        let mut task = Task::new();
        assert!(task.write(1).is_ready());
        assert!(Pin::new(&mut task.0).poll_close(&mut Context::from_waker(noop_waker_ref())).is_ready());
        assert_eq!(task.0.io.flushes, [1]);
    }
}
