//! The local control socket that the command line talks to.
//!
//! A Unix socket, open to the owner only. A client sends a [`protocol::Request`] as one line of JSON and reads
//! [`protocol::Reply`] lines until `done` or `error`; then it may send the next request. A list that is
//! too long for a line goes on in lines of [`protocol::CidPart`], each sent once the server has asked for it.

pub mod client;
mod encode;
pub mod protocol;
pub mod server;
pub mod service;
