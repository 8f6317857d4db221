//! A WebSocket as a stream of bytes. Each write sends one message; reads ignore where messages end.

use futures::{
    AsyncRead, AsyncWrite, StreamExt, TryStreamExt,
    future::BoxFuture,
    ready,
    stream::{self, BoxStream, IntoAsyncRead},
};
use soketto::{
    Sender,
    connection::{Builder, Error},
};
use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

/// Longest message that is accepted, in bytes. libp2p implementations send about 70 KiB at most, one noise or TLS
/// message each. soketto reserves the length that a frame's header claims before the bytes arrive, so this is also the
/// memory that a header of 14 bytes can make a connection use.
pub const MAX_MESSAGE: usize = 256 * 1024;

/// Most bytes in a message that we send: what noise and TLS write at once.
const MAX_WRITE: usize = 64 * 1024;

/// One connection, dialled or accepted, with or without TLS.
pub struct Connection {
    incoming: IntoAsyncRead<BoxStream<'static, io::Result<Vec<u8>>>>,
    sending: Sending,
}

/// The state of the sending half.
enum Sending {
    Idle(Box<dyn Outgoing>),
    Busy(BoxFuture<'static, (Box<dyn Outgoing>, io::Result<()>)>),
    /// Failed or closed. Nothing more can be sent.
    Over,
}

/// A request to the sending half.
enum Order {
    Send(Vec<u8>),
    Close,
}

/// The sending half over any socket.
trait Outgoing: Send {
    fn obey(self: Box<Self>, order: Order) -> BoxFuture<'static, (Box<dyn Outgoing>, io::Result<()>)>;
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Outgoing for Sender<S> {
    fn obey(mut self: Box<Self>, order: Order) -> BoxFuture<'static, (Box<dyn Outgoing>, io::Result<()>)> {
        Box::pin(async move {
            let done = match order {
                Order::Send(message) => match self.send_binary_mut(message).await {
                    Ok(()) => self.flush().await,
                    Err(error) => Err(error),
                },
                Order::Close => self.close().await,
            };
            (self as Box<dyn Outgoing>, done.map_err(io_error))
        })
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::Closed => io::ErrorKind::BrokenPipe.into(),
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

impl Connection {
    /// Returns the stream of a WebSocket after its handshake.
    pub fn new<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(mut builder: Builder<S>) -> Self {
        builder.set_max_message_size(MAX_MESSAGE);
        builder.set_max_frame_size(MAX_MESSAGE);
        let (sender, receiver) = builder.finish();
        // A failure ends the stream, because the bytes after a broken frame cannot be read as frames.
        let incoming = stream::unfold(Some(receiver), |receiver| async {
            let mut receiver = receiver?;
            let mut message = Vec::new();
            match receiver.receive_data(&mut message).await {
                Ok(_) => Some((Ok(message), Some(receiver))),
                Err(Error::Closed) => None,
                Err(error) => Some((Err(io_error(error)), None)),
            }
        });
        Self { incoming: incoming.boxed().into_async_read(), sending: Sending::Idle(Box::new(sender)) }
    }

    /// Waits until nothing is being sent.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Sending::Busy(order) = &mut self.sending {
            let (sender, done) = ready!(order.as_mut().poll(cx));
            self.sending = if done.is_ok() { Sending::Idle(sender) } else { Sending::Over };
            done?;
        }
        Poll::Ready(Ok(()))
    }

    /// Begins `order`. Call it only while nothing is being sent.
    fn begin(&mut self, order: Order) -> io::Result<()> {
        match std::mem::replace(&mut self.sending, Sending::Over) {
            Sending::Idle(sender) => {
                self.sending = Sending::Busy(sender.obey(order));
                Ok(())
            }
            Sending::Busy(_) | Sending::Over => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.incoming).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_idle(cx))?;
        let message = &buf[..buf.len().min(MAX_WRITE)];
        self.begin(Order::Send(message.to_vec()))?;
        Poll::Ready(Ok(message.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_idle(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_idle(cx))?;
        if matches!(self.sending, Sending::Over) {
            return Poll::Ready(Ok(()));
        }
        self.begin(Order::Close)?;
        let closed = ready!(self.poll_idle(cx));
        self.sending = Sending::Over;
        Poll::Ready(closed)
    }
}
