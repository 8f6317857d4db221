//! The settings of a node: addresses, limits, times. The reader of the configuration checks their bounds, not this
//! crate.

use dhtstore_kad::{mode::Setting, scope::Profile};
use dhtstore_transport::certificate;
use libp2p::Multiaddr;
use std::{path::PathBuf, time::Duration};

/// All settings of a node.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// Selects which addresses are kept and announced, and whether IP diversity is enforced.
    pub profile: Profile,
    /// Addresses to listen on. At least one.
    pub listen: Vec<Multiaddr>,
    /// If not empty, announced instead of the listen addresses.
    pub announce: Vec<Multiaddr>,
    /// Announced in addition.
    pub append_announce: Vec<Multiaddr>,
    /// Never announced: multiaddrs, or ranges like `/ip4/10.0.0.0/ipcidr/8`. See [`crate::no_announce`].
    pub no_announce: Vec<Multiaddr>,
    /// Addresses in this node's provider records. If empty, the node's own.
    pub provider_addresses: Vec<Multiaddr>,
    /// Pre-shared key of a private swarm, in Kubo's format.
    pub swarm_key: Option<PathBuf>,
    /// Peers through which to join the network.
    pub bootstrap: Vec<Multiaddr>,
    /// Server or client in the DHT (MODE-1).
    pub mode: Setting,
    /// A database of autonomous systems in MMDB format, by which IP diversity groups IPv6 addresses (RT-6).
    pub asn_database: Option<PathBuf>,
    /// Whether the saved peers are probed at start.
    pub saved_peers: bool,
    /// How often [`crate::Node::refresh_routing`] is called (RT-7).
    pub refresh_interval: Duration,
    /// How long a provider record is served (PRV-5). The node warns about neighbours that announce less often.
    pub record_ttl: Duration,
    /// Limits on connections.
    pub connections: Connections,
    /// Limits on DHT streams.
    pub streams: Streams,
    /// The AutoNAT servers, which dial peers to test whether they can be reached.
    pub autonat: Autonat,
    /// The limits of relaying for other peers; `None` if this node does not relay.
    pub relay: Option<Relay>,
    /// Certificates of secure WebSockets (NET-5).
    pub certificates: certificate::Files,
}

/// Limits on connections, counted over both directions.
#[derive(Clone, PartialEq, Debug)]
pub struct Connections {
    /// Established connections in all.
    pub max: u32,
    /// Connections whose handshake is under way, in each direction.
    pub max_pending: u32,
    /// Inbound handshakes under way at the same time from one connection group (IPv4 /24, IPv6 /48).
    pub max_pending_per_group: u32,
    /// Established connections with one peer.
    pub max_per_peer: u32,
    /// Established inbound connections from one IP address.
    pub max_per_ip: u32,
    /// How long a connection without streams is kept.
    pub idle: Duration,
}

/// Limits on DHT streams.
#[derive(Clone, PartialEq, Debug)]
pub struct Streams {
    /// Inbound streams per connection.
    pub max_per_connection: usize,
    /// How long a stream without requests is kept.
    pub idle: Duration,
    /// How long a message that has begun may take to arrive, and how long a write may make no progress.
    pub message_timeout: Duration,
    /// Bytes of half-read requests in the whole process.
    pub read_budget: usize,
}

/// The servers of AutoNAT v1 and v2.
#[derive(Clone, PartialEq, Debug)]
pub struct Autonat {
    /// Whether other peers may ask.
    pub enabled: bool,
    /// Dials a minute in all, of each version.
    pub max_dials: usize,
    /// Dials a minute for one peer, of each version.
    pub max_dials_per_peer: usize,
}

/// Limits of circuit relay v2, for the relay itself.
#[derive(Clone, PartialEq, Debug)]
pub struct Relay {
    /// Peers that may hold a reservation.
    pub max_reservations: usize,
    /// Connections relayed at a time.
    pub max_circuits: usize,
    /// How long a reservation holds unless it is renewed.
    pub reservation_ttl: Duration,
    /// How long a relayed connection may last.
    pub connection_duration_limit: Duration,
    /// Bytes that a relayed connection may carry, both directions together.
    pub connection_data_limit: u64,
}

impl Settings {
    /// Returns the settings of a node of `profile` that listens on a free TCP port of this machine and knows no peers,
    /// with the limits of a server.
    pub fn on_loopback(profile: Profile) -> Self {
        let minute = Duration::from_secs(60);
        Self {
            profile,
            listen: ["/ip4/127.0.0.1/tcp/0"].iter().filter_map(|addr| addr.parse().ok()).collect(),
            announce: Vec::new(),
            append_announce: Vec::new(),
            no_announce: Vec::new(),
            provider_addresses: Vec::new(),
            swarm_key: None,
            bootstrap: Vec::new(),
            mode: Setting::Auto,
            asn_database: None,
            saved_peers: true,
            refresh_interval: 10 * minute,
            record_ttl: 12 * 60 * minute,
            connections: Connections {
                max: 4_096,
                max_pending: 512,
                max_pending_per_group: 128,
                max_per_peer: 8,
                max_per_ip: 1_024,
                idle: minute,
            },
            streams: Streams {
                max_per_connection: 512,
                idle: minute,
                message_timeout: Duration::from_secs(10),
                read_budget: 64 << 20,
            },
            autonat: Autonat { enabled: true, max_dials: 60, max_dials_per_peer: 12 },
            relay: None,
            certificates: certificate::Files::default(),
        }
    }
}
