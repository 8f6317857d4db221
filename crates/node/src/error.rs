//! The errors of starting a node and of requests.

use crate::asn::AsnError;
use dhtstore_transport::{certificate::CertificateError, listen::ListenError, swarm_key::SwarmKeyError};
use std::{error::Error, sync::Arc, time::Duration};

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// There is nothing to listen on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The swarm key of a private network cannot be used.
    #[error(transparent)]
    SwarmKey(#[from] SwarmKeyError),
    /// The database of autonomous systems cannot be used.
    #[error(transparent)]
    Asn(#[from] AsnError),
    /// The certificate of secure WebSockets cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The transports cannot be set up.
    #[error("cannot set up the transports: {0}")]
    Transport(#[source] Box<dyn Error + Send + Sync>),
    /// The node is shutting down.
    #[error("the node is shutting down")]
    Stopped,
}

/// The cause of an [`RpcError`], shared because several requests may wait for one dial.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// Why a request to a peer failed. Each message contains its cause, which is also the error's source.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RpcError {
    /// There is no connection, and dialling failed.
    #[error("cannot be dialled: {0}")]
    Dial(#[source] Cause),
    /// The address leads to this node itself.
    #[error("cannot be dialled: this is the node itself")]
    Own,
    /// The peer is connected but does not speak this protocol.
    #[error("does not speak {0}")]
    Protocol(&'static str),
    /// The peer did not answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The stream broke or ended. A server refuses a request that way.
    #[error("stream ended: {0}")]
    Stream(#[source] Cause),
    /// The answer cannot be used.
    #[error("malformed answer: {0}")]
    BadAnswer(#[source] Cause),
    /// This node is at one of its own limits, which says nothing about the peer.
    #[error("this node is at a limit: {0}")]
    Busy(&'static str),
    /// The node is shutting down.
    #[error("the node is shutting down")]
    Stopped,
}

impl RpcError {
    pub(crate) fn dial(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Dial(cause.into().into())
    }

    pub(crate) fn stream(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Stream(cause.into().into())
    }

    pub(crate) fn bad_answer(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::BadAnswer(cause.into().into())
    }
}
