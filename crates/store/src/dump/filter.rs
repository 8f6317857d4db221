//! The rows that a dump shall contain.

use super::row::Table;
use crate::{StoreError, error::Cause, kad::Cid, records::entry::Hashed};
use libp2p_identity::PeerId;
use multibase::Base;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// Selects rows. A filter by a field that a table lacks excludes all rows of that table.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Filter {
    /// Tables to dump; if empty, all tables in the order of [`Table`].
    pub tables: Vec<Table>,
    /// Selects by multihash: a CID of either version, or a multihash in base58btc.
    pub cid: Option<String>,
    /// Selects by peer id.
    pub peer: Option<String>,
    /// Earliest time, Unix seconds, inclusive.
    pub since: Option<u32>,
    /// Latest time, Unix seconds, exclusive.
    pub until: Option<u32>,
    /// Includes rows past their ttl that are not collected yet.
    pub expired: bool,
    /// Maximum number of rows of all tables together.
    pub limit: Option<u64>,
}

impl Filter {
    /// Returns the tables to dump.
    pub fn tables(&self) -> impl Iterator<Item = Table> {
        let tables: &[Table] = if self.tables.is_empty() { &Table::ALL } else { &self.tables };
        tables.iter().copied()
    }
}

/// A [`Filter`] whose CID and peer id are parsed.
#[derive(Debug)]
pub struct Matcher {
    pub multihash: Option<Vec<u8>>,
    pub peer: Option<PeerId>,
    since: u32,
    until: u32,
    /// True if the filter names a time.
    pub times: bool,
    pub expired: bool,
}

impl Matcher {
    /// Parses the CID and the peer id.
    pub fn new(filter: &Filter) -> Result<Self, StoreError> {
        let bad = |what, text: &str, reason: Cause| StoreError::BadFilter { what, text: text.to_owned(), reason };
        let multihash = match &filter.cid {
            Some(text) => Some(multihash_of(text).map_err(|e| bad("CID", text, e.into()))?),
            None => None,
        };
        let peer = match &filter.peer {
            Some(text) => Some(PeerId::from_str(text).map_err(|e| bad("peer id", text, e.into()))?),
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

fn multihash_of(text: &str) -> Result<Vec<u8>, cid::Error> {
    let not_a_cid = match Cid::from_str(text) {
        Ok(cid) => return Ok(cid.hash().to_bytes()),
        Err(error) => error,
    };
    // A dump prints multihashes in base58btc. Those of SHA-256 are CIDs of version 0 too, and were read above.
    let bytes = Base::Base58Btc.decode(text).unwrap_or_default();
    match cid::multihash::Multihash::<128>::from_bytes(&bytes) {
        Ok(_) => Ok(bytes),
        Err(_) => Err(not_a_cid),
    }
}
