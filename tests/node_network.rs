//! The network half over real sockets on loopback, with `libp2p-kad` as independent client and server.
#![expect(clippy::unwrap_used, reason = "the lint knows `#[test]` functions, not their helpers")]
#![allow(clippy::disallowed_methods, reason = "tests measure time")]

#[path = "node/bootstrap.rs"]
mod bootstrap;
#[path = "node/clauses.rs"]
mod clauses;
#[path = "node/dial_back.rs"]
mod dial_back;
#[path = "node/interop.rs"]
mod interop;
#[path = "node/limits.rs"]
mod limits;
#[path = "node/lookups.rs"]
mod lookups;
#[path = "node/nat.rs"]
mod nat;
#[path = "node/ours.rs"]
mod ours;
#[path = "support/port.rs"]
mod port;
#[path = "node/raw.rs"]
mod raw;
#[path = "node/refresh.rs"]
mod refresh;
#[path = "node/relay.rs"]
mod relay;
#[path = "node/single.rs"]
mod single;
#[path = "node/streams.rs"]
mod streams;
#[path = "support/stub_peer.rs"]
mod stub_peer;
#[path = "node/theirs.rs"]
mod theirs;
#[path = "node/values.rs"]
mod values;
#[path = "node/websockets.rs"]
mod websockets;
