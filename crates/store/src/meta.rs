//! Tree `meta` of the `node/` database: the schema version, and the floor of the log in `records/`.

use super::{StoreError, codec, database::Database, engine::guard};
use bincode::{Decode, Encode};
use libp2p_identity::PeerId;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// The schema that this version writes (migrations/).
pub const SCHEMA: u32 = 3;

const SCHEMA_ROW: &str = "schema";
const FLOOR_ROW: &str = "floor";
const OWN_ROW: &str = "own";
const EXPORTED_ROW: &str = "exported";
const POSITION_ROW: &str = "position";
const RECORDS_ROW: &str = "records";
const PEER_ROW: &str = "peer";
const SEQUENCES_ROW: &str = "ipns";

/// Maximum number of identities whose highest sequence numbers are kept: a node has one, and a few over its life.
const MAX_NAMES: usize = 1000;

/// What the log held when it was last flushed. An open that finds less has found damage.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Floor {
    /// Number of chunks; unknown while the log is replayed.
    pub chunks: Option<u64>,
    /// Key of the oldest chunk: seconds << 32 | sequence.
    pub oldest: Option<u64>,
    /// Key of the newest chunk.
    pub newest: Option<u64>,
    /// Log time of the flush, Unix seconds.
    pub last_seen: u32,
}

/// The `node/` database as its parts share it.
#[derive(Clone, Debug)]
pub struct NodeDb {
    /// The database.
    pub database: Arc<Database<4>>,
    /// Its tree `meta`.
    pub meta: Meta,
}

/// Indexes of the trees of `node/`.
pub mod tree {
    /// See [`super::Meta`].
    pub const META: usize = 0;
    /// Own CIDs.
    pub const PROVIDED: usize = 1;
    /// Saved routing tables.
    pub const ROUTING: usize = 2;
    /// Runs of jobs.
    pub const JOBS: usize = 3;
    /// All of them.
    pub const NAMES: [&str; 4] = ["meta", "provided", "routing", "jobs"];
}

impl NodeDb {
    /// Wraps the database `db`, whose files are in `dir`.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn new(db: sled::Db, dir: PathBuf) -> Result<Self, StoreError> {
        let database = Arc::new(Database::new(db, dir, tree::NAMES)?);
        Ok(Self { meta: Meta { database: database.clone() }, database })
    }

    /// Writes everything to disk and fsyncs it.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn flush(&self) -> Result<(), StoreError> {
        self.database.flush()
    }
}

/// Returns the schema version of a database that nobody else has opened yet.
///
/// # Errors
/// [`StoreError::Database`].
pub fn schema_of(db: &sled::Db) -> Result<Option<u32>, StoreError> {
    row_of(db, SCHEMA_ROW)
}

/// Returns [`Meta::floor`] of a database that nobody else has opened yet.
///
/// # Errors
/// [`StoreError::Database`].
pub fn floor_of(db: &sled::Db) -> Result<Option<Floor>, StoreError> {
    row_of(db, FLOOR_ROW)
}

/// Returns [`Meta::own`] of a database that nobody else has opened yet.
///
/// # Errors
/// [`StoreError::Database`].
pub fn own_of(db: &sled::Db) -> Result<Option<u64>, StoreError> {
    row_of(db, OWN_ROW)
}

/// Returns [`Meta::peer`] of a database that nobody else has opened yet.
///
/// # Errors
/// [`StoreError::Database`].
pub fn peer_of(db: &sled::Db) -> Result<Option<Vec<u8>>, StoreError> {
    row_of(db, PEER_ROW)
}

/// Returns [`Meta::sequences`] of a database that nobody else has opened yet.
///
/// # Errors
/// [`StoreError::Database`].
pub fn sequences_of(db: &sled::Db) -> Result<Vec<(Vec<u8>, u64)>, StoreError> {
    row_of(db, SEQUENCES_ROW).map(Option::unwrap_or_default)
}

/// Returns sequence numbers by peer id, without rows that name no peer id.
pub fn peers_of(sequences: Vec<(Vec<u8>, u64)>) -> BTreeMap<PeerId, u64> {
    sequences.into_iter().filter_map(|(peer, sequence)| Some((PeerId::from_bytes(&peer).ok()?, sequence))).collect()
}

