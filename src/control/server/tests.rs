use super::*;
use crate::control::client::{Client, ClientError, Line as Got};

/// Streams as many rows as the limit of `find-providers` says; hangs on `peers`.
#[derive(Clone)]
struct Echo;

impl Handler for Echo {
    async fn handle(&self, request: Request, replies: Replies) -> Result<Value, Failure> {
        match request {
            Request::FindProviders { limit, .. } => {
                for number in 0..limit {
                    replies.row(&number).await?;
                }
                done(&limit)
            }
            Request::Peers => std::future::pending().await,
            _ => Err(Failure::data("no")),
        }
    }
}

async fn start(dir: &tempfile::TempDir) -> (PathBuf, tokio::task::JoinHandle<()>) {
    let path = dir.path().join("control.sock");
    let server = Server::bind(&path).await.unwrap();
    (path, tokio::spawn(server.serve(Echo)))
}

fn row(line: Got<'_>) -> usize {
    let Got::Row(row) = line else { panic!("{line:?}") };
    row.parse().unwrap()
}

fn rows(limit: usize) -> Request {
    Request::FindProviders { cid: String::new(), limit, local: true }
}

#[tokio::test]
async fn rows_come_in_order_and_requests_follow_each_other_on_one_connection() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _server) = start(&dir).await;
    let mut client = Client::connect(&path).await.unwrap();
    for count in [3usize, 0, 1000] {
        client.send(&rows(count)).await.unwrap();
        for number in 0..count {
            assert_eq!(row(client.next().await.unwrap()), number);
        }
        assert_eq!(client.next().await.unwrap(), Got::Done(count.into()));
    }
    client.send(&Request::Stat).await.unwrap();
    assert_eq!(client.next().await.unwrap(), Got::Error(Failure::data("no")));
}

#[tokio::test]
async fn the_socket_is_open_to_its_owner_only_and_removed_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (path, server) = start(&dir).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    server.abort();
    assert!(server.await.unwrap_err().is_cancelled());
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = Server::bind(&path).await.unwrap();
    assert!(matches!(Server::bind(&path).await, Err(ControlError::InUse(_))));
    drop(server);
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(Server::bind(&path).await, Err(ControlError::NotASocket(_))));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn a_path_too_long_is_told_with_its_length() {
    let path = PathBuf::from(format!("/tmp/{}", "x".repeat(200)));
    let error = Server::bind(&path).await.unwrap_err().to_string();
    assert!(error.contains("205 bytes") && error.contains("control.socket"), "{error}");
}

#[tokio::test]
async fn malformed_and_endless_requests_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _server) = start(&dir).await;
    for line in [b"{]\n".to_vec(), vec![b'x'; MAX_REQUEST_LINE + 2], b"{\"cmd\":\"fly\"}\n".to_vec()] {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let _ = stream.write_all(&line).await;
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        // An endless line may end in a reset that takes the answer along.
        assert!(answer.contains("\"code\":65") || line.len() > MAX_REQUEST_LINE, "{answer}");
    }
    let mut client = Client::connect(&path).await.unwrap();
    client.send(&rows(0)).await.unwrap();
    assert_eq!(client.next().await.unwrap(), Got::Done(0.into()));
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _server) = start(&dir).await;
    let mut slow = Client::connect(&path).await.unwrap();
    slow.send(&rows(10_000_000)).await.unwrap();
    let mut other = Client::connect(&path).await.unwrap();
    other.send(&rows(1)).await.unwrap();
    assert_eq!(row(other.next().await.unwrap()), 0);
}

#[tokio::test]
async fn one_client_too_many_is_told_to_try_again() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _server) = start(&dir).await;
    let mut clients = Vec::new();
    for _ in 0..MAX_CLIENTS {
        let mut client = Client::connect(&path).await.unwrap();
        client.send(&Request::Peers).await.unwrap();
        clients.push(client);
    }
    let mut late = Client::connect(&path).await.unwrap();
    late.send(&rows(0)).await.unwrap();
    assert!(matches!(late.next().await.unwrap(), Got::Error(Failure { code: 75, .. })));
}

#[tokio::test]
async fn without_a_server_the_error_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    let error = Client::connect(&dir.path().join("control.sock")).await.unwrap_err();
    assert!(matches!(error, ClientError::NotReachable { .. }));
    assert!(error.to_string().contains("dhtstore run"));
}
