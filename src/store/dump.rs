//! Reading everything out: of the running store, or of a copy of a stopped one.

use super::{Store, StoreError};
use crate::clock::UnixTime;

use serde::{Deserialize, Serialize};
use std::path::Path;

/// The tables of `dhtstore dump`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Table {
    Providers,
    Provided,
    Peers,
    Routing,
    Meta,
}

/// Which rows are wanted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Filter {
    /// Empty: all tables, in the order of [`Table`].
    pub tables: Vec<Table>,
    /// Matches by multihash.
    pub cid: Option<String>,
    pub peer: Option<String>,
    /// Unix seconds, inclusive.
    pub since: Option<u32>,
    /// Unix seconds, exclusive.
    pub until: Option<u32>,
    /// Also rows past their ttl that are not collected yet.
    pub expired: bool,
    pub limit: Option<u64>,
}

/// One row, as NDJSON shows it. Fields are stable: only ever added.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "table", rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Row {
    Providers {
        cid: String,
        multihash: String,
        provider: String,
        addresses: Vec<String>,
        received: String,
        expires: String,
        expires_in_s: i64,
    },
    Provided {
        cid: String,
        multihash: String,
        added: String,
        announced: Option<String>,
        confirmed: u16,
    },
    Peers {
        peer: String,
        addresses: Vec<String>,
        announced: String,
        records: u64,
    },
    Routing {
        dht: String,
        peer: String,
        addresses: Vec<String>,
        heard: String,
    },
    Meta {
        name: String,
        value: String,
    },
    /// A row that could not be read; the others are printed all the same.
    Damaged {
        place: String,
        error: String,
    },
}

/// Hands each row to `each` until it returns false. Blocking; constant memory beside the index.
#[expect(unused_variables)]
pub fn running(store: &Store, filter: &Filter, each: &mut dyn FnMut(Row) -> bool) -> Result<(), StoreError> {
    todo!()
}

/// The same of a stopped node's directory, which stays byte for byte as it is: opens a copy (below the
/// system's temporary directory, removed afterwards). `in_place` lets the database recover there and then.
#[expect(unused_variables)]
pub fn stopped(
    dir: &Path,
    in_place: bool,
    ttl: std::time::Duration,
    now: UnixTime,
    filter: &Filter,
    each: &mut dyn FnMut(Row) -> bool,
) -> Result<(), StoreError> {
    todo!()
}
