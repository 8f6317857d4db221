//! Types of rows, events and last lines of answers.

use crate::store;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Result of `provide`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Provided {
    /// CIDs that were new.
    pub added: u64,
    /// Peer id in the records.
    pub peer: String,
    /// Addresses in the records: `provide.addresses`, or our own.
    pub addresses: Vec<String>,
    /// Whether `provide.addresses` is set.
    pub elsewhere: bool,
    /// Servers in the two routing tables together, at this moment.
    pub servers: u64,
    /// Outcome of announcing, if the request waited for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// Outcome of announcing a list. A CID counts as often as it is in the list.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// CIDs announced now or before.
    pub announced: u64,
    /// CIDs that no server has confirmed.
    pub unconfirmed: u64,
    /// Distinct servers that confirmed at least one CID.
    pub servers: u64,
    /// Fewest servers that confirmed a CID.
    pub confirmed_min: u16,
    /// Most servers that confirmed a CID.
    pub confirmed_max: u16,
    /// Result of verifying, if requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Held>,
}

/// Result of verifying some CIDs, in total.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Held {
    /// Closest servers asked.
    pub asked: u64,
    /// How many of these servers name us.
    pub holding: u64,
}

/// An event while a list is provided.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProvideEvent {
    /// A part of the list is on disk; the result so far.
    Stored(Provided),
    /// Progress of announcing.
    Announcing(Progress),
    /// A CID was verified.
    Verified(Verified),
}

/// Result of `unprovide`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Unprovided {
    /// CIDs of the request that were own CIDs until now.
    pub removed: u64,
}

/// State of an own CID.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OwnCid {
    /// As given to `provide`.
    pub cid: String,
    /// Time of the last announcement, RFC 3339.
    pub announced: Option<String>,
    /// Servers that confirmed it.
    pub confirmed: u16,
}

/// Number of servers that hold our record of an own CID.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verified {
    /// The CID.
    pub cid: String,
    /// Closest servers asked.
    pub asked: u64,
    /// How many of these servers name us.
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
    /// Common prefix length with the key, in bits.
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
    /// Path that the name points at, for IPNS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Sequence number, for IPNS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// End of the record's validity, RFC 3339, for IPNS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validity: Option<String>,
    /// Time for which resolvers may cache the record, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<f64>,
    /// Time at which this node received it, RFC 3339; only with `local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received: Option<String>,
    /// The whole record, in multibase base64.
    pub record: String,
}

/// Result of getting a value.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Got {
    /// Whether there was a row.
    pub found: bool,
    /// Distinct servers that hold the best value.
    pub held_by: u64,
    /// Distinct servers that answered.
    pub answered: u64,
    /// Servers that held a worse value or none.
    pub stale: u64,
    /// How many of these servers then stored the best value.
    pub corrected: u64,
    /// Highest sequence number ever published or seen, for an own name. It is kept for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_sequence: Option<u64>,
}

/// Result of putting a value.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Placed {
    /// Distinct servers that it was sent to.
    pub sent: u64,
    /// How many of these servers confirmed it.
    pub confirmed: u64,
    /// Why this node did not store it.
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
        /// Common prefix length with the key, in bits.
        cpl: u16,
        /// Providers that it named; `None` if it did not answer.
        providers: Option<Vec<String>>,
        /// Why it did not answer.
        error: Option<String>,
    },
    /// A provider that a server named.
    Provider {
        /// Its id.
        peer: String,
        /// Its addresses, from all answers together.
        addresses: Vec<String>,
        /// Closest servers that name it.
        named_by: u64,
        /// Age of this node's record, in seconds; `None` if it has none (servers do not send ages).
        age_s: Option<u64>,
        /// Whether it could be dialled.
        dialable: bool,
        /// Duration of the dial, in ms.
        dial_ms: Option<u64>,
        /// Why it could not be dialled.
        error: Option<String>,
    },
}

/// Result of `diagnose`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether the CID is found and a provider can be dialled.
    pub ok: bool,
    /// The verdict, on one line.
    pub verdict: String,
    /// The next step for the user.
    pub next: Option<String>,
}

/// An event of a dump.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DumpEvent {
    /// The start of the dump.
    Header(store::dump::Header),
    /// A place that could not be read.
    Damaged {
        /// The place.
        place: String,
        /// Why it could not be read.
        error: String,
    },
}

/// Progress of an announcement.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// CIDs confirmed by at least one server.
    pub announced: u64,
    /// CIDs that no server confirmed; they stay due.
    pub failed: u64,
    /// CIDs to announce, as counted at the start.
    pub total: u64,
    /// Distinct servers that have confirmed at least one CID.
    pub servers: u64,
    /// Look-ups made.
    pub lookups: u64,
    /// Whether no server is known.
    pub offline: bool,
}

/// A connected peer, for `dhtstore peers`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ConnectedPeer {
    /// Its peer id.
    pub peer: String,
    /// Its address, as we see it.
    pub address: String,
    /// Whether it dialled us.
    pub inbound: bool,
    /// Its agent version; unknown before identify.
    pub agent: Option<String>,
    /// Protocols that it supports.
    pub protocols: Vec<String>,
    /// Age of the connection, in seconds.
    pub connected_s: u64,
    /// Last round-trip time, in ms.
    pub ping_ms: Option<f64>,
    /// Whether it is a server of the WAN DHT.
    pub wan: bool,
    /// Whether it is a server of the LAN DHT.
    pub lan: bool,
}

/// Severity of a finding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// No fault.
    Ok,
    /// For information; nothing is lost.
    Note,
    /// The disk did not return the data, so its state is unknown: exit 1 if nothing is damaged.
    Unread,
    /// Damage: exit 65.
    Damaged,
}

/// A finding of `check`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Checked {
    /// Severity.
    pub level: Level,
    /// The place: a file, a tree, a row.
    pub place: String,
    /// What was found.
    pub found: String,
    /// The next step for the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Result of loading rows of a dump.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Loaded {
    /// Rows by table and outcome: `loaded`, `known`, `expired`, `future`, `removed`, `left_out`, or the reason of a
    /// refusal.
    pub tables: BTreeMap<String, BTreeMap<String, u64>>,
    /// Number of lines that are not rows.
    pub bad: u64,
    /// The first of these lines, each with its number and its fault.
    pub bad_lines: Vec<(u64, String)>,
}
