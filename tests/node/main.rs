//! Tests of the node over real sockets on loopback, with `libp2p-kad` as an independent client and server.
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
mod refresh;
mod relay;
mod single;
mod streams;
mod theirs;
mod values;
mod websockets;
