//! The Kademlia protocol, pure: no IO, no clock, no randomness of its own, nothing spawned.
//!
//! It takes bytes, times, seeds and events and returns decisions; nothing depends on the order of a hash map. The same
//! code serves in production and in simulation.
//!
//! A server reads a frame ([`frame::header`]), decodes it ([`message::Message::decode`]), checks it
//! ([`rules::check`]) and answers from a picture of the table ([`table::RoutingTable::view`]) with one of the
//! `rules::answer_*`. A client drives a [`lookup::Lookup`]: it starts from [`lookup::SEEDS`] peers of the table, sends
//! [`message::request`] to whom it is told, reports [`message::Message::closer_peer_infos`], and offers whoever answered
//! to the table.

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

/// A CID whose multihash is as long as a key of content may be ([`rules::MAX_KEY`], PRV-1); the cid crate's own type stops at
/// digests of 64 bytes.
pub type Cid = cid::CidGeneric<{ rules::MAX_KEY }>;

/// The two DHTs a node takes part in. Each has a routing table and an address scope of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Dht {
    /// `/ipfs/kad/1.0.0`
    Wan,
    /// `/ipfs/lan/kad/1.0.0`: what Kubo nodes on private addresses speak, and nothing else.
    Lan,
}

impl Dht {
    /// Both, in the order in which they are asked.
    pub const ALL: [Dht; 2] = [Dht::Wan, Dht::Lan];

    /// The protocol id that peers of this DHT share (MODE-2).
    pub const fn protocol(self) -> &'static str {
        match self {
            Dht::Wan => "/ipfs/kad/1.0.0",
            Dht::Lan => "/ipfs/lan/kad/1.0.0",
        }
    }

    /// `wan` or `lan`, as logs, tables and stored keys call it.
    pub const fn name(self) -> &'static str {
        match self {
            Dht::Wan => "wan",
            Dht::Lan => "lan",
        }
    }
}

/// A peer and where it can be reached: what messages carry and tables hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerInfo {
    /// The peer.
    pub id: PeerId,
    /// Its addresses, without a trailing `/p2p/<id>`.
    pub addrs: Vec<Multiaddr>,
}
