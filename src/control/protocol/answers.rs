//! What rows, events and ends of answers are made of.

use crate::store;
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
    Announcing(Progress),
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

/// How far an announcement is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// CIDs confirmed by at least one server.
    pub announced: u64,
    /// CIDs that nobody confirmed; they stay due.
    pub failed: u64,
    /// CIDs to announce, as counted at the start.
    pub total: u64,
    /// Distinct servers that have confirmed something.
    pub servers: u64,
    /// Look-ups made.
    pub lookups: u64,
    /// There is no server to announce to.
    pub offline: bool,
}

/// A connected peer, for `dhtstore peers`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ConnectedPeer {
    /// Its peer id.
    pub peer: String,
    /// Where it is, as we see it.
    pub address: String,
    /// Whether it dialled us.
    pub inbound: bool,
    /// What it calls itself; unknown before identify.
    pub agent: Option<String>,
    /// What it speaks.
    pub protocols: Vec<String>,
    /// For how many seconds.
    pub connected_s: u64,
    /// Last round trip in ms.
    pub ping_ms: Option<f64>,
    /// Whether it is a server of the WAN DHT.
    pub wan: bool,
    /// Whether it is a server of the LAN DHT.
    pub lan: bool,
}

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing is lost.
    Note,
    /// The disk did not return it, so that nothing is known of it: exit 1 if nothing is damaged.
    Unread,
    /// Damage: exit 65.
    Damaged,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Checked {
    /// How bad.
    pub level: Level,
    /// What was looked at: a file, a tree, a row.
    pub place: String,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What became of the rows of a dump.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Loaded {
    /// Rows by table and by what became of them: `loaded`, `known`, `expired`, `future`, `removed`, `left_out`, or why
    /// they were refused.
    pub tables: BTreeMap<String, BTreeMap<String, u64>>,
    /// Lines that are no rows.
    pub bad: u64,
    /// The first of them: number and what is wrong.
    pub bad_lines: Vec<(u64, String)>,
}
