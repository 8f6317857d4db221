//! The other end of the control socket.

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
    /// It went away, or gave our place to a client that reads.
    #[error(
        "the server ended the connection: it stopped, or gave the place of a command whose output nobody read to another; \
         try again, with the output to a file"
    )]
    Closed,
    /// It is there, but says nothing: stopped (SIGSTOP, a debugger), or short of processor or disk.
    #[error(
        "the server of {path} has said nothing for {}s: is it stopped or overloaded? look at it (`systemctl status dhtstore`, \
         `top`), `kill -CONT` or restart it, and try again",
        SILENCE_MAX.as_secs()
    )]
    Silent {
        /// The socket.
        path: PathBuf,
    },
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
    /// What follows a line that begins with [`LINES`]; kept, so that it need not be zeroed anew.
    lines: Vec<u8>,
    path: PathBuf,
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
        let reader = BufReader::with_capacity(64 * 1024, read);
        Ok(Self { reader, writer, line: Vec::new(), lines: Vec::new(), path: path.to_owned() })
    }

    /// Sends a request; then read [`Client::next`] until it is `Done` or `Error`.
    pub async fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        self.send_line(request).await
    }

    /// Sends a further part of a request that comes in parts.
    pub async fn send_part(&mut self, part: &CidPart) -> Result<(), ClientError> {
        self.send_line(part).await
    }

    async fn send_line<T: Serialize>(&mut self, value: &T) -> Result<(), ClientError> {
        let mut line = serde_json::to_vec(value).map_err(|error| ClientError::Malformed(error.to_string()))?;
        line.push(b'\n');
        // A server that turns us away closes its end, perhaps before we have written: what it said is read next.
        let written = timeout(SILENCE_MAX, self.writer.write_all(&line)).await.map_err(|_| self.silent())?;
        match written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(ClientError::Closed),
            _ => Ok(()),
        }
    }

    /// The next line of the answer.
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
                return Err(ClientError::Malformed("a length that is none".into()));
            };
            self.lines.resize(bytes, 0);
            let read = timeout(SILENCE_MAX, self.reader.read_exact(&mut self.lines)).await;
            read.map_err(|_| self.silent())?.map_err(|_| ClientError::Closed)?;
            return Ok(Line::Row(Json(&self.lines)));
        }
        // Rows and events are not parsed twice: there may be a hundred million of them.
        if let Some(row) = body.strip_prefix(br#"{"row":"#) {
            return Ok(Line::Row(Json(row)));
        }
        if let Some(event) = body.strip_prefix(br#"{"event":"#) {
            return Ok(Line::Event(Json(event)));
        }
        match serde_json::from_slice(line).map_err(|error| ClientError::Malformed(error.to_string()))? {
            Reply::Done(done) => Ok(Line::Done(done)),
            Reply::Error(failure) => Ok(Line::Error(failure)),
            Reply::Row(_) | Reply::Event(_) => Err(ClientError::Malformed("spaces in a reply line".into())),
        }
    }

    fn silent(&self) -> ClientError {
        ClientError::Silent { path: self.path.clone() }
    }
}

/// A line of an answer.
#[derive(Clone, PartialEq, Debug)]
pub enum Line<'l> {
    /// A row of the result; where they were asked for as lines, some rows, each with its end.
    Row(Json<'l>),
    /// Something that happened on the way.
    Event(Json<'l>),
    /// The end: it failed.
    Error(Failure),
    /// The end: done.
    Done(Value),
}

/// JSON that is not parsed yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Json<'l>(&'l [u8]);

impl<'l> Json<'l> {
    /// Its text.
    pub fn text(self) -> &'l [u8] {
        self.0
    }

    /// Parses it.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(self.0).map_err(|error| ClientError::Malformed(error.to_string()))
    }
}
