use super::*;
use crate::control::{
    client::{Client, ClientError, Line as Got},
    protocol::CidPart,
};

/// Counts the CIDs of a list in parts. Answers `find-providers` with as many rows as its limit says, and `dump` with as
/// many pieces of lines as its limit says. Never answers `peers`.
#[derive(Clone)]
struct Echo;

impl Handler for Echo {
    async fn handle(&self, request: Request, parts: &mut ListParts<'_>, replies: Replies) -> Result<Value, Failure> {
        match request {
            Request::Provide { cids, mut more, .. } => {
                let mut count = cids.len();
                while more {
                    replies.event(&count).await?;
                    let part: CidPart = parts.next().await?;
                    (more, count) = (part.more, count + part.cids.len());
                }
                done(&count)
            }
            Request::FindProviders { limit, .. } => {
                for number in 0..limit {
                    replies.row(&number).await?;
                }
                done(&limit)
            }
            Request::Dump { filter, lines: true, .. } => {
                let bulk = replies.bulk();
                let pieces = tokio::task::spawn_blocking(move || {
                    let limit = filter.limit.unwrap_or(0);
                    (0..limit).take_while(|piece| bulk.lines(&mut piece_of(*piece))).count()
                });
                done(&pieces.await.map_err(Failure::other)?)
            }
            Request::Peers => std::future::pending().await,
            _ => Err(Failure::data("no")),
        }
    }
}

/// Returns a piece of up to 80 kB, more than the buffers of both sides hold. The first piece is empty.
fn piece_of(number: u64) -> Vec<u8> {
    format!("{{\"piece\":{number}}}\n").repeat(usize::try_from(number).unwrap() * 97 % 5000).into_bytes()
}

fn pieces(limit: u64) -> Request {
    let filter = crate::store::dump::Filter { limit: Some(limit), ..Default::default() };
    Request::Dump { filter, count: false, hash: false, lines: true }
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
async fn lines_come_byte_for_byte_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _server) = start(&dir).await;
    let mut client = Client::connect(&path).await.unwrap();
    client.send(&pieces(300)).await.unwrap();
    for number in 0..300 {
        let Got::Row(lines) = client.next().await.unwrap() else { panic!("{number}") };
        assert!(lines.text() == piece_of(number), "piece {number}");
    }
    assert_eq!(client.next().await.unwrap(), Got::Done(300.into()));
    // The connection still works.
    client.send(&rows(1)).await.unwrap();
    assert_eq!(row(client.next().await.unwrap()), 0);
}

#[tokio::test]
async fn of_a_client_that_reads_no_lines_only_so_much_waits_and_it_ends_with_the_client() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let handed = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    /// Endless lines, counted.
    #[derive(Clone)]
    struct Endless(Arc<std::sync::atomic::AtomicUsize>);
    impl Handler for Endless {
        async fn handle(&self, _: Request, _: &mut ListParts<'_>, replies: Replies) -> Result<Value, Failure> {
            let (bulk, handed) = (replies.bulk(), self.0.clone());
            let sent = tokio::task::spawn_blocking(move || {
                while bulk.lines(&mut vec![b'x'; 64 << 10]) {
                    handed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            });
            sent.await.map_err(Failure::other)?;
            Err(Gone.into())
        }
    }
    let server = Server::bind(&path).await.unwrap();
    let _server = tokio::spawn(server.serve(Endless(handed.clone())));
    let mut client = Client::connect(&path).await.unwrap();
    client.send(&pieces(1)).await.unwrap();
    let mut before = usize::MAX;
    while before == 0 || handed.load(std::sync::atomic::Ordering::Relaxed) != before {
        before = handed.load(std::sync::atomic::Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // Waiting pieces, the piece being written, and the system's buffers.
    assert!((REPLIES..REPLIES + 64).contains(&before), "{before} pieces of 64 KiB");
    // Held by the thread, the handler of this client, the server and this test.
    assert_eq!(Arc::strong_count(&handed), 4);
    drop(client);
    timeout(Duration::from_secs(10), async {
        while Arc::strong_count(&handed) > 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the thread ends when the client is gone");
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
async fn where_no_socket_can_be_made_the_error_names_the_setting() {
    // Neither file system allows new files, even for root.
    for directory in ["/proc/self", "/sys/kernel"] {
        let error = Server::bind(&Path::new(directory).join("control.sock")).await.unwrap_err();
        assert!(matches!(error, ControlError::Io { .. }), "{error:?}");
        let error = error.to_string();
        assert!(error.contains(directory) && error.contains("; set control.socket to"), "{error}");
    }
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
        // After an endless line, a reset may discard the answer.
        assert!(answer.contains("\"code\":65") || line.len() > MAX_REQUEST_LINE, "{answer}");
    }
    let mut client = Client::connect(&path).await.unwrap();
    client.send(&rows(0)).await.unwrap();
    assert_eq!(client.next().await.unwrap(), Got::Done(0.into()));
}

fn list(len: usize) -> Request {
    Request::Provide { cids: vec!["cid".into(); len], more: true, total: 0, wait: false, verify: false }
}

#[tokio::test]
async fn a_list_in_parts_is_one_request_and_another_may_follow_it() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _server) = start(&dir).await;
    let mut client = Client::connect(&path).await.unwrap();
    client.send(&list(2)).await.unwrap();
    for (len, more, so_far) in [(3, true, 2), (0, true, 5), (4, false, 5)] {
        let Got::Event(event) = client.next().await.unwrap() else { panic!("{so_far}") };
        assert_eq!(event.parse::<usize>().unwrap(), so_far);
        client.send_part(&CidPart { cids: vec!["cid".into(); len], more }).await.unwrap();
    }
    assert_eq!(client.next().await.unwrap(), Got::Done(9.into()));
    client.send(&rows(0)).await.unwrap();
    assert_eq!(client.next().await.unwrap(), Got::Done(0.into()));
}

#[tokio::test]
async fn a_list_that_breaks_off_is_refused_and_what_follows_is_taken_for_no_request() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _server) = start(&dir).await;
    let mut client = Client::connect(&path).await.unwrap();
    client.send(&list(2)).await.unwrap();
    client.send(&Request::Stat).await.unwrap();
    assert!(matches!(client.next().await.unwrap(), Got::Event(_)));
    assert!(matches!(client.next().await.unwrap(), Got::Error(Failure { code: 65, .. })));
    assert!(matches!(client.next().await, Err(ClientError::Closed)));
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

#[tokio::test]
async fn clients_that_send_half_a_line_or_read_nothing_give_way_to_those_that_work() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _server) = start(&dir).await;
    let mut silent = Vec::new();
    for number in 0..MAX_CLIENTS {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let request = match number % 2 {
            0 => b"{\"find".to_vec(),
            // An answer larger than the buffers, which is never read.
            _ => [serde_json::to_vec(&pieces(500)).unwrap(), b"\n".to_vec()].concat(),
        };
        stream.write_all(&request).await.unwrap();
        silent.push(stream);
    }
    tokio::time::sleep(PATIENCE * 2).await;
    for _ in 0..3 * MAX_CLIENTS {
        let mut client = Client::connect(&path).await.unwrap();
        client.send(&rows(1)).await.unwrap();
        assert_eq!(row(client.next().await.unwrap()), 0);
    }
}
