//! The two databases of a data directory: where each lies, and what it must at least hold.

use super::{
    StoreError,
    data_dir::names::{EXPORTS, NODE, RECORDS},
    meta::{Floor, NodeDb, SCHEMA, schema_of},
    records::log::{chunk_time, newest_chunk},
    recovery::{Contents, DatabaseDir, Opened},
};
use crate::clock::UnixTime;
use std::{path::Path, time::Duration};

/// sled's page cache of `records/`, in bytes: rows of peers and values, and a row of some 20 bytes for each chunk.
pub const RECORDS_CACHE: u64 = 64 << 20;
/// sled's page cache of `node/`, in bytes.
pub const NODE_CACHE: u64 = 16 << 20;

/// Returns where `node/` of the data directory `dir` lies.
pub fn node_dir(dir: &Path, now: UnixTime) -> DatabaseDir<'_> {
    DatabaseDir { parent: dir, name: NODE, cache: NODE_CACHE, now }
}

/// Returns a check of what `node/` holds against what it must hold.
pub fn node_contents(dir: &Path) -> impl Fn(&sled::Db) -> Contents {
    // The first open writes the schema. A kill before that leaves neither a schema nor exports.
    let promised = dir.join(EXPORTS).is_dir();
    move |db| match schema_of(db) {
        Ok(None) if promised => Contents::Nothing("it has no schema version".into()),
        Err(error) => Contents::Nothing(error.into()),
        _ => Contents::Complete,
    }
}

/// Opens `node/`. Also returns whether it holds less than before, and what recovery did.
///
/// # Errors
/// [`StoreError::FromTheFuture`]; [`StoreError::Io`] and [`StoreError::Database`] as for [`DatabaseDir::open`].
pub fn open_node(dir: &Path, now: UnixTime) -> Result<(NodeDb, bool, Vec<String>), StoreError> {
    let Opened { db, notes, lossy } = node_dir(dir, now).open(&node_contents(dir))?;
    let node = NodeDb::new(db, dir.join(NODE))?;
    // A directory without `node/` may still have `exports/`.
    let lossy = lossy || !notes.is_empty() || node.meta.schema().is_none();
    match node.meta.schema() {
        Some(found) if found > SCHEMA => Err(StoreError::FromTheFuture { found, known: SCHEMA }),
        _ => Ok((node, lossy, notes)),
    }
}

/// Returns where `records/` of the data directory `dir` lies.
pub fn records_dir(dir: &Path, now: UnixTime) -> DatabaseDir<'_> {
    DatabaseDir { parent: dir, name: RECORDS, cache: RECORDS_CACHE, now }
}

/// Returns a check of what `records/` holds against what it must hold.
pub fn records_contents(now: UnixTime, floor: Option<Floor>, ttl: Duration) -> impl Fn(&sled::Db) -> Contents {
    // Chunks that may have expired may have been collected since the floor was written.
    let expected = floor.and_then(|f| f.newest).filter(|key| now.since(UnixTime(chunk_time(*key))) < ttl);
    move |db| {
        let Some(expected) = expected else { return Contents::Complete };
        let time = |key| UnixTime(chunk_time(key));
        match newest_chunk(db) {
            Ok(Some(newest)) if newest >= expected => Contents::Complete,
            Ok(Some(newest)) => Contents::Less(
                format!("the log ends at {}, and went to {} before", time(newest), time(expected)).into(),
            ),
            Ok(None) => Contents::Nothing(format!("the log is empty, and went to {} before", time(expected)).into()),
            Err(error) => Contents::Nothing(error.into()),
        }
    }
}
