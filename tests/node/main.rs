//! The network half over real sockets on loopback, with `libp2p-kad` as independent client and server.
#![expect(clippy::unwrap_used, reason = "the lint knows `#[test]` functions, not their helpers")]
#![allow(clippy::disallowed_methods, reason = "tests measure time")]

mod bootstrap;
mod clauses;
mod dial_back;
mod interop;
mod limits;
mod lookups;
mod nat;
mod ours;
#[path = "../support/port.rs"]
mod port;
mod raw;
mod refresh;
mod relay;
mod single;
mod streams;
#[path = "../support/stub_peer.rs"]
mod stub_peer;
mod theirs;
mod values;
mod websockets;
