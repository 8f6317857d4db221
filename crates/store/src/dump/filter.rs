//! Which rows of a dump are wanted.

use super::row::Table;
use crate::{StoreError, kad::Cid, records::entry::Hashed};
use libp2p_identity::PeerId;
use multibase::Base;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

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

/// A [`Filter`], read.
#[derive(Debug)]
pub struct Matcher {
    pub multihash: Option<Vec<u8>>,
    pub peer: Option<PeerId>,
    since: u32,
    until: u32,
    /// Not all of time.
    pub times: bool,
    pub expired: bool,
}

impl Matcher {
    /// Reads CID and peer id.
    pub fn new(filter: &Filter) -> Result<Self, StoreError> {
        let bad = |what, text: &str, reason: String| StoreError::BadFilter { what, text: text.to_owned(), reason };
        let multihash = match &filter.cid {
            Some(text) => Some(multihash_of(text).map_err(|e| bad("CID", text, e))?),
            None => None,
        };
        let peer = match &filter.peer {
            Some(text) => Some(PeerId::from_str(text).map_err(|e| bad("peer id", text, e.to_string()))?),
            None => None,
        };
        Ok(Self {
            multihash,
            peer,
            since: filter.since.unwrap_or(0),
            until: filter.until.unwrap_or(u32::MAX),
            times: filter.since.is_some() || filter.until.is_some(),
            expired: filter.expired,
        })
    }

    pub fn time(&self, time: u32) -> bool {
        !self.times || (self.since..self.until).contains(&time)
    }

    pub fn key(&self, multihash: &[u8]) -> bool {
        self.multihash.as_ref().is_none_or(|wanted| wanted == multihash)
    }

    pub fn hashed(&self, multihash: Hashed<'_>) -> bool {
        self.multihash.as_ref().is_none_or(|wanted| Hashed::new(wanted) == multihash)
    }

    pub fn peer(&self, peer: &PeerId) -> bool {
        self.peer.is_none_or(|wanted| wanted == *peer)
    }
}

fn multihash_of(text: &str) -> Result<Vec<u8>, String> {
    let error = match Cid::from_str(text) {
        Ok(cid) => return Ok(cid.hash().to_bytes()),
        Err(error) => error.to_string(),
    };
    // What the dump prints as multihash. A CIDv0 is one, and was read above.
    let bytes = Base::Base58Btc.decode(text).map_err(|_| error.clone())?;
    cid::multihash::Multihash::<128>::from_bytes(&bytes).map(|_| bytes).map_err(|_| error)
}
