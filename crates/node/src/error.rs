//! Why a node does not start, and why a request fails.

use crate::asn::AsnError;
use dhtstore_transport::{certificate::CertificateError, listen::ListenError, swarm_key::SwarmKeyError};
use std::time::Duration;

/// Why the node cannot start.
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
    /// The transports cannot be made.
    #[error("{0}")]
    Transport(String),
    /// The node is on its way down.
    #[error("the node is shutting down")]
    Stopped,
}

/// Why a request to a peer failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RpcError {
    /// No connection.
    #[error("cannot be dialled: {0}")]
    Dial(String),
    /// The address leads to this node itself.
    #[error("cannot be dialled: this is the node itself")]
    Own,
    /// Connected, but it is no server of the DHT with this protocol.
    #[error("does not speak {0}")]
    Protocol(&'static str),
    /// Connected, and silent.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The stream broke or was ended; a server refuses a request that way.
    #[error("stream ended: {0}")]
    Stream(String),
    /// An answer that is none.
    #[error("malformed answer: {0}")]
    BadAnswer(String),
    /// A limit of our own: says nothing about the peer.
    #[error("this node is at a limit: {0}")]
    Busy(&'static str),
    /// The node is on its way down.
    #[error("the node is shutting down")]
    Stopped,
}
