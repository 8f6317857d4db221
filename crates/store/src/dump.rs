//! Reading everything out: of the running store, or of a copy of a stopped one.
//!
//! Both do the same: the copy is opened like a store, its log replayed, and dumped as a running one. So they agree.

mod header;
mod output;
mod provider;
mod providers;
mod rows;
pub(super) mod text;

use super::{Purpose, Settings, Store, StoreError, data_dir, filesystem, is_data_dir};
use crate::clock::{ManualClock, UnixTime};
pub use header::{End, Header, MAX_LINE, Mark, VERSION};
use output::Output;
pub use output::{Summary, TableSummary};
use rows::Matcher;
use serde::{Deserialize, Serialize};
use std::{io::ErrorKind, path::Path};

/// The tables of `dhtstore dump`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Table {
    /// What others announced to us.
    Providers,
    /// Values that others put.
    Values,
    /// Our own CIDs.
    Provided,
    /// The address book.
    Peers,
    /// Saved routing tables.
    Routing,
    /// Figures and notes of the store.
    Meta,
}

impl Table {
    /// As the command line and rows call it.
    pub const fn name(self) -> &'static str {
        match self {
            Table::Providers => "providers",
            Table::Values => "values",
            Table::Provided => "provided",
            Table::Peers => "peers",
            Table::Routing => "routing",
            Table::Meta => "meta",
        }
    }

    /// All, in the order in which they are dumped.
    pub const ALL: [Table; 6] =
        [Table::Providers, Table::Values, Table::Provided, Table::Peers, Table::Routing, Table::Meta];
}

/// Which rows are wanted. A filter by what a table does not have lets none of its rows through.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Filter {
    /// Empty: all tables, in the order of [`Table`].
    pub tables: Vec<Table>,
    /// Matches by multihash. A CID of either version, or a multihash in base58btc.
    pub cid: Option<String>,
    /// A peer id.
    pub peer: Option<String>,
    /// Unix seconds, inclusive.
    pub since: Option<u32>,
    /// Unix seconds, exclusive.
    pub until: Option<u32>,
    /// Also rows past their ttl that are not collected yet.
    pub expired: bool,
    /// Rows of all tables together.
    pub limit: Option<u64>,
}

impl Filter {
    /// The tables that are asked for.
    pub fn tables(&self) -> impl Iterator<Item = Table> {
        let tables: &[Table] = if self.tables.is_empty() { &Table::ALL } else { &self.tables };
        tables.iter().copied()
    }
}

/// One row, as NDJSON shows it. Fields are stable: only ever added. Times are RFC 3339 in UTC.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "table", rename_all = "lowercase")]
pub enum Row {
    /// A provider record.
    Providers {
        /// CIDv1, raw: a record keeps the multihash and not the codec.
        cid: String,
        /// In base58btc.
        multihash: String,
        /// Peer id.
        provider: String,
        /// As far as they are not outlived.
        addresses: Vec<String>,
        /// When the announcement came.
        received: String,
        /// When the record ends.
        expires: String,
        /// The same, counted from now; negative if expired.
        expires_in_s: i64,
    },
    /// A value.
    Values {
        /// `/ipns/k51…` or `/pk/…`
        key: String,
        /// Bytes of the value.
        bytes: u64,
        /// When it was last put.
        received: String,
        /// When it is served no longer, by its ttl or its own word.
        expires: String,
        /// The same, counted from now; negative if expired.
        expires_in_s: i64,
        /// All of it, in multibase base64.
        record: String,
    },
    /// An own CID.
    Provided {
        /// As it was given.
        cid: String,
        /// In base58btc.
        multihash: String,
        /// When it was first given.
        added: String,
        /// The last announcement.
        announced: Option<String>,
        /// Servers that confirmed it.
        confirmed: u16,
    },
    /// A peer of the address book.
    Peers {
        /// Peer id.
        peer: String,
        /// As far as they are not outlived.
        addresses: Vec<String>,
        /// So many at the end of them came by the LAN DHT.
        #[serde(default)]
        lan: u64,
        /// Its newest announcement.
        announced: String,
        /// Its records.
        records: u64,
    },
    /// A peer of a saved routing table.
    Routing {
        /// `wan` or `lan`.
        dht: String,
        /// Peer id.
        peer: String,
        /// Its addresses.
        addresses: Vec<String>,
        /// When it was last heard.
        heard: String,
    },
    /// A figure or note.
    Meta {
        /// Which.
        name: String,
        /// Its value.
        value: String,
    },
}

impl Row {
    /// Its table.
    pub const fn table(&self) -> Table {
        match self {
            Row::Providers { .. } => Table::Providers,
            Row::Values { .. } => Table::Values,
            Row::Provided { .. } => Table::Provided,
            Row::Peers { .. } => Table::Peers,
            Row::Routing { .. } => Table::Routing,
            Row::Meta { .. } => Table::Meta,
        }
    }
}

/// What is wanted of the rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// Each as a JSON object between these.
    Lines {
        /// Before each row.
        before: &'static str,
        /// After each row.
        after: &'static str,
    },
    /// How many there are.
    Count,
    /// How many there are, and a hash that does not depend on their order: the sum modulo 2^256 of the SHA-256 of each
    /// row's words (docs/dump.md). Live ones, without `meta`.
    Hash,
}

