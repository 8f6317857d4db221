//! Helpers shared by the tests, benchmarks and examples of dhtstore. Never part of a release.
//!
//! Peers and load on the network:
//! - [`raw`]: a client that writes any bytes, on streams that it negotiates by hand;
//! - [`kad_peer`]: an independent peer, stock [`libp2p_kad`], as client or server;
//! - [`stub_peer`]: a server whose streams the test handles; [`inbound`] is the libp2p behaviour below it;
//! - [`load`]: a load generator for any server of the DHT, which measures latencies and the CPU time of the server;
//! - [`connection`]: drives the connections of `raw` and `load`.
//!
//! The parts of dhtstore under test:
//! - [`ours`]: a node with its store, in this process;
//! - [`store`]: a store on real files that a test closes, kills and reopens, at a time that the test sets;
//! - [`program`]: the binary, as a process without the environment settings of the user who runs the tests.
//!
//! The machine around them:
//! - [`port`]: ports for processes that bind them later;
//! - [`files`]: copies, sizes and fingerprints of directories;
//! - [`process`]: the CPU time and the memory of a process;
//! - [`small_disk`]: a small file system that one test fills, or a report that this machine cannot make one.
//!
//! # Rules
//!
//! Helpers panic when they fail, because the test that needs them has failed too.
//!
//! The kit depends on the crates of the workspace, never on the package `dhtstore` itself. What it needs of that
//! package is an argument: the path of the binary, which only tests of that package know as
//! `env!("CARGO_BIN_EXE_dhtstore")`, and the settings of a node instead of a `Config`.
//!
//! The crates that the kit depends on cannot use it in their unit tests: cargo would build such a crate twice, and the
//! types of the two copies differ.
//!
//! # Example
//!
//! ```no_run
//! use dhtstore_testkit::{kad_peer::KadPeer, libp2p_kad::Mode, multihash};
//!
//! # async fn example() {
//! let server = KadPeer::start(Mode::Server).await;
//! let client = KadPeer::client_of(server.id, server.addr.clone()).await;
//! assert!(client.announce(&multihash(b"content")).await);
//! # }
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "test helpers panic when they fail, and measure time"
)]

pub mod connection;
pub mod files;
pub mod inbound;
pub mod kad_peer;
pub mod load;
pub mod ours;
pub mod port;
pub mod process;
pub mod program;
pub mod raw;
pub mod small_disk;
pub mod store;
pub mod stub_peer;
mod wire;

/// The independent DHT implementation that [`kad_peer`] runs.
pub use libp2p_kad;
pub use wire::{framed, read_message};

use sha2::{Digest, Sha256};

/// Returns the sha2-256 multihash of `content`.
pub fn multihash(content: impl AsRef<[u8]>) -> Vec<u8> {
    [&[0x12, 0x20][..], &Sha256::digest(content)].concat()
}
