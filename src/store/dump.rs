//! Reading everything out: of the running store, or of a copy of a stopped one.
//!
//! Both do the same: the copy is opened like a store, its log replayed, and dumped as a running one. So they agree.

mod rows;

use super::{Purpose, Settings, Store, StoreError, data_dir, is_data_dir};
use crate::clock::{ManualClock, UnixTime};

use rows::{Matcher, Output};
use serde::{Deserialize, Serialize};
use std::{io::ErrorKind, path::Path};

/// The tables of `dhtstore dump`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
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
    /// A row that could not be read; the others are printed all the same.
    Damaged {
        /// Where it is.
        place: String,
        /// Why it cannot be read.
        error: String,
    },
}

/// Hands each row to `each` until it returns false. Blocking; constant memory beside the index. Waits for the end of
/// replay. Records announced while it runs may be missing or told as they were before.
///
/// # Errors
/// [`StoreError::BadFilter`]; [`StoreError::Database`] when the log takes no more writes and so cannot be read to its end.
pub fn running(store: &Store, filter: &Filter, each: &mut dyn FnMut(Row) -> bool) -> Result<(), StoreError> {
    let matcher = Matcher::new(filter)?;
    let mut output = Output::new(filter.limit, each);
    let tables: &[Table] = if filter.tables.is_empty() { &Table::ALL } else { &filter.tables };
    for table in tables {
        let more = match table {
            Table::Providers => rows::providers(store, &matcher, &mut output)?,
            Table::Values => rows::values(store, &matcher, &mut output),
            Table::Provided => rows::provided(store, &matcher, &mut output),
            Table::Peers => rows::peers(store, &matcher, &mut output),
            Table::Routing => rows::routing(store, &matcher, &mut output),
            Table::Meta => rows::meta(store, &matcher, &mut output),
        };
        if !more {
            break;
        }
    }
    Ok(())
}

/// A store that was opened for this: what was found damaged comes first.
fn dump(place: &str, store: &Store, filter: &Filter, each: &mut dyn FnMut(Row) -> bool) -> Result<(), StoreError> {
    match Output::new(None, each).notes(place, store) {
        true => running(store, filter, each),
        false => Ok(()),
    }
}

/// The same of a stopped node's directory, which stays byte for byte as it is: opens a copy (below the
/// system's temporary directory, removed afterwards). Of `settings` the ttls matter. `in_place` lets the database recover there and then.
///
/// # Errors
/// [`StoreError::NoDatabase`] (none is ever created); [`StoreError::Locked`] while a server has the directory;
/// [`StoreError::Io`] if it cannot be read or copied; [`StoreError::FromTheFuture`]; [`StoreError::BadFilter`].
pub fn stopped(
    dir: &Path,
    in_place: bool,
    settings: Settings,
    now: UnixTime,
    filter: &Filter,
    each: &mut dyn FnMut(Row) -> bool,
) -> Result<(), StoreError> {
    Matcher::new(filter)?;
    if let Err(e) = std::fs::read_dir(dir)
        && e.kind() != ErrorKind::NotFound
    {
        return Err(data_dir::io_error("read", dir, e));
    }
    if !is_data_dir(dir) {
        return Err(StoreError::NoDatabase(dir.to_owned()));
    }
    let clock = ManualClock::at(now);
    if in_place {
        let lock = data_dir::Lock::acquire(dir)?;
        let store = Store::open_for(Purpose::Read, lock.path(), settings, clock)?;
        return dump("database", &store, filter, each);
    }
    let copy = tempfile::Builder::new()
        .prefix("dhtstore-dump-")
        .tempdir()
        .map_err(|e| data_dir::io_error("create a copy in", &std::env::temp_dir(), e))?;
    {
        let _keeps_servers_out = data_dir::share(dir)?;
        for part in ["node", "records", "exports"].map(Path::new) {
            // Neither what recovery once set aside, nor identities.
            if dir.join(part).is_dir() {
                data_dir::copy_dir(&dir.join(part), &copy.path().join(part), &|_| true)?;
            }
        }
    }
    let store = Store::open_for(Purpose::Read, copy.path(), settings, clock)?;
    dump("copy of the database", &store, filter, each)
}
