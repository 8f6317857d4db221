//! The local control socket, through which commands talk to the running server.
//!
//! A Unix socket that only its owner can open. A client sends a [`protocol::Request`] as one line of JSON and reads
//! [`protocol::Reply`] lines until `done` or `error`. Then it may send the next request. A list that is too long for
//! one line continues in lines of [`protocol::CidPart`]; the client sends each part once the server has asked for it.

pub mod client;
mod encode;
pub mod protocol;
pub mod server;
pub mod service;
