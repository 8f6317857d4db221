//! Sends rows and events of a handler to the client.

use super::{
    super::protocol::{Failure, LINES},
    Client,
};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::mpsc;

/// The client disconnected, so work for it may stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the client is gone")]
pub struct Gone;

impl From<Gone> for Failure {
    fn from(gone: Gone) -> Self {
        Failure::other(gone)
    }
}

/// Sends rows and events to a client. Cheap to clone. Lines are serialised by the handler's task.
#[derive(Clone, Debug)]
pub struct Replies {
    sender: mpsc::Sender<Written>,
    client: Arc<Client>,
}

/// Bytes that are written to the client together, without an empty line in between.
#[derive(Debug)]
pub(super) struct Written {
    /// Comes before the body; usually empty.
    pub head: String,
    pub body: Vec<u8>,
}

impl From<Vec<u8>> for Written {
    fn from(body: Vec<u8>) -> Self {
        Self { head: String::new(), body }
    }
}

/// A line of a reply.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Line<'l, T: ?Sized> {
    Row(&'l T),
    Event(&'l T),
}

impl Replies {
    /// Creates a sender of replies to this client.
    pub(super) fn new(sender: &mpsc::Sender<Written>, client: &Arc<Client>) -> Self {
        Self { sender: sender.clone(), client: Arc::clone(client) }
    }

    /// Sends a row. Waits while the queue is full.
    pub async fn row<T: Serialize + Sync>(&self, row: &T) -> Result<(), Gone> {
        self.send(line(&Line::Row(row))).await
    }

    /// Sends an event. Waits while the queue is full.
    pub async fn event<T: Serialize + Sync>(&self, event: &T) -> Result<(), Gone> {
        self.send(line(&Line::Event(event))).await
    }

    async fn send(&self, line: Vec<u8>) -> Result<(), Gone> {
        self.sender.send(line.into()).await.map_err(|_| Gone)
    }

    /// Returns a sender for very many rows, for a thread that may block.
    pub fn bulk(&self) -> Bulk {
        Bulk(self.sender.clone())
    }

    /// Returns the client.
    pub fn client(&self) -> Arc<Client> {
        self.client.clone()
    }
}

/// Sends many rows at once.
#[derive(Debug)]
pub struct Bulk(mpsc::Sender<Written>);

impl Bulk {
    /// Text before and after each row of [`Bulk::rows`].
    pub const ROW: (&'static str, &'static str) = (r#"{"row":"#, "}\n");

    /// Sends the rows in the buffer, each between [`Bulk::ROW`], and empties it. Blocks while the queue is full.
    /// Returns false if the client is gone.
    pub fn rows(&self, rows: &mut Vec<u8>) -> bool {
        self.send(std::mem::take(rows).into())
    }

    /// Sends the NDJSON in the buffer, after a line with its length, and empties it. Blocks and returns like
    /// [`Bulk::rows`].
    pub fn lines(&self, lines: &mut Vec<u8>) -> bool {
        let body = std::mem::take(lines);
        self.send(Written { head: format!("{LINES}{}}}\n", body.len()), body })
    }

    /// Sends an event. Blocks and returns like [`Bulk::rows`].
    pub fn event<T: Serialize>(&self, event: &T) -> bool {
        self.send(line(&Line::Event(event)).into())
    }

    fn send(&self, written: Written) -> bool {
        self.0.blocking_send(written).is_ok()
    }
}

/// Serialises a value as a line.
pub(super) fn line<T: Serialize>(value: &T) -> Vec<u8> {
    // Our own types with text keys: serialising them cannot fail.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

fn to_value<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// Serialises the result of a handler, which becomes `done`.
pub fn done<T: Serialize>(value: &T) -> Result<Value, Failure> {
    Ok(to_value(value))
}
