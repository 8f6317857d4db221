//! Where a handler puts rows and events.

use super::{
    super::protocol::{Failure, LINES},
    Client,
};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::mpsc;

/// The client is gone; what was being done for it may stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the client is gone")]
pub struct Gone;

impl From<Gone> for Failure {
    fn from(gone: Gone) -> Self {
        Failure::other(gone)
    }
}

/// Where a handler puts rows and events. Cheap to clone. Lines are serialised on the handler's side.
#[derive(Clone, Debug)]
pub struct Replies {
    sender: mpsc::Sender<Written>,
    client: Arc<Client>,
}

/// What is written to the client in one go, without a sign of life in between.
#[derive(Debug)]
pub(super) struct Written {
    /// Stands before the body; mostly nothing.
    pub head: String,
    pub body: Vec<u8>,
}

impl From<Vec<u8>> for Written {
    fn from(body: Vec<u8>) -> Self {
        Self { head: String::new(), body }
    }
}

/// A line of a reply, with anything inside.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Line<'l, T: ?Sized> {
    Row(&'l T),
    Event(&'l T),
}

impl Replies {
    /// By way of this sender, to this client.
    pub(super) fn new(sender: &mpsc::Sender<Written>, client: &Arc<Client>) -> Self {
        Self { sender: sender.clone(), client: Arc::clone(client) }
    }

    /// A row; waits while the client is behind.
    pub async fn row<T: Serialize + Sync>(&self, row: &T) -> Result<(), Gone> {
        self.send(line(&Line::Row(row))).await
    }

    /// An event; waits while the client is behind.
    pub async fn event<T: Serialize + Sync>(&self, event: &T) -> Result<(), Gone> {
        self.send(line(&Line::Event(event))).await
    }

    async fn send(&self, line: Vec<u8>) -> Result<(), Gone> {
        self.sender.send(line.into()).await.map_err(|_| Gone)
    }

    /// For very many rows, from a thread that may block.
    pub fn bulk(&self) -> Bulk {
        Bulk(self.sender.clone())
    }

    /// Who reads them.
    pub fn client(&self) -> Arc<Client> {
        self.client.clone()
    }
}

/// Hands on many rows at once.
#[derive(Debug)]
pub struct Bulk(mpsc::Sender<Written>);

impl Bulk {
    /// What stands before and after each row of [`Bulk::rows`].
    pub const ROW: (&'static str, &'static str) = (r#"{"row":"#, "}\n");

    /// Rows, each between [`Bulk::ROW`]; takes them out of the buffer. Blocks while the client is behind. False: it is
    /// gone.
    pub fn rows(&self, rows: &mut Vec<u8>) -> bool {
        self.send(std::mem::take(rows).into())
    }

    /// NDJSON behind a line that says how many bytes it has: a client passes it on as it is. The same.
    pub fn lines(&self, lines: &mut Vec<u8>) -> bool {
        let body = std::mem::take(lines);
        self.send(Written { head: format!("{LINES}{}}}\n", body.len()), body })
    }

    /// An event; the same.
    pub fn event<T: Serialize>(&self, event: &T) -> bool {
        self.send(line(&Line::Event(event)).into())
    }

    fn send(&self, written: Written) -> bool {
        self.0.blocking_send(written).is_ok()
    }
}

/// A value as a line.
pub(super) fn line<T: Serialize>(value: &T) -> Vec<u8> {
    // Our own types with text keys: serialising them cannot fail.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

fn to_value<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// Serialises what a handler returns as `done`.
pub fn done<T: Serialize>(value: &T) -> Result<Value, Failure> {
    Ok(to_value(value))
}
