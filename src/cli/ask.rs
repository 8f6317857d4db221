//! Asking the running server over its control socket.

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

/// Something that came before the end of an answer.
#[derive(Clone, Copy, Debug)]
pub enum Item<'l> {
    /// A row of the result; where they were asked for as lines, some rows, each with its end.
    Row(Json<'l>),
    /// Something that happened on the way.
    Event(Json<'l>),
}

/// The running server. Exit 69 when there is none.
#[derive(Debug)]
pub struct Server {
    client: Client,
}

impl Server {
    /// Connects to the server of this data directory.
    pub async fn connect(context: &Context) -> Result<Self> {
        Ok(Self { client: Client::connect(&context.config()?.control_socket()).await? })
    }

    /// The same; `None` when nobody listens, for commands that can do without.
    pub async fn connect_if_running(context: &Context) -> Result<Option<Self>> {
        match Client::connect(&context.config()?.control_socket()).await {
            Ok(client) => Ok(Some(Self { client })),
            Err(ClientError::NotReachable { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a request, hands on rows and events, returns what it ended with.
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

    /// The same for a request that comes in parts: `each` sees every event, and returns the next part where one is due.
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

    /// The same for requests whose rows alone matter.
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
    serde_json::from_value(done).map_err(|error| ClientError::Malformed(error.to_string()).into())
}
