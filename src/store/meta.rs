//! Tree `meta` of the `node/` database: the schema version, and the floor of the log in `records/`.

use super::{
    StoreError, codec,
    engine::{Health, guard},
};
use bincode::{Decode, Encode};

/// The schema that this version writes (migrations/).
pub const SCHEMA: u32 = 2;

const SCHEMA_ROW: &str = "schema";
const FLOOR_ROW: &str = "floor";
const OWN_ROW: &str = "own";
const EXPORTED_ROW: &str = "exported";
const POSITION_ROW: &str = "position";
const RECORDS_ROW: &str = "records";

/// What the log held when it was last flushed: an open that finds less has found damage.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Floor {
    /// Chunks; unknown while the log is replayed.
    pub chunks: Option<u64>,
    /// Key of the oldest chunk: seconds << 32 | sequence.
    pub oldest: Option<u64>,
    /// Key of the newest chunk.
    pub newest: Option<u64>,
    /// Log time then, Unix seconds.
    pub last_seen: u32,
}

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Meta {
    tree: sled::Tree,
}

impl Meta {
    /// Opens the tree.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn open(db: &sled::Db) -> Result<Self, StoreError> {
        Ok(Self { tree: guard(|| db.open_tree("meta"))? })
    }

    /// The schema version, if one was written. A row that cannot be read counts as none.
    pub fn schema(&self) -> Option<u32> {
        self.get(SCHEMA_ROW)
    }

    /// Writes the schema version.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn set_schema(&self, schema: u32) -> Result<(), StoreError> {
        self.put(SCHEMA_ROW, &schema)
    }

    /// The floor, if one was written and can be read.
    pub fn floor(&self) -> Option<Floor> {
        self.get(FLOOR_ROW)
    }

    /// Raises (or lowers) the floor.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn set_floor(&self, floor: &Floor) -> Result<(), StoreError> {
        self.put(FLOOR_ROW, floor)
    }

    /// How many own CIDs there were at the last flush.
    pub fn own(&self) -> Option<u64> {
        self.get(OWN_ROW)
    }

    /// Notes how many own CIDs there are.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn set_own(&self, own: u64) -> Result<(), StoreError> {
        self.put(OWN_ROW, &own)
    }

    /// The generation of the newest export of own CIDs: an open that finds an older one here has found a database that went
    /// back to an earlier state.
    pub fn exported(&self) -> Option<u64> {
        self.get(EXPORTED_ROW)
    }

    /// Notes the generation of an export.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn set_exported(&self, generation: u64) -> Result<(), StoreError> {
        self.put(EXPORTED_ROW, &generation)
    }

    /// The position of the node when it last ran, if known.
    pub fn position(&self) -> Option<[u8; 32]> {
        self.get(POSITION_ROW)
    }

    /// Notes the position of the node.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn set_position(&self, position: [u8; 32]) -> Result<(), StoreError> {
        self.put(POSITION_ROW, &position)
    }

    /// How many provider records there were at the last flush, about.
    pub fn records(&self) -> Option<u64> {
        self.get(RECORDS_ROW)
    }

    /// Notes how many provider records there are.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn set_records(&self, records: u64) -> Result<(), StoreError> {
        self.put(RECORDS_ROW, &records)
    }

    fn get<T: Decode<()>>(&self, row: &str) -> Option<T> {
        codec::decode(&guard(|| self.tree.get(row)).ok()??).ok()
    }

    fn put<T: Encode>(&self, row: &str, value: &T) -> Result<(), StoreError> {
        let bytes = codec::encode(value).map_err(|e| StoreError::Database(e.to_string()))?;
        guard(|| self.tree.insert(row, bytes)).map(|_| ())
    }
}

/// The `node/` database as its parts share it.
#[derive(Debug)]
pub struct NodeDb {
    /// The database.
    pub db: sled::Db,
    /// Its tree `meta`.
    pub meta: Meta,
    /// How it is doing.
    pub health: Health,
}

impl NodeDb {
    /// Everything to disk, fsynced.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn flush(&self) -> Result<(), StoreError> {
        guard(|| self.db.flush()).map(|_| ())
    }
}
