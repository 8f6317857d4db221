//! A persistent provider-record server for the IPFS Kademlia DHT.
//!
//! This crate is the server as a process: configuration, command line, control socket and scheduled jobs. `dhtstore
//! run` is one way to use it. A program can own a [`daemon::Daemon`] instead, and ask it through its [`ops::Ops`]:
//!
//! ```no_run
//! use dhtstore::{
//!     config::{Config, Profile},
//!     daemon::{Daemon, Surroundings},
//!     kad::cids,
//! };
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = Config::defaults(Profile::Private);
//! config.data_dir = "/var/lib/example".into();
//! let daemon = Daemon::start(config, Surroundings::default()).await?;
//!
//! let cid = cids::parse("bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku")?;
//! daemon.ops().provide(vec![cid]).await?;
//! for provider in daemon.ops().finding_providers(&cid, 20).outcome().await {
//!     println!("{} at {:?}", provider.id, provider.addrs);
//! }
//!
//! daemon.stop().await?;
//! # Ok(())
//! # }
//! ```
//!
//! `cargo run --example daemon` runs the same in a temporary directory.
//!
//! # Where to look
//!
//! | module | content |
//! |---|---|
//! | [`daemon`] | starts and stops a server, as a value |
//! | [`ops`] | the operations of a running daemon, with typed arguments and answers |
//! | [`config`] | settings, their defaults, and how they are read |
//! | [`control`] | the local socket through which commands reach a running daemon |
//! | [`cli`] | the command line |
//! | [`schedule`] | the scheduled jobs |
//! | [`backup`] | the file of `dhtstore backup` and `dhtstore restore` |
//!
//! The libraries are crates of their own, and are re-exported here:
//!
//! | crate | content |
//! |---|---|
//! | [`kad`] | the DHT protocol without input and output: keyspace, messages, routing table, look-ups |
//! | [`transport`] | from a multiaddr to a connection with a known peer |
//! | [`node`] | the DHT on libp2p: serves requests, asks other peers, keeps the routing tables |
//! | [`store`] | the disk: provider records, values, own CIDs, routing tables |
//! | [`provide`] | keeps own CIDs announced |
//!
//! ARCHITECTURE.md is the map of the sources. docs/configuration.md describes each setting.

pub mod backup;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod ops;
pub mod schedule;

pub use dhtstore_host::{clock, files, vital};
pub use dhtstore_kad as kad;
pub use dhtstore_node as node;
pub use dhtstore_provide as provide;
pub use dhtstore_store as store;
pub use dhtstore_transport as transport;