fn row_of<T: Decode<()>>(db: &sled::Db, row: &str) -> Result<Option<T>, StoreError> {
    let row = guard(|| db.open_tree(tree::NAMES[tree::META])?.get(row))?;
    Ok(row.and_then(|row| codec::decode(&row).ok()))
}

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Meta {
    database: Arc<Database<4>>,
}

impl Meta {
    /// Returns the schema version; `None` if it was never written or cannot be read.
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

    /// Wakes a flush: see [`Database::wake`].
    pub fn wake(&self, seen: u64) -> u64 {
        self.database.wake(seen)
    }

    /// Returns the floor; `None` if it was never written or cannot be read.
    pub fn floor(&self) -> Option<Floor> {
        self.get(FLOOR_ROW)
    }

    /// Sets the floor.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn set_floor(&self, floor: &Floor) -> Result<(), StoreError> {
        self.put(FLOOR_ROW, floor)
    }

    /// Returns the number of own CIDs at the last flush.
    pub fn own(&self) -> Option<u64> {
        self.get(OWN_ROW)
    }

    /// Sets the number of own CIDs.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn set_own(&self, own: u64) -> Result<(), StoreError> {
        self.put(OWN_ROW, &own)
    }

    /// Returns the generation of the newest export of own CIDs. If `exports/` has a newer one, the database has gone
    /// back to an earlier state.
    pub fn exported(&self) -> Option<u64> {
        self.get(EXPORTED_ROW)
    }

    /// Sets the generation of the newest export.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn set_exported(&self, generation: u64) -> Result<(), StoreError> {
        self.put(EXPORTED_ROW, &generation)
    }

    /// Returns the position of the node when it last ran, if known.
    pub fn position(&self) -> Option<[u8; 32]> {
        self.get(POSITION_ROW)
    }

    /// Sets the position of the node.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn set_position(&self, position: [u8; 32]) -> Result<(), StoreError> {
        self.put(POSITION_ROW, &position)
    }

    /// Returns the binary peer id that announcements of own CIDs name, if known.
    pub fn peer(&self) -> Option<Vec<u8>> {
        self.get(PEER_ROW)
    }

    /// Sets the peer id that announcements name from now on.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn set_peer(&self, peer: &[u8]) -> Result<(), StoreError> {
        self.put(PEER_ROW, &peer.to_vec())
    }

    /// Returns the highest sequence number of each IPNS name that an identity of this node has published, by binary
    /// peer id.
    pub fn sequences(&self) -> Vec<(Vec<u8>, u64)> {
        self.get(SEQUENCES_ROW).unwrap_or_default()
    }

    /// Raises the sequence number of a name; on disk when this returns. A lower number changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Full`] beyond a thousand names.
    pub fn raise_sequence(&self, peer: &[u8], sequence: u64) -> Result<(), StoreError> {
        let mut all = self.sequences();
        match all.iter().position(|(known, _)| known == peer) {
            Some(at) if all[at].1 >= sequence => return Ok(()),
            Some(at) => all[at].1 = sequence,
            None if all.len() >= MAX_NAMES => {
                return Err(StoreError::Full { what: "own IPNS names", limit: MAX_NAMES });
            }
            None => all.push((peer.to_vec(), sequence)),
        }
        self.put(SEQUENCES_ROW, &all)?;
        self.database.flush()
    }

    /// Returns the approximate number of provider records at the last flush.
    pub fn records(&self) -> Option<u64> {
        self.get(RECORDS_ROW)
    }

    /// Sets the number of provider records.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn set_records(&self, records: u64) -> Result<(), StoreError> {
        self.put(RECORDS_ROW, &records)
    }

    fn get<T: Decode<()>>(&self, row: &str) -> Option<T> {
        codec::decode(&self.database.read(tree::META, |tree| tree.get(row)).ok()??).ok()
    }

    fn put<T: Encode>(&self, row: &str, value: &T) -> Result<(), StoreError> {
        let bytes = codec::encode(value).map_err(|e| StoreError::Database(e.into()))?;
        self.database.write(tree::META, |tree| tree.insert(row, bytes)).map(|_| ())
    }
}
