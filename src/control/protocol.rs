//! What goes over the control socket: newline-delimited JSON. Fields are only ever added. An empty line from the server
//! is a sign of life and says nothing else.

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

/// Bytes of a request line at most. `provide` sends long lists in several requests.
pub const MAX_REQUEST_LINE: usize = 1 << 20;
/// Bytes of a reply line at most, for clients: a provider with all its addresses takes a few KB.
pub const MAX_REPLY_LINE: usize = 16 << 20;
/// How a line begins that says how many bytes of NDJSON follow it ([`Request::Dump`]): `{"lines":65536}`.
pub const LINES: &str = r#"{"lines":"#;
/// Bytes of CIDs in one request at most, with room for quotes and commas in [`MAX_REQUEST_LINE`].
pub const MAX_CIDS_BYTES: usize = MAX_REQUEST_LINE / 2;
/// A server that has nothing to say yet says so this often. Well below [`SILENCE_MAX`].
pub const SIGN_OF_LIFE_EVERY: Duration = Duration::from_secs(2);
/// A client takes a server from which it has heard nothing for so long for stopped or overloaded. A look-up may take
/// longer than this: signs of life tell the two apart.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What a client asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "kebab-case")]
pub enum Request {
    /// Keep these CIDs announced. Events: [`ProvideEvent`]. Done ([`Provided`]) when they are on disk; with `wait`, once they
    /// are announced, and with [`Outcome`].
    Provide {
        /// CIDs as text: [`MAX_CIDS_BYTES`] of them at most.
        cids: Vec<String>,
        /// The list goes on in lines of [`CidPart`]. The next one is sent once [`ProvideEvent::Stored`] has come, so that
        /// neither side holds more than one.
        #[serde(default, skip_serializing_if = "is_default")]
        more: bool,
        /// CIDs of all parts together, if they are to be verified.
        #[serde(default, skip_serializing_if = "is_default")]
        total: u64,
        /// Announce them now, and wait for it.
        #[serde(default, skip_serializing_if = "is_default")]
        wait: bool,
        /// Ask the closest servers of some of them back afterwards.
        #[serde(default, skip_serializing_if = "is_default")]
        verify: bool,
    },
    /// Announce them no longer. Done: [`Unprovided`].
    Unprovide {
        /// CIDs as text.
        cids: Vec<String>,
    },
    /// How these own CIDs stand: a row [`OwnCid`] for each.
    Own {
        /// CIDs as text.
        cids: Vec<String>,
    },
    /// Announce now. Events and done: [`Progress`].
    Announce {
        /// What.
        #[serde(flatten)]
        which: Which,
    },
    /// Ask the closest servers back whether they hold our records. A row [`Verified`] for each.
    Verify {
        /// Own CIDs as text; empty: some from all over the keyspace.
        cids: Vec<String>,
    },
    /// Rows: [`Peer`]. Events: [`Event`].
    FindProviders {
        /// The CID.
        cid: String,
        /// Providers at most.
        limit: usize,
        /// Ask this node only.
        local: bool,
    },
    /// A row [`Peer`] if found. Events: [`Event`].
    FindPeer {
        /// The peer id.
        peer: String,
    },
    /// Rows: [`Closest`]. Events: [`Event`].
    Closest {
        /// A CID, a multihash (base16 or base58), or a peer id.
        key: String,
        /// Of this node's routing tables only.
        #[serde(default)]
        local: bool,
    },
    /// A row [`ValueRow`] if found. Events: [`Event`]. Done ([`Got`]) when servers with a worse value or
    /// none are corrected.
    GetValue {
        /// `/ipns/…` or `/pk/…`
        key: String,
        /// Servers that must hold the same best.
        #[serde(default)]
        quorum: Option<usize>,
        /// What this node holds.
        #[serde(default)]
        local: bool,
    },
    /// Events: [`Event`]. Done: [`Placed`].
    PutValue {
        /// `/ipns/…` or `/pk/…`
        key: String,
        /// The record in any multibase.
        record: String,
    },
    /// Done: [`Peer`].
    Connect {
        /// A multiaddr; with or without `/p2p/<id>`.
        address: String,
    },
    /// Rows: [`ConnectedPeer`].
    Peers,
    /// Done: [`Stat`].
    Stat,
    /// Rows: [`Finding`]. Done: [`Verdict`].
    Diagnose {
        /// The CID.
        cid: String,
    },
    /// Events: [`DumpEvent`], the header first. Rows: [`store::dump::Row`], unless only figures are wanted. Done:
    /// [`store::dump::Summary`].
    Dump {
        /// Which rows.
        filter: store::dump::Filter,
        /// Only how many.
        #[serde(default)]
        count: bool,
        /// Only how many, and their hash.
        #[serde(default)]
        hash: bool,
        /// Rows as lines of NDJSON, many at once, behind [`LINES`]. An older server sends them one by one.
        #[serde(default)]
        lines: bool,
    },
    /// Save the routing tables, before they are backed up. Done: what was saved, or null if there was no reason to.
    SaveRouting,
    /// Rows: [`Checked`].
    Check,
    /// Take in rows of a dump. Done: [`Loaded`].
    Load {
        /// Lines without header and end.
        lines: String,
        /// The number of the first.
        first: u64,
        /// Own CIDs become own CIDs here.
        provided: bool,
        /// Done when all that was loaded is on disk.
        flush: bool,
    },
}

/// Whether a field may be left out.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Request {
    /// To keep CIDs announced, without waiting for it.
    pub fn provide(cids: Vec<String>) -> Self {
        Self::Provide { cids, more: false, total: 0, wait: false, verify: false }
    }

    /// Whether lines follow that belong to the request.
    pub fn has_parts(&self) -> bool {
        matches!(self, Self::Provide { more: true, .. })
    }
}

/// A further part of a list of CIDs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CidPart {
    /// CIDs as text: [`MAX_CIDS_BYTES`] of them at most.
    pub cids: Vec<String>,
    /// Another part follows.
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
    /// What is due.
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
    /// Something that happened on the way.
    Event(Value),
    /// The end: it failed.
    Error(Failure),
    /// The end: done. What it holds depends on the request.
    Done(Value),
}

/// Why a request failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The exit code for the command line: one of those that `dhtstore --help` lists.
    pub code: u8,
    /// One line.
    pub message: String,
}

impl Failure {
    /// Exit 1.
    pub fn other(error: impl ToString) -> Self {
        Self { code: 1, message: error.to_string() }
    }

    /// Exit 65: what was sent is malformed.
    pub fn data(error: impl ToString) -> Self {
        Self { code: 65, message: error.to_string() }
    }

    /// Exit 75: too much at the same time.
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
