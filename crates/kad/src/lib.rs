//! The protocol of the IPFS Kademlia DHT without IO: messages, server rules, routing tables, look-ups, IPNS records.
//!
//! The crate has no clock and no randomness of its own, and spawns nothing. Its functions take bytes, times, seeds and
//! events, and return decisions. Nothing depends on the order of a hash map, so the same input always gives the same
//! result. The same code runs in production and in simulations.
//!
//! # Where to begin
//!
//! - [`message::Message`]: a decoded request or answer. [`message::request`] and the functions next to it encode.
//! - [`table::RoutingTable`]: the servers that a node knows. [`table::RoutingTable::view`] returns a snapshot of it.
//! - [`lookup::Lookup`]: a look-up as a state machine that returns the peer to ask next.
//!
//! A server reads the length of a frame ([`frame::header`]), decodes its body ([`message::Message::decode`]), checks it
//! ([`rules::check`]) and answers from a snapshot of the table with one of the functions `rules::answer_*`. The rules
//! do not filter addresses by scope: the caller does that with a [`scope::AddressScope`].
//!
//! A client starts a look-up from the [`lookup::SEEDS`] closest peers of the table. It sends a request to each peer
//! that [`lookup::Lookup::next`] returns, reports the closer peers of the answer
//! ([`message::Message::closer_peer_infos`]), and offers each peer that answered to the table:
//!
//! ```
//! use dhtstore_kad::{
//!     PeerInfo,
//!     keyspace::Key,
//!     lookup::{Goal, Lookup, Next, Settings},
//! };
//! use libp2p_identity::PeerId;
//! use std::time::Duration;
//!
//! let [local, seed] = [1, 2].map(|n| PeerId::from_bytes(&[&[0x12, 0x20][..], &[n; 32]].concat()).unwrap());
//! let seeds = vec![PeerInfo { id: seed, addrs: Vec::new() }];
//! let mut lookup = Lookup::new(Key::for_content(b"a multihash"), local, seeds, Goal::Closest, Settings::default());
//! while let Next::Ask(peer) = lookup.next(Duration::ZERO) {
//!     // Here a client sends the request and decodes the answer, which names no closer peers.
//!     lookup.answered(&peer.id, Vec::new());
//! }
//! assert_eq!(lookup.closest()[0].id, seed);
//! ```
//!
//! `examples/lookup.rs` runs both sides among 500 servers in memory.

pub mod cids;
pub mod frame;
pub mod keyspace;
pub mod lookup;
pub mod message;
pub mod mode;
pub mod peer_id;
pub mod rules;
pub mod scope;
pub mod seeded;
pub mod table;
pub mod useful;
pub mod values;

use libp2p_identity::PeerId;
use multiaddr::Multiaddr;

/// A CID with room for the longest multihash that may be a key ([`rules::MAX_KEY`], PRV-1). The cid crate's own type
/// allows digests of at most 64 bytes.
pub type Cid = cid::CidGeneric<{ rules::MAX_KEY }>;

/// The two DHTs in which a node takes part. Each has its own routing table and address scope.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Dht {
    /// The DHT of the public network, `/ipfs/kad/1.0.0`.
    Wan,
    /// The DHT of the local network, `/ipfs/lan/kad/1.0.0`, the only one that Kubo nodes on private addresses serve.
    Lan,
}

impl Dht {
    /// Both DHTs, in the order in which they are asked.
    pub const ALL: [Dht; 2] = [Dht::Wan, Dht::Lan];

    /// Returns the protocol id of this DHT (MODE-2).
    pub const fn protocol(self) -> &'static str {
        match self {
            Dht::Wan => "/ipfs/kad/1.0.0",
            Dht::Lan => "/ipfs/lan/kad/1.0.0",
        }
    }

    /// Returns `wan` or `lan`, the name in logs, tables and stored keys.
    pub const fn name(self) -> &'static str {
        match self {
            Dht::Wan => "wan",
            Dht::Lan => "lan",
        }
    }
}

/// A peer with its addresses, as messages carry it and tables hold it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerInfo {
    /// The peer.
    pub id: PeerId,
    /// Its addresses, without a trailing `/p2p/<id>`.
    pub addrs: Vec<Multiaddr>,
}
