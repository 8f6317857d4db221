//! The protocol of the control socket: newline-delimited JSON. Fields are only ever added. An empty line from the
//! server only shows that it is alive.

mod answers;
mod event;
mod stat;

use crate::store;
pub use answers::{
    Checked, Closest, ConnectedPeer, DumpEvent, Finding, Got, Held, Level, Loaded, Outcome, OwnCid, Peer, Placed,
    Progress, ProvideEvent, Provided, Unprovided, ValueRow, Verdict, Verified,
};
pub use event::Event;
use serde::{Deserialize, Serialize};
use serde_json::Value;
pub use stat::{BootstrapPeer, JobStat, Limit, Load, RecordSize, ReprovideStat, Stat, StoreStat, TableStat};
use std::time::Duration;

/// Largest request line, in bytes. `provide` sends long lists in several parts.
pub const MAX_REQUEST_LINE: usize = 1 << 20;
/// Largest reply line that a client accepts, in bytes. A provider with all its addresses takes a few KB.
pub const MAX_REPLY_LINE: usize = 16 << 20;
/// Start of a line with the number of bytes of NDJSON that follow it ([`Request::Dump`]): `{"lines":65536}`.
pub const LINES: &str = r#"{"lines":"#;
/// Most bytes of CIDs in one request. Leaves room for quotes and commas in [`MAX_REQUEST_LINE`].
pub const MAX_CIDS_BYTES: usize = MAX_REQUEST_LINE / 2;
/// Interval of the empty lines that a server sends while it has no reply yet. Well below [`SILENCE_MAX`].
pub const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(2);
/// Time without any line after which a client takes the server for stopped or overloaded. A look-up may take longer;
/// the empty lines show that the server is alive.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);

/// A request of a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "kebab-case")]
pub enum Request {
    /// Keep these CIDs announced. Events: [`ProvideEvent`]. Done ([`Provided`]) once they are on disk; with `wait`,
    /// once they are announced, including an [`Outcome`].
    Provide {
        /// CIDs as text, up to [`MAX_CIDS_BYTES`].
        cids: Vec<String>,
        /// The list continues in lines of [`CidPart`]. The client sends the next part after [`ProvideEvent::Stored`],
        /// so that neither side holds more than one.
        #[serde(default, skip_serializing_if = "is_default")]
        more: bool,
        /// Number of CIDs in all parts, needed with `verify`.
        #[serde(default, skip_serializing_if = "is_default")]
        total: u64,
        /// Announce them now, and answer once that is done.
        #[serde(default, skip_serializing_if = "is_default")]
        wait: bool,
        /// Then ask the closest servers whether they hold the records of some of them.
        #[serde(default, skip_serializing_if = "is_default")]
        verify: bool,
    },
    /// Stop announcing these CIDs. Done: [`Unprovided`].
    Unprovide {
        /// CIDs as text.
        cids: Vec<String>,
    },
    /// Return the state of these own CIDs: a row [`OwnCid`] for each.
    Own {
        /// CIDs as text.
        cids: Vec<String>,
    },
    /// Announce now. Events and done: [`Progress`].
    Announce {
        /// Which CIDs.
        #[serde(flatten)]
        which: Which,
    },
    /// Ask the closest servers whether they hold our records. A row [`Verified`] for each CID.
    Verify {
        /// Own CIDs as text. Empty: a sample from the whole keyspace.
        cids: Vec<String>,
    },
    /// Find providers. Rows: [`Peer`]. Events: [`Event`].
    FindProviders {
        /// The CID.
        cid: String,
        /// Most providers to return.
        limit: usize,
        /// Ask only this node.
        local: bool,
    },
    /// Find the addresses of a peer. A row [`Peer`] if found. Events: [`Event`].
    FindPeer {
        /// The peer id.
        peer: String,
    },
    /// Find the servers closest to a key. Rows: [`Closest`]. Events: [`Event`].
    Closest {
        /// A CID, a multihash (base16 or base58), or a peer id.
        key: String,
        /// Use only this node's routing tables.
        #[serde(default)]
        local: bool,
    },
    /// Get a value. A row [`ValueRow`] if found. Events: [`Event`]. Done ([`Got`]) once the best value has been sent to
    /// the servers that hold a worse one or none.
    GetValue {
        /// `/ipns/…` or `/pk/…`
        key: String,
        /// Number of servers with the same best value after which the look-up stops.
        #[serde(default)]
        quorum: Option<usize>,
        /// Ask only this node.
        #[serde(default)]
        local: bool,
    },
    /// Put a value. Events: [`Event`]. Done: [`Placed`].
    PutValue {
        /// `/ipns/…` or `/pk/…`
        key: String,
        /// The record in any multibase.
        record: String,
    },
    /// Connect to a peer. Done: [`Peer`].
    Connect {
        /// A multiaddr; with or without `/p2p/<id>`.
        address: String,
    },
    /// List connected peers. Rows: [`ConnectedPeer`].
    Peers,
    /// Return the figures of the node. Done: [`Stat`].
    Stat,
    /// Explain why a CID is found or not. Rows: [`Finding`]. Done: [`Verdict`].
    Diagnose {
        /// The CID.
        cid: String,
    },
    /// Dump the store. Events: [`DumpEvent`], the header first. Rows: [`store::dump::Row`], unless `count` or `hash` is
    /// set. Done: [`store::dump::Summary`].
    Dump {
        /// Which rows.
        filter: store::dump::Filter,
        /// Only count rows.
        #[serde(default)]
        count: bool,
        /// Only count and hash rows.
        #[serde(default)]
        hash: bool,
        /// Send many rows at once as NDJSON, after a line that begins with [`LINES`]. An older server sends them one by
        /// one.
        #[serde(default)]
        lines: bool,
    },
    /// Save the routing tables before a backup. Done: what was saved, or null if there was nothing to save.
    SaveRouting,
    /// Check the store. Rows: [`Checked`].
    Check,
    /// Load rows of a dump. Done: [`Loaded`].
    Load {
        /// Lines without header and end.
        lines: String,
        /// Number of the first line.
        first: u64,
        /// Make own CIDs of the dump own CIDs of this node.
        provided: bool,
        /// Answer once everything that was loaded is on disk.
        flush: bool,
    },
}

