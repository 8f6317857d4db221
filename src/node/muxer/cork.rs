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

#[cfg(test)]
mod tests {
    use super::*;
    use futures::task::{ArcWake, waker};
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    /// Gives as many reads as it is told, and counts bytes and flushes.
    #[derive(Default)]
    struct Io {
        readable: usize,
        written: usize,
        /// What had been written at each flush.
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

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl ArcWake for Wakes {
        fn wake_by_ref(wakes: &Arc<Self>) {
            wakes.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Task {
        corked: Corked<Io>,
        wakes: Arc<Wakes>,
    }

    impl Task {
        fn new() -> Self {
            Self { corked: Corked::new(Io::default()), wakes: Arc::default() }
        }

        fn wakes(&self) -> usize {
            self.wakes.0.load(Ordering::Relaxed)
        }

        fn write(&mut self, bytes: usize) -> Poll<io::Result<usize>> {
            let (waker, bytes) = (waker(self.wakes.clone()), vec![0; bytes]);
            let mut cx = Context::from_waker(&waker);
            let written = Pin::new(&mut self.corked).poll_write(&mut cx, &bytes);
            assert!(Pin::new(&mut self.corked).poll_flush(&mut cx).is_ready());
            written
        }

        /// Reads `frames` frames, and then until nothing can be read.
        fn read(&mut self, frames: usize) -> Poll<io::Result<usize>> {
            self.corked.io.readable += frames * READS_PER_FRAME;
            let waker = waker(self.wakes.clone());
            loop {
                match Pin::new(&mut self.corked).poll_read(&mut Context::from_waker(&waker), &mut [0; 12]) {
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
        assert!(task.corked.io.flushes.is_empty());
        assert!(task.read(0).is_pending());
        assert_eq!(task.corked.io.flushes, [300]);
        // Nothing new: no message of noise about nothing.
        assert!(task.read(1).is_pending());
        assert_eq!((task.corked.io.flushes.len(), task.wakes()), (1, 0));
    }

    #[test]
    fn the_answer_to_a_single_frame_does_not_wait() {
        let mut task = Task::new();
        assert!(task.read(1).is_pending() && task.write(100).is_ready() && task.read(0).is_pending());
        assert_eq!((&task.corked.io.flushes[..], task.wakes()), (&[100][..], 0));
    }

    #[test]
    fn answers_to_frames_that_came_together_leave_together_after_one_turn() {
        let mut task = Task::new();
        assert!(task.read(8).is_pending());
        // The first stream's task woke it.
        assert!(task.write(100).is_ready() && task.read(0).is_pending());
        assert_eq!((task.corked.io.flushes.len(), task.wakes()), (0, 1));
        // By its own wake-up, behind the others.
        assert!((0..7).all(|_| task.write(100).is_ready()));
        assert!(task.read(0).is_pending());
        assert_eq!((&task.corked.io.flushes[..], task.wakes()), (&[800][..], 1));
    }

    #[test]
    fn requests_that_never_cease_hold_up_no_answer_for_more_than_a_turn() {
        let mut task = Task::new();
        for turn in 1..100 {
            assert!(task.read(5).is_pending() && task.write(100).is_ready());
            assert!(task.corked.io.flushes.last().unwrap_or(&0) + 300 >= turn * 100, "{turn}");
        }
    }

    #[test]
    fn no_more_is_held_than_the_bound_even_if_something_can_always_be_read() {
        let mut task = Task::new();
        for _ in 0..100 {
            assert!(task.write(5000).is_ready());
            assert!(task.corked.held < MAX_HELD + 5000);
        }
        assert!(task.corked.io.flushes.len() >= 20);
        // Who does not take it stops those who write.
        task.corked.io.is_stuck = true;
        assert!((0..5).any(|_| task.write(5000).is_pending()));
        assert!(task.corked.held < MAX_HELD + 5000);
    }

    #[test]
    fn an_error_of_a_flush_is_told_and_closing_flushes() {
        let mut task = Task::new();
        task.corked.io.is_broken = true;
        assert!(task.write(1).is_ready());
        assert!(matches!(task.read(0), Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe));
        let mut task = Task::new();
        assert!(task.read(8).is_pending() && task.write(1).is_ready());
        let waker = waker(task.wakes.clone());
        assert!(Pin::new(&mut task.corked).poll_close(&mut Context::from_waker(&waker)).is_ready());
        assert_eq!(task.corked.io.flushes, [1]);
    }
}
