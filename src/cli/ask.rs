//! Requests to the running server, over its control socket.

use super::{
    Context,
    error::{CliError, Code, Result},
};
use crate::control::{
    client::{Client, ClientError, Json, Line},
    protocol::{CidPart, Failure, Request},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::NotReachable { .. } | ClientError::Forbidden { .. } | ClientError::Closed => {
                Self::unavailable(error)
            }
            ClientError::Silent { .. } => Self::try_again(error),
            ClientError::Malformed(_) => Self::other(error),
        }
    }
}

impl From<Failure> for CliError {
    fn from(failure: Failure) -> Self {
        let known = [Code::Usage, Code::Data, Code::NoDatabase, Code::Unavailable, Code::TryAgain];
        let code = known.into_iter().find(|code| *code as u8 == failure.code).unwrap_or(Code::Other);
        Self::new(code, failure)
    }
}

/// A part of an answer before its last line.
#[derive(Clone, Copy, Debug)]
pub enum Item<'l> {
    /// A row of the result. For a request with `lines`: several rows, each with its line end.
    Row(Json<'l>),
    /// An event, such as a step of a look-up.
    Event(Json<'l>),
}

/// A connection to the running server.
#[derive(Debug)]
pub struct Server {
    client: Client,
}

impl Server {
    /// Connects to the server of this data directory. Exit 69 if none runs.
    pub async fn connect(context: &Context) -> Result<Self> {
        Ok(Self { client: Client::connect(&context.config()?.control_socket()).await? })
    }

    /// Connects to the server if it runs, for commands that also work without one.
    pub async fn connect_if_running(context: &Context) -> Result<Option<Self>> {
        match Client::connect(&context.config()?.control_socket()).await {
            Ok(client) => Ok(Some(Self { client })),
            Err(ClientError::NotReachable { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a request, passes its rows and events to `each`, and returns its last line.
    pub async fn ask<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        mut each: impl FnMut(Item<'_>) -> Result<()>,
    ) -> Result<T> {
        self.client.send(request).await?;
        loop {
            match self.client.next().await? {
                Line::Row(row) => each(Item::Row(row))?,
                Line::Event(event) => each(Item::Event(event))?,
                Line::Error(failure) => return Err(failure.into()),
                Line::Done(done) => return parsed(done),
            }
        }
    }

    /// Sends a request that has several parts. `each` gets every event and returns the next part when one is due.
    pub async fn ask_in_parts<T: DeserializeOwned>(
        &mut self,
        request: &Request,
        mut each: impl FnMut(Json<'_>) -> Result<Option<CidPart>>,
    ) -> Result<T> {
        self.client.send(request).await?;
        loop {
            let part = match self.client.next().await? {
                Line::Row(_) => None,
                Line::Event(event) => each(event)?,
                Line::Error(failure) => return Err(failure.into()),
                Line::Done(done) => return parsed(done),
            };
            if let Some(part) = part {
                self.client.send_part(&part).await?;
            }
        }
    }

    /// Sends a request and passes its rows to `each`; events are dropped.
    pub async fn rows<R: DeserializeOwned>(
        &mut self,
        request: &Request,
        mut each: impl FnMut(R) -> Result<()>,
    ) -> Result<()> {
        let each = |item: Item<'_>| match item {
            Item::Row(row) => each(row.parse()?),
            Item::Event(_) => Ok(()),
        };
        self.ask::<Value>(request, each).await.map(drop)
    }
}

fn parsed<T: DeserializeOwned>(done: Value) -> Result<T> {
    serde_json::from_value(done).map_err(|error| ClientError::Malformed(error).into())
}
