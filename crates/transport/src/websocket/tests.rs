use super::{bounded::Bounded, connection::MAX_MESSAGE, *};
use futures::{AsyncReadExt, AsyncWriteExt};
use soketto::connection::{Builder, Mode};
use tokio::io::DuplexStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

/// Returns the two ends of a pipe that holds 4 KiB, less than most messages.
fn pipe() -> (Compat<DuplexStream>, Compat<DuplexStream>) {
    let (one, other) = tokio::io::duplex(4096);
    (one.compat(), other.compat())
}

/// Returns a connection after its handshake, and the other end of its socket.
fn connection(mode: Mode) -> (Connection, Compat<DuplexStream>) {
    let (one, other) = pipe();
    (Connection::new(Builder::new(one, mode)), other)
}

async fn read_all(connection: &mut Connection) -> (Vec<u8>, io::Result<()>) {
    let mut read = Vec::new();
    let end = connection.read_to_end(&mut read).await.map(drop);
    (read, end)
}

#[tokio::test]
async fn net_5_bytes_arrive_in_order_whatever_the_messages_are() {
    let sent: Vec<u8> = (0..1_000_000u32).map(|n| n.to_be_bytes()[3] ^ n.to_be_bytes()[1]).collect();
    let (near, far) = pipe();
    let mut client = Connection::new(Builder::new(near, Mode::Client));
    let mut server = Connection::new(Builder::new(far, Mode::Server));
    let sending = async {
        for part in sent.chunks(170_001) {
            client.write_all(part).await.unwrap();
        }
        client.close().await.unwrap();
        assert_eq!(client.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    };
    let ((), (read, end)) = futures::join!(sending, read_all(&mut server));
    assert!(end.is_ok(), "{end:?}");
    assert!(read == sent);
}

#[tokio::test]
async fn fragments_and_pings_between_them_are_one_stream() {
    let (mut client, mut server) = connection(Mode::Client);
    // The first half of a binary message, a ping, the second half, a text message, close.
    let frames = [&[0x02, 2, 1, 2][..], &[0x89, 1, 9], &[0x80, 1, 3], &[0x81, 1, 4], &[0x88, 0]].concat();
    server.write_all(&frames).await.unwrap();
    let (read, end) = read_all(&mut client).await;
    assert!(end.is_ok(), "{end:?}");
    assert_eq!(read, [1, 2, 3, 4]);
}

#[tokio::test]
async fn net_5_a_longer_message_than_allowed_ends_the_connection_by_its_header_alone() {
    let (mut client, mut server) = connection(Mode::Client);
    let claimed = (MAX_MESSAGE as u64 + 1).to_be_bytes();
    server.write_all(&[&[0x82, 127][..], &claimed].concat()).await.unwrap();
    // The socket stays open, and yet the read ends without waiting for the claimed bytes.
    let (read, end) = read_all(&mut client).await;
    assert!(read.is_empty());
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn net_5_fragments_that_come_to_a_longer_message_than_allowed_are_not_kept() {
    let (mut client, mut server) = connection(Mode::Client);
    // As long as allowed, then one byte more.
    let frames = [&[0x02, 127][..], &(MAX_MESSAGE as u64).to_be_bytes(), &vec![0; MAX_MESSAGE], &[0x80, 1, 0]].concat();
    // The sender closes its end after the frames, because soketto reads on before it reports the error.
    let sending = async move { server.write_all(&frames).await.unwrap() };
    let ((), (read, end)) = futures::join!(sending, read_all(&mut client));
    assert!(read.is_empty() && end.is_err());
}

/// Returns the error of a dial whose server sends `answer` and keeps the connection open.
async fn answered(answer: &[u8]) -> io::Error {
    let (near, mut far) = pipe();
    let server = async {
        // The dialler may have closed the connection already.
        let _ = far.write_all(answer).await;
        far
    };
    let (_far, asked) = futures::join!(server, ask(near, "a.example:443"));
    asked.unwrap_err()
}

#[tokio::test]
async fn net_5_redirects_refusals_and_endless_answers_are_errors() {
    let redirect = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n";
    assert!(answered(redirect).await.to_string().contains("302"));
    assert!(answered(b"HTTP/1.1 404 Not Found\r\n\r\n").await.to_string().contains("404"));
    let endless = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; MAX_ANSWER]].concat();
    assert!(answered(&endless).await.to_string().contains("too long"));
}

#[tokio::test]
async fn a_bound_that_is_lifted_is_none() {
    let (near, mut far) = pipe();
    let (mut socket, bound) = Bounded::new(near, 3);
    far.write_all(b"abcdef").await.unwrap();
    let mut buf = [0; 8];
    assert_eq!(socket.read(&mut buf).await.unwrap(), 3);
    assert_eq!(socket.read(&mut buf).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    bound.lift();
    assert_eq!(socket.read(&mut buf).await.unwrap(), 3);
}
