//! Listening on the control socket: who may talk, how much, for how long. What is answered is the [`Handler`]'s.

mod clients;
mod replies;

pub use clients::{Client, Clients, PATIENCE};
pub use replies::{Bulk, Gone, Replies, done};

use super::protocol::{Failure, MAX_REQUEST_LINE, Reply, Request, SIGN_OF_LIFE_EVERY};
use bytes::Buf;
use replies::{Written, line};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    future::Future,
    io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{error::Elapsed, timeout},
};

/// Clients served at the same time. Beyond them one that neither sends nor reads gives way ([`Clients`]); where all do, the
/// newcomer is asked to come back. Each holds some 2 MB at most.
pub const MAX_CLIENTS: usize = 32;
/// Replies that wait for a client to read them: a slow reader holds up its own request, nothing else. Those of a dump
/// have 64 kB each.
const REPLIES: usize = 32;
/// A client that reads nothing for so long is dropped. Long, since `dump | less` is a client as well.
const WRITE_TIMEOUT: Duration = Duration::from_secs(600);
/// A client without a request under way is dropped after so long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of a socket address that the system takes, the final zero included: 108 on Linux, 104 on the BSDs and macOS.
const MAX_PATH: usize = if cfg!(target_os = "linux") { 108 } else { 104 };

/// Why the control socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The path does not fit into a socket address.
    #[error(
        "cannot create control socket {path}: the path is {len} bytes long and the system takes {max}; set control.socket to a \
         shorter one, like /run/dhtstore/control.sock"
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// Somebody answers there.
    #[error("control socket {0} is in use by another process; set control.socket to another path")]
    InUse(PathBuf),
    /// Something that is no socket is in the way.
    #[error("{0} is in the way of the control socket and is not a socket; remove it or set control.socket")]
    NotASocket(PathBuf),
    /// The system refuses.
    #[error(
        "cannot create control socket {path}: {source}; set control.socket to a path that you can write to, on a file system \
         with sockets, like /run/dhtstore/control.sock"
    )]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Answers requests.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Answers one; what it returns is the last line. Dropped when the client goes away. A request that comes in parts is
    /// read to its end from `parts`, unless it fails: then the connection is closed.
    fn handle(
        &self,
        request: Request,
        parts: &mut ListParts<'_>,
        replies: Replies,
    ) -> impl Future<Output = Result<Value, Failure>> + Send;
}

/// Further lines of a request that comes in parts, each of [`MAX_REQUEST_LINE`] at most. One is held at a time.
#[derive(Debug)]
pub struct ListParts<'r> {
    reader: &'r mut BufReader<OwnedReadHalf>,
    client: &'r Client,
}

impl ListParts<'_> {
    /// Reads the next part.
    ///
    /// # Errors
    /// The client is gone, sends nothing for 60 s, or sends what is no part.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        match patiently(self.client, IDLE_TIMEOUT, read_line(self.reader)).await {
            Ok(Ok(Some(part))) => Ok(part),
            Ok(Err(ReadError::Malformed(message))) => Err(Failure::data(message)),
            Err(_) | Ok(Ok(None) | Err(ReadError::Io)) => Err(Gone.into()),
        }
    }
}

