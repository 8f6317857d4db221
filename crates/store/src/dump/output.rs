//! Output of a dump: lines of JSON in large pieces, a count, or a hash.

use super::{
    row::{Row, Table},
    text::Sum,
};
use crate::clock::UnixTime;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Size of the pieces in which lines are passed on: as much as pipes and sockets take at once ...
const PIECE_BYTES: usize = 64 * 1024;
/// ... and room for the line that ends a piece, so that buffers rarely grow.
const PIECE_ROOM: usize = PIECE_BYTES + 4096;
/// The first rows are passed on one by one, so that people, and `| head`, see them at once.
const AT_ONCE_ROWS: u64 = 256;

/// What a dump computes from the rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// Each row as a JSON object between these texts.
    Lines {
        /// Before each row.
        before: &'static str,
        /// After each row.
        after: &'static str,
    },
    /// The number of rows.
    Count,
    /// The number of rows, and a hash that does not depend on their order: the sum modulo 2^256 of the SHA-256 of each
    /// row's words (docs/dump.md). Covers live rows, without the table `meta`.
    Hash,
}

impl Want {
    /// One JSON object a line.
    pub const NDJSON: Self = Self::Lines { before: "", after: "\n" };
}

/// What a dump passes to its caller on the way.
#[derive(Debug)]
pub enum Told<'a> {
    /// The dump begins.
    Begin {
        /// Schema version of the database (migrations/).
        schema: u32,
        /// Time at which the dump begins.
        time: UnixTime,
    },
    /// Rows of a table, in the form that was asked for.
    Rows {
        /// The table.
        table: Table,
        /// Number of rows.
        rows: u64,
        /// Their text. A caller that keeps the text takes the buffer, and leaves another one or an empty one.
        json: &'a mut Vec<u8>,
    },
    /// A place could not be read; the rest is still dumped.
    Damaged {
        /// The place.
        place: String,
        /// Why it cannot be read.
        error: String,
    },
}

/// Totals of a dump.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Totals of each table that was asked for.
    pub tables: BTreeMap<String, TableSummary>,
    /// Number of rows of all tables.
    pub rows: u64,
    /// Number of places that could not be read.
    pub damaged: u64,
    /// Hash over all tables, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// Totals of one table.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TableSummary {
    /// Number of rows.
    pub rows: u64,
    /// Hash, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// Collects rows; see the module.
pub struct Output<'a> {
    pub want: Want,
    left: u64,
    each: &'a mut dyn FnMut(Told<'_>) -> bool,
    table: Table,
    piece: Vec<u8>,
    piece_rows: u64,
    scratch: Vec<u8>,
    counts: [(u64, Sum); Table::ALL.len()],
    asked: [bool; Table::ALL.len()],
    rows: u64,
    damaged: u64,
}

impl<'a> Output<'a> {
    /// Makes an output that passes at most `limit` rows to `each`.
    pub fn new(want: Want, limit: Option<u64>, each: &'a mut dyn FnMut(Told<'_>) -> bool) -> Self {
        Self {
            want,
            left: limit.unwrap_or(u64::MAX),
            each,
            table: Table::Providers,
            piece: Vec::new(),
            piece_rows: 0,
            scratch: Vec::new(),
            counts: Default::default(),
            asked: Default::default(),
            rows: 0,
            damaged: 0,
        }
    }

    /// Begins a table: the rows that follow belong to it.
    pub fn begin(&mut self, table: Table) -> bool {
        let more = self.hand_on();
        self.table = table;
        self.asked[table as usize] = true;
        more
    }

    /// Returns whether no more rows are wanted.
    pub fn is_full(&self) -> bool {
        self.left == 0
    }

    /// Adds a row; returns false when no more are wanted.
    pub fn put(&mut self, row: &Row) -> bool {
        self.put_text(
            // Our own types with text keys: serialising them into memory cannot fail.
            |json| drop(serde_json::to_writer(json, row)),
            |text| row.push_text(text),
        )
    }

    /// Adds a row: `json` writes its JSON object, `text` its words to be hashed. Returns false when no more are wanted.
    pub fn put_text(&mut self, json: impl FnOnce(&mut Vec<u8>), text: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        self.rows += 1;
        let (rows, sum) = &mut self.counts[self.table as usize];
        *rows += 1;
        match self.want {
            Want::Lines { before, after } => {
                self.piece.extend_from_slice(before.as_bytes());
                json(&mut self.piece);
                self.piece.extend_from_slice(after.as_bytes());
                self.piece_rows += 1;
                if self.rows <= AT_ONCE_ROWS || self.piece.len() >= PIECE_BYTES {
                    return self.hand_on() && self.left > 0;
                }
            }
            Want::Count => {}
            Want::Hash => {
                self.scratch.clear();
                text(&mut self.scratch);
                sum.add_row(&self.scratch);
            }
        }
        self.left > 0
    }

    /// Reports damage. Damage is not a row, so it is reported even after the limit of rows is reached.
    pub fn damaged(&mut self, place: String, error: String) -> bool {
        self.damaged += 1;
        self.hand_on() && (self.each)(Told::Damaged { place, error })
    }

    fn hand_on(&mut self) -> bool {
        if self.piece_rows == 0 {
            return true;
        }
        let rows = std::mem::take(&mut self.piece_rows);
        let more = (self.each)(Told::Rows { table: self.table, rows, json: &mut self.piece });
        self.piece.clear();
        if self.rows > AT_ONCE_ROWS {
            self.piece.reserve(PIECE_ROOM);
        }
        more
    }

    /// Ends the dump and returns its totals.
    pub fn finish(mut self) -> Summary {
        self.hand_on();
        let is_hash = self.want == Want::Hash;
        let mut all = Sum::default();
        let tables = Table::ALL.iter().filter(|table| self.asked[**table as usize]).map(|table| {
            let (rows, sum) = &self.counts[*table as usize];
            all.add(sum);
            (table.name().to_owned(), TableSummary { rows: *rows, hash: is_hash.then(|| sum.to_hex()) })
        });
        let tables = tables.collect();
        Summary { tables, rows: self.rows, damaged: self.damaged, hash: is_hash.then(|| all.to_hex()) }
    }
}

impl Row {
    /// Writes the words of a row that are hashed, separated by spaces. Times are written as they are printed. Fields
    /// that depend on settings, on the time of the dump or on other rows are left out.
    fn push_text(&self, out: &mut Vec<u8>) {
        let words: Vec<&str> = match self {
            Row::Providers { cid, provider, received, .. } => vec!["providers", cid, provider, received],
            Row::Values { key, received, record, .. } => vec!["values", key, received, record],
            Row::Provided { cid, added, announced, .. } => {
                vec!["provided", cid, added, announced.as_deref().unwrap_or("-")]
            }
            Row::Peers { peer, addresses, announced, .. } => {
                ["peers", peer, announced].into_iter().chain(addresses.iter().map(String::as_str)).collect()
            }
            Row::Routing { dht, peer, addresses, heard } => {
                ["routing", dht, peer, heard].into_iter().chain(addresses.iter().map(String::as_str)).collect()
            }
            Row::Meta { name, value } => vec!["meta", name, value],
        };
        out.extend_from_slice(words.join(" ").as_bytes());
        if let Row::Provided { confirmed, .. } = self {
            out.extend_from_slice(format!(" {confirmed}").as_bytes());
        }
    }
}
