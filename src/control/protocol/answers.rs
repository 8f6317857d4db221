//! What rows, events and ends of answers are made of.

use crate::{kad::mode::Mode, node, provide::reprovider, schedule::JobStatus, store};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What `provide` did.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Provided {
    /// CIDs that were not there before.
    pub added: u64,
    /// The peer id that records name.
    pub peer: String,
    /// Where records say that the content is served: `provide.addresses`, or our own.
    pub addresses: Vec<String>,
    /// `provide.addresses` is set.
    pub elsewhere: bool,
    /// Servers known at this moment, in both routing tables.
    pub servers: u64,
    /// What came of announcing, if that was waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// What came of announcing a list. A CID counts as often as it is in the list.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// CIDs that have been announced, now or before.
    pub announced: u64,
    /// CIDs that no server has confirmed.
    pub unconfirmed: u64,
    /// Distinct servers that confirmed something.
    pub servers: u64,
    /// Fewest servers that confirmed a CID.
    pub confirmed_min: u16,
    /// Most servers that confirmed a CID.
    pub confirmed_max: u16,
    /// What asking back brought, if it was wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Held>,
}

/// What asking back about some CIDs brought, in all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Held {
    /// Closest servers asked.
    pub asked: u64,
    /// Of them, those that name us.
    pub holding: u64,
}

/// What happens while a list is provided.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProvideEvent {
    /// A part of the list is on disk: what was done so far.
    Stored(Provided),
    /// How far announcing is.
    Announcing(reprovider::Progress),
    /// A CID was asked back about.
    Verified(Verified),
}

/// What `unprovide` did.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Unprovided {
    /// CIDs that were there.
    pub removed: u64,
}

/// How an own CID stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OwnCid {
    /// As given to `provide`.
    pub cid: String,
    /// When it was last announced, RFC 3339.
    pub announced: Option<String>,
    /// Servers that confirmed that.
    pub confirmed: u16,
}

/// Whether servers hold our record of an own CID.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verified {
    /// The CID.
    pub cid: String,
    /// Closest servers asked.
    pub asked: u64,
    /// Of them, those that name us.
    pub holding: u64,
}

/// A peer and its addresses.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Peer {
    /// Its id.
    pub peer: String,
    /// Its addresses.
    pub addresses: Vec<String>,
}

/// One of the servers closest to a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Closest {
    /// `wan` or `lan`.
    pub dht: String,
    /// Its id.
    pub peer: String,
    /// Leading bits that it has in common with the key.
    pub cpl: u16,
    /// XOR distance, base16.
    pub distance: String,
    /// Its addresses.
    pub addresses: Vec<String>,
}

/// A value.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ValueRow {
    /// `/ipns/k51…` or `/pk/…`
    pub key: String,
    /// Where a name points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Of a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// Until when a name's record is valid, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validity: Option<String>,
    /// For how long resolvers may keep it, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<f64>,
    /// When this node received it, RFC 3339; of `local` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<String>,
    /// All of it, in multibase base64.
    pub record: String,
}

/// The end of getting a value.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Got {
    /// There was a row.
    pub found: bool,
    /// Distinct servers that hold it.
    pub held_by: u64,
    /// Distinct servers that answered.
    pub answered: u64,
    /// Servers that held a worse one or none.
    pub stale: u64,
    /// Of them, those that have taken the best.
    pub corrected: u64,
    /// Of an own name: the highest sequence number that was ever published or seen, kept for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_sequence: Option<u64>,
}

/// What became of a value that was put.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Placed {
    /// Distinct servers that it was sent to.
    pub sent: u64,
    /// Of them, those that confirmed it.
    pub confirmed: u64,
    /// Why this node itself does not keep it.
    pub not_stored_here: Option<String>,
}

/// A row of `diagnose`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Finding {
    /// One of the closest servers.
    Server {
        /// `wan` or `lan`.
        dht: String,
        /// Its id.
        peer: String,
        /// Leading bits that it has in common with the key.
        cpl: u16,
        /// Providers that it named; `None` when it did not answer.
        providers: Option<Vec<String>>,
        /// Why it did not answer.
        error: Option<String>,
    },
    /// A provider that somebody named.
    Provider {
        /// Its id.
        peer: String,
        /// Its addresses, from all answers together.
        addresses: Vec<String>,
        /// Closest servers that name it.
        named_by: u64,
        /// Since when this node has had the record, in seconds; `None` when it has none (servers do not tell ages).
        age_s: Option<u64>,
        /// It could be dialled.
        dialable: bool,
        /// How long that took.
        dial_ms: Option<u64>,
        /// Why it could not.
        error: Option<String>,
    },
}

/// The end of `diagnose`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// Found, and a provider can be dialled.
    pub ok: bool,
    /// One line.
    pub verdict: String,
    /// What to do about it.
    pub next: Option<String>,
}

/// What a dump tells beside rows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DumpEvent {
    /// It begins.
    Header(store::dump::Header),
    /// Something could not be read.
    Damaged {
        /// Where it is.
        place: String,
        /// Why it cannot be read.
        error: String,
    },
}

/// The figures of a running node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stat {
    /// Its version.
    pub version: String,
    /// Its id.
    pub peer: String,
    /// `private` or `amino`.
    pub profile: String,
    /// `server` or `client` in the WAN DHT (MODE-1).
    pub mode: Mode,
    /// Why.
    pub mode_why: String,
    /// Connections that there may be: `connections.max`, lowered to the open files that there are.
    #[serde(default)]
    pub connections_max: u64,
    /// The highest sequence number of each own IPNS name, by peer id.
    #[serde(default)]
    pub ipns_sequences: BTreeMap<String, u64>,
    /// The bootstrap list, and how its peers fare.
    #[serde(default)]
    pub bootstrap: Vec<node::BootstrapPeer>,
    /// Seconds since start.
    pub uptime_s: u64,
    /// Where it listens.
    pub listening: Vec<String>,
    /// What is announced of it, over both DHTs.
    pub addresses: Vec<String>,
    /// Connected peers.
    pub connections: u64,
    /// Routing tables.
    pub tables: Vec<TableStat>,
    /// What is in hand for others now.
    #[serde(default)]
    pub load: node::Load,
    /// What happened on the network since start: requests, refusals, limits.
    #[serde(default)]
    pub network: BTreeMap<String, u64>,
    /// The store.
    pub store: store::Stat,
    /// Own CIDs.
    pub reprovide: reprovider::Status,
    /// Jobs.
    pub jobs: Vec<JobStatus>,
}

/// The figures of a routing table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TableStat {
    /// `wan` or `lan`.
    pub dht: String,
    /// Entries.
    pub peers: u64,
    /// Common prefix length, entries; without empty buckets.
    pub buckets: Vec<(u16, u64)>,
}
