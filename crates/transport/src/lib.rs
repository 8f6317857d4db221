//! From an address to a connection that knows its peer: what lies between the sockets and libp2p's swarm.
//!
//! ```text
//! addresses    which addresses these transports speak
//! listen       whether addresses can be bound, and what to do where they cannot
//! resolver     names, by what the system's files say now
//! websocket    WebSockets over TCP, with a certificate that can be renewed while it runs
//! upgrade      security, then the multiplexer:  noise, tls;  swarm_key below both: the pre-shared key of a private network
//! muxer        yamux, driven apart from the swarm and written out in few packets
//! wake_at_end  wakes the swarm's task of a connection when a stream ends
//! ```
//!
//! [`build`] puts them together. [`identity`] keeps the key pair by which a peer is known.

pub mod addresses;
pub mod certificate;
pub mod identity;
pub mod listen;
pub mod muxer;
mod noise;
mod resolver;
mod stack;
pub mod swarm_key;
mod tls;
mod upgrade;
mod wake_at_end;
mod websocket;

pub use stack::{Peered, Settings, build};