/// Returns whether a field may be left out.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Request {
    /// Returns a request to keep CIDs announced, without `wait`.
    pub fn provide(cids: Vec<String>) -> Self {
        Self::Provide { cids, more: false, total: 0, wait: false, verify: false }
    }

    /// Returns whether further lines belong to this request.
    pub fn has_parts(&self) -> bool {
        matches!(self, Self::Provide { more: true, .. })
    }
}

/// A further part of a list of CIDs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CidPart {
    /// CIDs as text, up to [`MAX_CIDS_BYTES`].
    pub cids: Vec<String>,
    /// Whether another part follows.
    pub more: bool,
}

/// What to announce.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "which", rename_all = "kebab-case")]
pub enum Which {
    /// These own CIDs.
    These {
        /// CIDs as text.
        cids: Vec<String>,
    },
    /// Own CIDs that are due.
    Due,
    /// Every own CID.
    All,
}

/// A line of the answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// A row of the result.
    Row(Value),
    /// An event, such as a step of a look-up.
    Event(Value),
    /// The last line of a request that failed.
    Error(Failure),
    /// The last line of a request that succeeded. Its content depends on the request.
    Done(Value),
}

/// Why a request failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The exit code for the command line: one of those that `dhtstore --help` lists.
    pub code: u8,
    /// The error, on one line.
    pub message: String,
}

impl Failure {
    /// Creates a failure with exit 1.
    pub fn other(error: impl ToString) -> Self {
        Self { code: 1, message: error.to_string() }
    }

    /// Creates a failure with exit 65: malformed input.
    pub fn data(error: impl ToString) -> Self {
        Self { code: 65, message: error.to_string() }
    }

    /// Creates a failure with exit 75: too much work at the same time.
    pub fn busy(error: impl ToString) -> Self {
        Self { code: 75, message: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(request: &Request) -> String {
        serde_json::to_string(request).unwrap()
    }

    #[test]
    fn requests_read_as_they_were_written() {
        let requests = [
            Request::provide(vec!["bafy".into()]),
            Request::Announce { which: Which::All },
            Request::Announce { which: Which::These { cids: vec!["a".into()] } },
            Request::Peers,
            Request::Dump { filter: store::dump::Filter::default(), count: false, hash: false, lines: true },
        ];
        for request in requests {
            let text = line(&request);
            let read: Request = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(line(&read), text);
            assert!(!text.contains('\n'));
        }
        assert_eq!(line(&Request::Stat), r#"{"cmd":"stat"}"#);
    }

    #[test]
    fn a_list_in_one_part_may_leave_out_what_other_lists_need() {
        let read: Request = serde_json::from_str(r#"{"cmd":"provide","cids":["bafy"]}"#).unwrap();
        assert_eq!(line(&read), line(&Request::provide(vec!["bafy".into()])));
        assert!(!read.has_parts());
    }

    #[test]
    fn replies_have_one_word_each() {
        let text = |reply: Reply| serde_json::to_string(&reply).unwrap();
        assert_eq!(text(Reply::Row(1.into())), r#"{"row":1}"#);
        assert_eq!(text(Reply::Done(Value::Null)), r#"{"done":null}"#);
        let failure = Failure { code: 65, message: "x".into() };
        assert_eq!(text(Reply::Error(failure)), r#"{"error":{"code":65,"message":"x"}}"#);
    }
}