/// The listening socket; the file is removed when this is dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Creates the socket (0600), in place of one that a dead process has left behind.
    pub async fn bind(path: &Path) -> Result<Self, ControlError> {
        let failed = |source| ControlError::Io { path: path.to_owned(), source };
        let len = path.as_os_str().as_bytes().len();
        // Bound under another name first, see below.
        let new = path.with_extension("new");
        if len.max(new.as_os_str().as_bytes().len()) >= MAX_PATH {
            return Err(ControlError::PathTooLong { path: path.to_owned(), len, max: MAX_PATH - 1 });
        }
        match tokio::fs::symlink_metadata(path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
            Ok(found) if !std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => {
                return Err(ControlError::NotASocket(path.to_owned()));
            }
            Ok(_) if UnixStream::connect(path).await.is_ok() => return Err(ControlError::InUse(path.to_owned())),
            Ok(_) => {}
        }
        // Nobody can connect before it is closed to others, and a stale one is replaced in one step.
        let _ = tokio::fs::remove_file(&new).await;
        let listener = UnixListener::bind(&new).map_err(failed)?;
        tokio::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).await.map_err(failed)?;
        tokio::fs::rename(&new, path).await.map_err(failed)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves until this future is dropped.
    pub async fn serve<H: Handler>(self, handler: H) {
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        let served = Clients::default();
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                Some(_) = clients.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let place = match Arc::clone(&places).try_acquire_owned() {
                            // It ends within moments, and no more wait for a place than have been made to give way.
                            Err(_) if served.make_room() => timeout(PATIENCE, Arc::clone(&places).acquire_owned()).await.ok().and_then(Result::ok),
                            place => place.ok(),
                        };
                        let Some(place) = place else {
                            turn_away(stream);
                            continue;
                        };
                        let (handler, client) = (handler.clone(), Arc::<Client>::default());
                        let listed = served.list(client.clone());
                        clients.spawn(async move {
                            tokio::select! {
                                () = serve_client(stream, handler, client.clone()) => {}
                                () = client.gives_way() => {}
                            }
                            drop((listed, place));
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "control socket does not accept");
                        // Out of file descriptors, most likely: it would fail again at once.
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                },
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// One line that fits into the socket's buffer, without waiting.
fn turn_away(stream: UnixStream) {
    let failure = Failure::busy(format_args!("{MAX_CLIENTS} clients are being served; try again"));
    let _ = stream.try_write(&line(&Reply::Error(failure)));
}

async fn serve_client<H: Handler>(stream: UnixStream, handler: H, client: Arc<Client>) {
    let (read, write) = stream.into_split();
    let mut reader = BufReader::new(read);
    let (replies, waiting) = mpsc::channel(REPLIES);
    let writer = write_replies(write, waiting, client.clone());
    let requests = async move {
        loop {
            let request = patiently(&client, IDLE_TIMEOUT, read_line::<Request>(&mut reader)).await;
            let request = match request {
                Err(_) | Ok(Ok(None) | Err(ReadError::Io)) => return,
                Ok(Ok(Some(request))) => request,
                Ok(Err(ReadError::Malformed(message))) => {
                    // Where the next line begins is unknown.
                    let _ = replies.send(line(&Reply::Error(Failure::data(message))).into()).await;
                    return;
                }
            };
            let has_parts = request.has_parts();
            let mut parts = ListParts { reader: &mut reader, client: &client };
            let last = match handler.handle(request, &mut parts, Replies::new(&replies, &client)).await {
                Ok(done) => Reply::Done(done),
                Err(failure) => Reply::Error(failure),
            };
            // Parts that were not read any more are no requests.
            let is_out_of_step = has_parts && matches!(last, Reply::Error(_));
            if replies.send(line(&last).into()).await.is_err() || is_out_of_step {
                return;
            }
        }
    };
    // The writer ends when the client is gone, which drops the request under way; or when all is said.
    let mut requests = std::pin::pin!(requests);
    let mut writer = std::pin::pin!(writer);
    tokio::select! {
        () = &mut writer => {}
        () = &mut requests => writer.await,
    }
}

/// Waits for a client to send or to read; after [`PATIENCE`] it may have to give way.
async fn patiently<T>(client: &Client, limit: Duration, wait: impl Future<Output = T>) -> Result<T, Elapsed> {
    let mut wait = std::pin::pin!(wait);
    let outcome = match timeout(PATIENCE, &mut wait).await {
        Ok(done) => return Ok(done),
        Err(_) => {
            client.is_slow();
            timeout(limit, wait).await
        }
    };
    client.moves();
    outcome
}

enum ReadError {
    Io,
    Malformed(String),
}

/// The next request, or part of one; `None` at the end.
async fn read_line<T: DeserializeOwned>(reader: &mut (impl AsyncBufReadExt + Unpin)) -> Result<Option<T>, ReadError> {
    let mut line = Vec::new();
    let mut limited = reader.take(MAX_REQUEST_LINE as u64 + 1);
    limited.read_until(b'\n', &mut line).await.map_err(|_| ReadError::Io)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.len() > MAX_REQUEST_LINE {
        return Err(ReadError::Malformed(format!("request of more than {MAX_REQUEST_LINE} bytes")));
    }
    serde_json::from_slice(&line).map(Some).map_err(|error| ReadError::Malformed(format!("malformed request: {error}")))
}

/// Writes what comes, in one go where more is waiting, and a sign of life when nothing comes. Ends when all senders are
/// gone or the client is.
async fn write_replies(write: OwnedWriteHalf, mut waiting: mpsc::Receiver<Written>, client: Arc<Client>) {
    let mut out = BufWriter::with_capacity(64 * 1024, write);
    loop {
        let Written { head, body } = match timeout(SIGN_OF_LIFE_EVERY, waiting.recv()).await {
            Ok(Some(written)) => written,
            Ok(None) => break,
            Err(_) => b"\n".to_vec().into(),
        };
        let idle = waiting.is_empty();
        let writing = async {
            // Both at once; large ones past the buffer.
            out.write_all_buf(&mut Buf::chain(head.as_bytes(), &body[..])).await?;
            if idle { out.flush().await } else { Ok(()) }
        };
        if !matches!(patiently(&client, WRITE_TIMEOUT, writing).await, Ok(Ok(()))) {
            return;
        }
    }
    let _ = patiently(&client, WRITE_TIMEOUT, out.flush()).await;
}

#[cfg(test)]
#[path = "server/tests.rs"]
mod tests;
