//! Tables of a dump, and their rows.

use serde::{Deserialize, Serialize};

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

/// The rows of NDJSON, read. Text that is no row ends them.
pub fn read_rows(json: &[u8]) -> impl Iterator<Item = Row> {
    serde_json::Deserializer::from_slice(json).into_iter::<Row>().map_while(Result::ok)
}
