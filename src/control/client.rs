//! Client of the control socket.

use super::protocol::{CidPart, Failure, LINES, MAX_REPLY_LINE, Reply, Request, SILENCE_MAX};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
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
    time::timeout,
};

/// Why the server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No server listens on the socket.
    #[error(
        "cannot reach a server on {path}: {source}; start one with `dhtstore run`, or name its data directory with \
         --data-dir"
    )]
    NotReachable {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// This user may not open the socket.
    #[error("cannot open the control socket {path}: {source}; run the command as the user that runs the server")]
    Forbidden {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The server closed the connection: it stopped, or it gave our place to another client.
    #[error(
        "cannot read the reply: the server closed the connection; it stopped, or it dropped this command because its \
         output was not read; try again, and write the output to a file"
    )]
    Closed,
    /// The server does not respond: it is stopped (SIGSTOP, a debugger), or the machine is overloaded.
    #[error(
        "cannot get a reply: the server on {path} has said nothing for {} s; check whether it is suspended or \
         overloaded (`systemctl status dhtstore`, `top`), resume it with `kill -CONT` or restart it, then try again",
        SILENCE_MAX.as_secs()
    )]
    Silent {
        /// The socket.
        path: PathBuf,
    },
    /// The reply could not be parsed.
    #[error("cannot parse the server's reply: {0}; if the server has another version, restart it")]
    Malformed(#[source] serde_json::Error),
}

/// A connection to a running server.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    line: Vec<u8>,
    /// Buffer for the NDJSON after a line that begins with [`LINES`]. Kept, so that it is zeroed only once.
    lines: Vec<u8>,
    path: PathBuf,
}

impl Client {
    /// Connects to the server that listens on `path`.
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).await.map_err(|source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::PermissionDenied => ClientError::Forbidden { path, source },
                _ => ClientError::NotReachable { path, source },
            }
        })?;
        let (read, writer) = stream.into_split();
        let reader = BufReader::with_capacity(64 * 1024, read);
        Ok(Self { reader, writer, line: Vec::new(), lines: Vec::new(), path: path.to_owned() })
    }

    /// Sends a request. Then call [`Client::next`] until it returns `Done` or `Error`.
    pub async fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        self.send_line(request).await
    }

    /// Sends the next part of a request that has several.
    pub async fn send_part(&mut self, part: &CidPart) -> Result<(), ClientError> {
        self.send_line(part).await
    }

    async fn send_line<T: Serialize>(&mut self, value: &T) -> Result<(), ClientError> {
        let mut line = serde_json::to_vec(value).map_err(ClientError::Malformed)?;
        line.push(b'\n');
        // A server that turns us away may close its end before the write. The next read returns its reason.
        let written = timeout(SILENCE_MAX, self.writer.write_all(&line)).await.map_err(|_| self.silent())?;
        match written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(ClientError::Closed),
            _ => Ok(()),
        }
    }

    /// Reads the next line of the answer.
    pub async fn next(&mut self) -> Result<Line<'_>, ClientError> {
        loop {
            self.line.clear();
            let mut limited = (&mut self.reader).take(MAX_REPLY_LINE as u64);
            let read = timeout(SILENCE_MAX, limited.read_until(b'\n', &mut self.line)).await;
            read.map_err(|_| self.silent())?.map_err(|_| ClientError::Closed)?;
            if self.line != b"\n" {
                break;
            }
        }
        let Some(line) = self.line.strip_suffix(b"\n") else { return Err(ClientError::Closed) };
        let body = line.strip_suffix(b"}").unwrap_or(line);
        if let Some(bytes) = body.strip_prefix(LINES.as_bytes()) {
            let bytes = std::str::from_utf8(bytes).ok().and_then(|bytes| bytes.parse().ok());
            let Some(bytes) = bytes.filter(|bytes| *bytes <= MAX_REPLY_LINE) else {
                return Err(malformed("bad length of lines"));
            };
            self.lines.resize(bytes, 0);
            let read = timeout(SILENCE_MAX, self.reader.read_exact(&mut self.lines)).await;
            read.map_err(|_| self.silent())?.map_err(|_| ClientError::Closed)?;
            return Ok(Line::Row(Json(&self.lines)));
        }
        // Only the caller parses rows and events, because there may be a hundred million of them.
        if let Some(row) = body.strip_prefix(br#"{"row":"#) {
            return Ok(Line::Row(Json(row)));
        }
        if let Some(event) = body.strip_prefix(br#"{"event":"#) {
            return Ok(Line::Event(Json(event)));
        }
        match serde_json::from_slice(line).map_err(ClientError::Malformed)? {
            Reply::Done(done) => Ok(Line::Done(done)),
            Reply::Error(failure) => Ok(Line::Error(failure)),
            Reply::Row(_) | Reply::Event(_) => Err(malformed("spaces in a reply line")),
        }
    }

    fn silent(&self) -> ClientError {
        ClientError::Silent { path: self.path.clone() }
    }
}

/// Returns the error for a reply that does not follow the protocol.
fn malformed(what: &str) -> ClientError {
    ClientError::Malformed(serde::de::Error::custom(what))
}

/// A line of an answer.
#[derive(Clone, PartialEq, Debug)]
pub enum Line<'l> {
    /// A row of the result. For a request with `lines`: several rows, each with its line end.
    Row(Json<'l>),
    /// An event, such as a step of a look-up.
    Event(Json<'l>),
    /// The last line of a request that failed.
    Error(Failure),
    /// The last line of a request that succeeded.
    Done(Value),
}

/// Unparsed JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Json<'l>(&'l [u8]);

impl<'l> Json<'l> {
    /// Returns the text.
    pub fn text(self) -> &'l [u8] {
        self.0
    }

    /// Parses the JSON.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(self.0).map_err(ClientError::Malformed)
    }
}
