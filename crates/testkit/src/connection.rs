//! Drives a connection without a swarm.

use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, SubstreamBox};
use std::{future::poll_fn, pin::Pin, task::Poll};
use tokio::sync::{mpsc, oneshot};

/// A request for a new stream. [`drive`] sends the stream on it, or drops the request if the connection ends first.
pub type OpenRequest = oneshot::Sender<SubstreamBox>;

/// Drives the connection: opens the requested streams and drops the streams that the other side opens.
pub async fn drive(mut muxer: StreamMuxerBox, mut requests: mpsc::Receiver<OpenRequest>) {
    let mut wanted: Option<OpenRequest> = None;
    poll_fn(|cx| {
        loop {
            if wanted.is_none() {
                match requests.poll_recv(cx) {
                    Poll::Ready(Some(reply)) => wanted = Some(reply),
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
            }
            if wanted.is_some() {
                match Pin::new(&mut muxer).poll_outbound(cx) {
                    Poll::Ready(Ok(stream)) => {
                        let _ = wanted.take().unwrap().send(stream);
                        continue;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
            }
            match Pin::new(&mut muxer).poll_inbound(cx) {
                Poll::Ready(Ok(_)) => continue,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            match Pin::new(&mut muxer).poll(cx) {
                Poll::Ready(Ok(_)) => continue,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}
