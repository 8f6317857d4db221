//! The first and the last line of a dump (docs/dump.md). The version is that of the lines, not of the database.
//! A program that supports this version can load the dump, whichever version of dhtstore wrote it.

use super::{Filter, Summary};
use crate::clock::UnixTime;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the dumps that are written. It is the only version so far.
pub const VERSION: u32 = 1;
/// Maximum length of a line, in bytes. A value of 10 KiB takes 15 kB. A peer with as many addresses as are kept takes
/// 8 kB.
pub const MAX_LINE: usize = 64 << 10;

/// The first line. Later versions only add fields.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Header {
    /// `dump`
    pub dhtstore: String,
    /// [`VERSION`].
    pub version: u32,
    /// Schema version of the database that was dumped.
    pub schema: u32,
    /// Peer id of the node; `None` if it has no identity yet.
    pub peer_id: Option<String>,
    /// When the dump began, RFC 3339.
    pub time: String,
    /// Tables that the dump contains.
    pub tables: Vec<String>,
}

impl Header {
    /// Makes the header of a dump that begins now.
    pub fn new(schema: u32, peer_id: Option<String>, time: UnixTime, filter: &Filter) -> Self {
        let tables = filter.tables().map(|table| table.name().to_owned()).collect();
        Self { dhtstore: "dump".into(), version: VERSION, schema, peer_id, time: time.to_string(), tables }
    }
}

/// The last line. A dump without it is incomplete.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct End {
    /// `end`
    pub dhtstore: String,
    /// Number of lines between header and end.
    pub rows: u64,
    /// Number of lines of each table.
    pub tables: BTreeMap<String, u64>,
    /// Number of places of the database that could not be read.
    pub damaged: u64,
}

impl End {
    /// Makes the end of a dump with this summary.
    pub fn new(summary: &Summary) -> Self {
        let tables = summary.tables.iter().map(|(name, table)| (name.clone(), table.rows)).collect();
        Self { dhtstore: "end".into(), rows: summary.rows, tables, damaged: summary.damaged }
    }
}

/// A line that is the header or the end, not a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mark {
    /// The first line.
    Header(Header),
    /// The last line.
    End(End),
}

impl Mark {
    /// The bytes that such lines, and no rows, begin with.
    const BEGINNING: &'static [u8] = br#"{"dhtstore":"#;

    /// Reads a line; `None` if it is a row.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the line.
    pub fn read(line: &[u8]) -> Result<Option<Self>, String> {
        if !line.starts_with(Self::BEGINNING) {
            return Ok(None);
        }
        #[derive(Deserialize)]
        struct Kind {
            dhtstore: String,
            version: Option<u32>,
        }
        let kind: Kind = serde_json::from_slice(line).map_err(|e| e.to_string())?;
        match (kind.dhtstore.as_str(), kind.version) {
            ("dump", Some(version)) if version != VERSION => {
                Err(format!("it has version {version}, and this dhtstore reads version {VERSION}"))
            }
            ("dump", _) => Ok(Some(Self::Header(serde_json::from_slice(line).map_err(|e| e.to_string())?))),
            ("end", _) => Ok(Some(Self::End(serde_json::from_slice(line).map_err(|e| e.to_string())?))),
            (other, _) => Err(format!("{other:?} is neither `dump` nor `end`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_line_come_back_and_rows_are_none_of_them() {
        let header = Header {
            dhtstore: "dump".into(),
            version: VERSION,
            schema: 2,
            peer_id: None,
            time: "2026-01-31T12:00:00Z".into(),
            tables: vec!["peers".into()],
        };
        let line = serde_json::to_vec(&header).unwrap();
        assert_eq!(Mark::read(&line), Ok(Some(Mark::Header(header))));
        let end = End { dhtstore: "end".into(), rows: 2, tables: BTreeMap::new(), damaged: 0 };
        assert_eq!(Mark::read(&serde_json::to_vec(&end).unwrap()), Ok(Some(Mark::End(end))));
        assert_eq!(Mark::read(br#"{"table":"peers"}"#), Ok(None));
    }

    #[test]
    fn a_version_from_the_future_is_refused_whatever_else_it_says() {
        let error = Mark::read(br#"{"dhtstore":"dump","version":2,"all":"new"}"#).unwrap_err();
        assert!(error.contains("version 2"), "{error}");
        for bad in [
            &br#"{"dhtstore":"dump"}"#[..],
            br#"{"dhtstore":"dump","version":1}"#,
            br#"{"dhtstore":7}"#,
            br#"{"dhtstore":"#,
        ] {
            assert!(Mark::read(bad).is_err());
        }
    }
}