impl Want {
    /// NDJSON.
    pub const NDJSON: Self = Self::Lines { before: "", after: "\n" };
}

/// What a dump tells on its way.
#[derive(Debug)]
pub enum Told<'a> {
    /// It begins: the schema of the database, and its time.
    Begin {
        /// See migrations/.
        schema: u32,
        /// Now.
        time: UnixTime,
    },
    /// Rows of a table, as they were wanted.
    Rows {
        /// Of this table.
        table: Table,
        /// How many.
        rows: u64,
        /// Their text. Who keeps it takes it, and leaves another buffer or none.
        json: &'a mut Vec<u8>,
    },
    /// Something could not be read; the rest is told all the same.
    Damaged {
        /// Where it is.
        place: String,
        /// Why it cannot be read.
        error: String,
    },
}

/// The rows of [`Want::NDJSON`], read. Text that is no row ends them.
pub fn read_rows(json: &[u8]) -> impl Iterator<Item = Row> {
    serde_json::Deserializer::from_slice(json).into_iter::<Row>().map_while(Result::ok)
}

/// Tells `each` what there is until it returns false, then what it was in all. Blocking; constant memory beside the index.
/// Waits for the end of replay. Records announced while it runs may be missing or told as they were before.
///
/// # Errors
/// [`StoreError::BadFilter`]; [`StoreError::Database`] when the log takes no more writes and so cannot be read to its end.
pub fn running(
    store: &Store,
    filter: &Filter,
    want: Want,
    each: &mut dyn FnMut(Told<'_>) -> bool,
) -> Result<Summary, StoreError> {
    dump(None, store, filter, want, each)
}

/// What was found damaged when a store was opened for this (at `place`) comes first.
fn dump(
    place: Option<&str>,
    store: &Store,
    filter: &Filter,
    want: Want,
    each: &mut dyn FnMut(Told<'_>) -> bool,
) -> Result<Summary, StoreError> {
    let is_hash = want == Want::Hash;
    let filter = Filter { expired: filter.expired && !is_hash, ..filter.clone() };
    let matcher = Matcher::new(&filter)?;
    let mut more =
        each(Told::Begin { schema: store.opened.schema, time: UnixTime(store.records.shared.time.now().log) });
    let mut output = Output::new(want, filter.limit, each);
    for note in store.opened.notes.iter().filter(|_| place.is_some()) {
        more = more && output.damaged(place.unwrap_or_default().to_owned(), note.clone());
    }
    for table in filter.tables().filter(|table| !(is_hash && *table == Table::Meta)) {
        if !more || !output.begin(table) {
            break;
        }
        more = match table {
            Table::Providers => providers::providers(store, &matcher, &mut output)?,
            Table::Values => rows::values(store, &matcher, &mut output),
            Table::Provided => rows::provided(store, &matcher, &mut output),
            Table::Peers => rows::peers(store, &matcher, &mut output),
            Table::Routing => rows::routing(store, &matcher, &mut output),
            Table::Meta => rows::meta(store, &matcher, &mut output),
        };
    }
    Ok(output.finish())
}

/// The same of a stopped node's directory, which stays byte for byte as it is: opens a copy (below the
/// system's temporary directory, removed afterwards). Of `settings` the ttls matter. `in_place` lets the database recover there and then.
///
/// # Errors
/// [`StoreError::NoDatabase`] (none is ever created); [`StoreError::Locked`] while a server has the directory;
/// [`StoreError::Io`] if it cannot be read or copied; [`StoreError::FromTheFuture`]; [`StoreError::BadFilter`].
pub fn stopped(
    from: Stopped<'_>,
    filter: &Filter,
    want: Want,
    each: &mut dyn FnMut(Told<'_>) -> bool,
) -> Result<Summary, StoreError> {
    Matcher::new(filter)?;
    let Stopped { dir, in_place, settings, now } = from;
    if let Err(e) = std::fs::read_dir(dir)
        && e.kind() != ErrorKind::NotFound
    {
        return Err(filesystem::io_error("read", dir, e));
    }
    if !is_data_dir(dir) {
        return Err(StoreError::NoDatabase(dir.to_owned()));
    }
    let clock = ManualClock::at(now);
    if in_place {
        let lock = data_dir::Lock::acquire(dir)?;
        let store = Store::open_for(Purpose::Read, lock.path(), settings, clock)?;
        return dump(Some("database"), &store, filter, want, each);
    }
    let copy = data_dir::copy_for_reading(dir, None)?;
    let store = Store::open_for(Purpose::Read, copy.path(), settings, clock)?;
    dump(Some("copy of the database"), &store, filter, want, each)
}

/// A stopped node's directory.
#[derive(Debug)]
pub struct Stopped<'a> {
    /// Where it is.
    pub dir: &'a Path,
    /// Open it there, not a copy.
    pub in_place: bool,
    /// As the node has them.
    pub settings: Settings,
    /// The time by which records are live.
    pub now: UnixTime,
}
