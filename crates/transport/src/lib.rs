//! The transports of a libp2p server: everything between the sockets and libp2p's swarm.
//!
//! [`build`] returns one [`libp2p::Transport`] for TCP, QUIC and WebSockets. It dials and accepts connections, and each
//! connection that it yields has proven its peer id. A swarm runs on it as on any other transport.
//!
//! ```text
//! addresses    which addresses these transports support
//! listen       checks that addresses can be bound, and explains what to do where they cannot
//! resolver     resolves host names by the current content of resolv.conf and the hosts file
//! websocket    WebSockets over TCP, with or without TLS
//! certificate  the certificate of secure WebSockets; can be renewed while the node runs
//! upgrade      from a stream of bytes to a connection: negotiates security and multiplexer, in one future
//! noise, tls   the two kinds of security; each also agrees on the multiplexer where both sides can
//! swarm_key    the pre-shared key of a private network, applied below noise and TLS
//! identity     the node's key pair, on disk
//! muxer        yamux, driven by a task of its own and written out in few packets
//! wake_at_end  wakes the swarm's task of a connection when a stream ends
//! stack        puts all of these together
//! ```
//!
//! # Example
//!
//! A transport with a new identity, without a swarm key and without certificates:
//!
//! ```
//! use dhtstore_host::clock::{Clock, SystemClock};
//! use dhtstore_transport::{Settings, build, certificate, certificate::Certificates, identity::Identity};
//! use std::{error::Error, sync::Arc};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn Error>> {
//! let identity = Identity::generate()?;
//! let certificates = Arc::new(Certificates::load(&certificate::Files::default())?);
//! let clock: Arc<dyn Clock> = SystemClock::new();
//! let settings = Settings { max_inbound_streams: 512, max_streams: 1024 };
//! let transport = build(&settings, &identity.keypair, None, certificates, &clock)?;
//! # drop(transport);
//! # Ok(())
//! # }
//! ```

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
