//! Tables of a dump, and their rows.

use serde::{Deserialize, Serialize};

/// The tables of `dhtstore dump`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Table {
    /// Provider records that other peers announced.
    Providers,
    /// Values that other peers put.
    Values,
    /// Own CIDs.
    Provided,
    /// The address book.
    Peers,
    /// Saved routing tables.
    Routing,
    /// Figures and notes of the store.
    Meta,
}

impl Table {
    /// Returns the name for the command line and for rows.
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

    /// All tables, in the order of a dump.
    pub const ALL: [Table; 6] =
        [Table::Providers, Table::Values, Table::Provided, Table::Peers, Table::Routing, Table::Meta];
}

/// A row, as NDJSON shows it. Fields are stable: later versions only add some. Times are RFC 3339 in UTC.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "table", rename_all = "lowercase")]
pub enum Row {
    /// A provider record.
    Providers {
        /// CIDv1 with codec raw: a record keeps the multihash and not the codec.
        cid: String,
        /// In base58btc.
        multihash: String,
        /// Peer id.
        provider: String,
        /// Addresses that have not expired.
        addresses: Vec<String>,
        /// When it was announced.
        received: String,
        /// When it expires.
        expires: String,
        /// Seconds until it expires; negative if it has expired.
        expires_in_s: i64,
    },
    /// A value.
    Values {
        /// `/ipns/k51…` or `/pk/…`
        key: String,
        /// Size of the value in bytes.
        bytes: u64,
        /// When it was last put.
        received: String,
        /// When it is no longer served: after its ttl, or at the end of its own validity.
        expires: String,
        /// Seconds until then; negative if that time has passed.
        expires_in_s: i64,
        /// The whole record, in multibase base64.
        record: String,
    },
    /// An own CID.
    Provided {
        /// The CID as it was last given.
        cid: String,
        /// In base58btc.
        multihash: String,
        /// When it was first given.
        added: String,
        /// When it was last announced.
        announced: Option<String>,
        /// Number of servers that confirmed the last announcement.
        confirmed: u16,
    },
    /// A peer of the address book.
    Peers {
        /// Peer id.
        peer: String,
        /// Addresses that have not expired.
        addresses: Vec<String>,
        /// Number of addresses, at the end of the list, that came by the LAN DHT.
        #[serde(default)]
        lan: u64,
        /// When it last announced a record.
        announced: String,
        /// Number of its records.
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
        /// Name of the figure or note.
        name: String,
        /// Its value.
        value: String,
    },
}

impl Row {
    /// Returns its table.
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

/// Reads rows of NDJSON, up to the first text that is no row.
pub fn read_rows(json: &[u8]) -> impl Iterator<Item = Row> {
    serde_json::Deserializer::from_slice(json).into_iter::<Row>().map_while(Result::ok)
}
