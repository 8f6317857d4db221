//! A connection without a swarm: streams are opened as they are asked for.

use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, SubstreamBox};
use std::{future::poll_fn, pin::Pin, task::Poll};
use tokio::sync::{mpsc, oneshot};

/// Where a stream is sent once it is open; dropped if the connection ends before.
pub type OpenRequest = oneshot::Sender<SubstreamBox>;

/// Keeps the connection moving: opens streams as asked, drops what the other side opens.
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
