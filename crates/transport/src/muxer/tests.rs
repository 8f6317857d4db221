use super::*;
use futures::{AsyncReadExt, AsyncWriteExt};
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::compat::TokioAsyncReadCompatExt;

/// Returns both ends of a connection, the dialler's first.
async fn connected() -> (Driven, Driven) {
    let (dialler, listener) = tokio::io::duplex(64 * 1024);
    let yamux = Yamux::with_max_streams(64);
    let info = "/yamux/1.0.0";
    let dialler = yamux.clone().upgrade_outbound(dialler.compat(), info).await.unwrap();
    (dialler, yamux.upgrade_inbound(listener.compat(), info).await.unwrap())
}

async fn open(driven: &mut Driven) -> io::Result<yamux::Stream> {
    within(poll_fn(|cx| Pin::new(&mut *driven).poll_outbound(cx))).await
}

async fn accept(driven: &mut Driven) -> io::Result<yamux::Stream> {
    within(poll_fn(|cx| Pin::new(&mut *driven).poll_inbound(cx))).await
}

/// Opens a stream from `a` to `b` and returns both ends.
async fn stream(a: &mut Driven, b: &mut Driven) -> (yamux::Stream, yamux::Stream) {
    let mut opened = open(a).await.unwrap();
    // yamux reports a stream to the other side with its first bytes.
    opened.write_all(&[1]).await.unwrap();
    let mut accepted = accept(b).await.unwrap();
    within(accepted.read_exact(&mut [0])).await.unwrap();
    (opened, accepted)
}

async fn end(driven: &mut Driven) -> io::Error {
    within(poll_fn(|cx| Pin::new(&mut *driven).poll(cx))).await.unwrap_err()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), future).await.unwrap()
}

/// Asserts that `bytes` written to `one` arrive at `other`.
async fn assert_joined(one: &mut yamux::Stream, other: &mut yamux::Stream, bytes: &[u8]) {
    within(async {
        one.write_all(bytes).await.unwrap();
        one.flush().await.unwrap();
        let mut read = vec![0; bytes.len()];
        other.read_exact(&mut read).await.unwrap();
        assert_eq!(read, bytes);
    })
    .await;
}

#[tokio::test]
async fn streams_are_opened_by_either_side_and_carry_bytes_both_ways() {
    let (mut a, mut b) = connected().await;
    for n in 0..40 {
        let (opener, acceptor) = if n % 2 == 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
        let (mut opened, mut accepted) = stream(opener, acceptor).await;
        assert_joined(&mut accepted, &mut opened, &[n; 20_000]).await;
        assert_joined(&mut opened, &mut accepted, &[n; 20_000]).await;
    }
}

#[tokio::test]
async fn open_streams_go_on_while_nobody_takes_new_ones() {
    let (mut a, mut b) = connected().await;
    let (mut opened, mut accepted) = stream(&mut a, &mut b).await;
    let mut waiting = Vec::new();
    for n in 0..20 {
        let mut stream = open(&mut a).await.unwrap();
        stream.write_all(&[n]).await.unwrap();
        waiting.push(stream);
    }
    assert_joined(&mut opened, &mut accepted, &[7; 30_000]).await;
    assert_joined(&mut accepted, &mut opened, &[8; 30_000]).await;
    // All of them arrive, in order.
    for n in 0..20 {
        let mut first = [0];
        within(accept(&mut b).await.unwrap().read_exact(&mut first)).await.unwrap();
        assert_eq!(first, [n]);
    }
}

#[tokio::test]
async fn closed_by_one_side_it_ends_at_both_with_what_was_written_before() {
    let (mut a, mut b) = connected().await;
    let mut opened = open(&mut a).await.unwrap();
    opened.write_all(&[5; 1000]).await.unwrap();
    within(poll_fn(|cx| Pin::new(&mut a).poll_close(cx))).await.unwrap();
    let mut accepted = accept(&mut b).await.unwrap();
    let mut read = Vec::new();
    within(accepted.read_to_end(&mut read)).await.ok();
    assert_eq!(read, [5; 1000]);
    end(&mut b).await;
    assert!(open(&mut b).await.is_err());
    assert!(accept(&mut b).await.is_err());
    assert!(open(&mut a).await.is_err());
    // The swarm may close it twice.
    within(poll_fn(|cx| Pin::new(&mut a).poll_close(cx))).await.unwrap();
    within(poll_fn(|cx| Pin::new(&mut b).poll_close(cx))).await.unwrap();
}

#[tokio::test]
async fn dropped_it_is_cut_and_its_streams_end() {
    let (mut a, mut b) = connected().await;
    let (mut opened, mut accepted) = stream(&mut a, &mut b).await;
    drop(a);
    end(&mut b).await;
    assert!(matches!(within(accepted.read(&mut [0])).await, Ok(0) | Err(_)));
    assert!(matches!(within(opened.read(&mut [0])).await, Ok(0) | Err(_)));
}
