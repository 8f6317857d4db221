//! Server of the control socket: accepts clients and limits their number, size and time. The [`Handler`] answers.

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

/// Clients served at the same time; each holds up to some 2 MB. A further client takes the place of one that neither
/// sends nor reads ([`Clients`]). If no client is that slow, the new one must try again later.
pub const MAX_CLIENTS: usize = 32;
/// Capacity of a client's reply queue. A slow reader delays only its own request. Each reply of a dump has 64 kB.
const REPLIES: usize = 32;
/// Time after which a client that reads nothing is dropped. Long, because `dump | less` reads slowly too.
const WRITE_TIMEOUT: Duration = Duration::from_secs(600);
/// Time after which a client without a running request is dropped.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest path of a socket address, with its final zero byte: 108 bytes on Linux, 104 on the BSDs and macOS.
const MAX_PATH: usize = if cfg!(target_os = "linux") { 108 } else { 104 };

/// Why the control socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The path is too long for a socket address.
    #[error(
        "cannot create the control socket {path}: the path has {len} bytes, more than the {max} that the system \
         allows; set control.socket to a shorter one, like /run/dhtstore/control.sock"
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// Another process answers on the socket.
    #[error(
        "cannot create the control socket {0}: another process answers on it; stop it, or set control.socket to \
         another path"
    )]
    InUse(PathBuf),
    /// The path exists and is not a socket.
    #[error("cannot create the control socket {0}: it exists and is not a socket; remove it, or set control.socket")]
    NotASocket(PathBuf),
    /// The system refuses to create the socket.
    #[error(
        "cannot create the control socket {path}: {source}; set control.socket to a path that you can write to, on a \
         file system with sockets, like /run/dhtstore/control.sock"
    )]
    Io {
        /// The path.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// Answers requests.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Answers a request. The result is the last line of the answer. The future is dropped when the client disconnects.
    /// If the request has several parts, the handler must read all `parts`. If it fails on such a request, the
    /// connection is closed.
    fn handle(
        &self,
        request: Request,
        parts: &mut ListParts<'_>,
        replies: Replies,
    ) -> impl Future<Output = Result<Value, Failure>> + Send;
}

/// The further parts of a request, each up to [`MAX_REQUEST_LINE`] long. One is held at a time.
#[derive(Debug)]
pub struct ListParts<'r> {
    reader: &'r mut BufReader<OwnedReadHalf>,
    client: &'r Client,
}

impl ListParts<'_> {
    /// Reads the next part.
    ///
    /// # Errors
    /// The client disconnects, sends nothing for 60 s, or sends a malformed part.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        match patiently(self.client, IDLE_TIMEOUT, read_line(self.reader)).await {
            Ok(Ok(Some(part))) => Ok(part),
            Err(_) | Ok(Ok(None) | Err(ReadError::Io)) => Err(Gone.into()),
            Ok(Err(error)) => Err(Failure::data(error)),
        }
    }
}

/// The listening socket. Its file is removed on drop.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Creates the socket with mode 0600. Replaces one that a dead process left behind.
    pub async fn bind(path: &Path) -> Result<Self, ControlError> {
        let failed = |source| ControlError::Io { path: path.to_owned(), source };
        let len = path.as_os_str().as_bytes().len();
        // The socket is bound under another name first, see below.
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
        // The rename makes the socket visible only once its mode is set, and replaces a stale one in one step.
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
                            // The client that gives way frees its place within moments. One newcomer waits at a time.
                            Err(_) if served.make_room() => {
                                let free = timeout(PATIENCE, Arc::clone(&places).acquire_owned()).await;
                                free.ok().and_then(Result::ok)
                            }
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
                        tracing::warn!(%error, "cannot accept a client on the control socket; trying again in 1 s");
                        // The likely cause is a lack of file descriptors, so an immediate retry would fail too.
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

/// Refuses a client with one line that fits into the socket's buffer, without waiting.
fn turn_away(stream: UnixStream) {
    let failure = Failure::busy(format_args!(
        "cannot serve the command: {MAX_CLIENTS} others are being served; try again in a few seconds"
    ));
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
                Ok(Err(error)) => {
                    // The start of the next line is unknown.
                    let _ = replies.send(line(&Reply::Error(Failure::data(error))).into()).await;
                    return;
                }
            };
            let has_parts = request.has_parts();
            let mut parts = ListParts { reader: &mut reader, client: &client };
            let last = match handler.handle(request, &mut parts, Replies::new(&replies, &client)).await {
                Ok(done) => Reply::Done(done),
                Err(failure) => Reply::Error(failure),
            };
            // Parts that the handler has not read must not be mistaken for requests.
            let is_out_of_step = has_parts && matches!(last, Reply::Error(_));
            if replies.send(line(&last).into()).await.is_err() || is_out_of_step {
                return;
            }
        }
    };
    // If the client disconnects, the writer ends first, and the running request is dropped. If the requests end first,
    // the writer still sends the replies that wait.
    let mut requests = std::pin::pin!(requests);
    let mut writer = std::pin::pin!(writer);
    tokio::select! {
        () = &mut writer => {}
        () = &mut requests => writer.await,
    }
}

/// Waits for a client to send or to read. After [`PATIENCE`] the client may have to give way.
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

/// Why no request could be read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    /// The client disconnected.
    #[error("the client is gone")]
    Io,
    /// The line is too long.
    #[error("cannot read the request: it has more than {MAX_REQUEST_LINE} bytes; send a long list in parts")]
    TooLong,
    /// The line is not a request.
    #[error("cannot parse the request: {0}; if the server has another version than the command, restart it")]
    Malformed(#[source] serde_json::Error),
}

/// Reads the next request, or part of one. `None` at the end.
async fn read_line<T: DeserializeOwned>(reader: &mut (impl AsyncBufReadExt + Unpin)) -> Result<Option<T>, ReadError> {
    let mut line = Vec::new();
    let mut limited = reader.take(MAX_REQUEST_LINE as u64 + 1);
    limited.read_until(b'\n', &mut line).await.map_err(|_| ReadError::Io)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.len() > MAX_REQUEST_LINE {
        return Err(ReadError::TooLong);
    }
    serde_json::from_slice(&line).map(Some).map_err(ReadError::Malformed)
}

/// Writes replies, several at once if more are waiting, and an empty line when there are none for a while. Ends when
/// all senders are dropped or the client disconnects.
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
            // Head and body in one write; large ones bypass the buffer.
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
