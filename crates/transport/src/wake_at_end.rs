//! Wakes libp2p-swarm's task of a connection when a stream ends.
//!
//! The swarm checks whether a connection is idle only when the task of that connection runs. Another task drives the
//! connection, quinn's or that of [`crate::muxer`], so the end of a stream does not wake it. Without this module the
//! idle time would begin at the next ping, and the connection would stay open longer.

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use parking_lot::{Mutex, MutexGuard};
use std::{
    io::{self, IoSlice, IoSliceMut},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// A connection that wakes its task when one of its streams is dropped.
#[derive(Debug)]
pub struct WakesAtEnd<M> {
    muxer: M,
    bell: Bell,
}

impl<M> WakesAtEnd<M> {
    pub fn new(muxer: M) -> Self {
        Self { muxer, bell: Bell::default() }
    }

    fn wrap<S>(&self, stream: S) -> Waking<S> {
        Waking { stream, _rings: RingsAtEnd(self.bell.clone()) }
    }
}

impl<M: StreamMuxer<Substream: Unpin> + Unpin> StreamMuxer for WakesAtEnd<M> {
    type Substream = Waking<M::Substream>;
    type Error = M::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, M::Error>> {
        Pin::new(&mut self.muxer).poll_inbound(cx).map_ok(|stream| self.wrap(stream))
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, M::Error>> {
        Pin::new(&mut self.muxer).poll_outbound(cx).map_ok(|stream| self.wrap(stream))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), M::Error>> {
        Pin::new(&mut self.muxer).poll_close(cx)
    }

    /// Called each time the connection's task runs.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, M::Error>> {
        self.bell.wakes(cx.waker());
        Pin::new(&mut self.muxer).poll(cx)
    }
}

/// A stream of such a connection.
#[derive(Debug)]
pub struct Waking<S> {
    stream: S,
    /// After the stream, because fields are dropped in this order.
    _rings: RingsAtEnd,
}

impl<S: AsyncRead + Unpin> AsyncRead for Waking<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read_vectored(cx, bufs)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Waking<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// Rings the bell when it is dropped.
#[derive(Debug)]
struct RingsAtEnd(Bell);

impl Drop for RingsAtEnd {
    fn drop(&mut self) {
        self.0.ring();
    }
}

/// The waker of the connection's task. Ringing does not remove the waker. A stream may end after the check whether the
/// connection is idle, but within the same run of the task, and the task must then be woken again.
#[derive(Clone, Default, Debug)]
struct Bell(Arc<Mutex<Option<Waker>>>);

impl Bell {
    fn wakes(&self, task: &Waker) {
        let mut waker = self.waker();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(task)) {
            let old = waker.replace(task.clone());
            drop(waker);
            // Outside the lock: the old waker may be the last owner of a task, and dropping that task drops its
            // streams.
            drop(old);
        }
    }

    fn ring(&self) {
        let task = self.waker().clone();
        if let Some(task) = task {
            task.wake();
        }
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::task::{ArcWake, waker};
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicUsize, Ordering},
    };

    /// A connection that always has a new stream.
    struct Muxer;

    impl StreamMuxer for Muxer {
        type Substream = futures::io::Cursor<Vec<u8>>;
        type Error = Infallible;

        fn poll_inbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<Self::Substream, Infallible>> {
            Poll::Ready(Ok(futures::io::Cursor::default()))
        }

        fn poll_outbound(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Substream, Infallible>> {
            self.poll_inbound(cx)
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Infallible>> {
            Poll::Pending
        }
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl ArcWake for Wakes {
        fn wake_by_ref(wakes: &Arc<Self>) {
            wakes.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn each_end_of_a_stream_wakes_the_task_that_polled_last() {
        let (mut muxer, [first, second]) = (WakesAtEnd::new(Muxer), [(); 2].map(|()| Arc::<Wakes>::default()));
        let wakes = || [&first, &second].map(|wakes| wakes.0.load(Ordering::Relaxed));
        let mut poll = |wakes: &Arc<Wakes>| {
            let waker = waker(wakes.clone());
            let mut cx = Context::from_waker(&waker);
            assert!(Pin::new(&mut muxer).poll(&mut cx).is_pending());
            let (inbound, outbound) =
                (Pin::new(&mut muxer).poll_inbound(&mut cx), Pin::new(&mut muxer).poll_outbound(&mut cx));
            [inbound, outbound]
        };
        let [inbound, outbound] = poll(&first);
        assert_eq!(wakes(), [0, 0]);
        drop(inbound);
        assert_eq!(wakes(), [1, 0]);
        // The second stream also wakes the task, without a poll since the first one ended.
        drop(outbound);
        assert_eq!(wakes(), [2, 0]);
        let streams = [poll(&first), poll(&second)];
        drop(streams);
        assert_eq!(wakes(), [2, 4]);
    }
}
