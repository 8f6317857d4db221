//! The other end of the control socket.

use super::protocol::{MAX_REPLY_LINE, Reply, Request};
use std::{
    io,
    path::{Path, PathBuf},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Why the server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error(
        "no server answers on {path} ({source}); start one with `dhtstore run`, or name its data directory with --data-dir"
    )]
    NotReachable {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is there, but not for us.
    #[error("{path}: {source}; the control socket is open to the user who runs the server only")]
    Forbidden {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It went away.
    #[error("the server ended the connection")]
    Closed,
    /// What it says is not understood.
    #[error("the server's answer is not understood ({0}); is it of another version?")]
    Malformed(String),
}

/// A connection to a running server.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    line: Vec<u8>,
}

impl Client {
    /// Connects.
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).await.map_err(|source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::PermissionDenied => ClientError::Forbidden { path, source },
                _ => ClientError::NotReachable { path, source },
            }
        })?;
        let (read, writer) = stream.into_split();
        Ok(Self { reader: BufReader::with_capacity(64 * 1024, read), writer, line: Vec::new() })
    }

    /// Sends a request; then read [`Client::next`] until it is `Done` or `Error`.
    pub async fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        let mut line = serde_json::to_vec(request).map_err(|error| ClientError::Malformed(error.to_string()))?;
        line.push(b'\n');
        // A server that turns us away closes its end, perhaps before we have written: what it said is read next.
        match self.writer.write_all(&line).await {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(ClientError::Closed),
            _ => Ok(()),
        }
    }

    /// The next line of the answer.
    pub async fn next(&mut self) -> Result<Reply, ClientError> {
        self.line.clear();
        let mut limited = (&mut self.reader).take(MAX_REPLY_LINE as u64);
        let read = limited.read_until(b'\n', &mut self.line).await.map_err(|_| ClientError::Closed)?;
        if read == 0 {
            return Err(ClientError::Closed);
        }
        serde_json::from_slice(&self.line).map_err(|error| ClientError::Malformed(error.to_string()))
    }
}
