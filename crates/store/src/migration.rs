//! Migration on request: reports the steps that a start would take by itself (`schema.rs`), tries them on a copy, or
//! takes them now.

pub use super::meta::SCHEMA;
use super::{
    Settings, Store, StoreError,
    data_dir::{self, names::NODE},
    databases::NODE_CACHE,
    filesystem,
    recovery::DatabaseDir,
    schema,
};
use crate::clock::Clock;
use std::{path::Path, sync::Arc};

/// The schema version of a stopped directory, and the steps that it needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// Schema version of the database; `None` if it has none.
    pub found: Option<u32>,
    /// Names of the steps that it needs.
    pub steps: Vec<&'static str>,
}

/// What the databases hold after the steps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Migrated {
    /// Number of provider records, including expired ones that are not collected yet.
    pub records: u64,
    /// Number of own CIDs.
    pub own_cids: u64,
    /// Notes about damage.
    pub notes: Vec<String>,
}

/// Reads the schema version from a copy of `node/`. The directory stays as it is.
///
/// # Errors
/// [`StoreError::FromTheFuture`]; [`StoreError::Locked`]; [`StoreError::Io`] and [`StoreError::Database`].
pub fn status(dir: &Path) -> Result<Status, StoreError> {
    let copy = tempfile::tempdir().map_err(|e| filesystem::io_error("create a copy in", &std::env::temp_dir(), e))?;
    {
        let _keeps_servers_out = data_dir::share(dir)?;
        if dir.join(NODE).is_dir() {
            filesystem::copy_dir(&dir.join(NODE), &copy.path().join(NODE), &|_| true)?;
        }
    }
    let node = DatabaseDir { parent: copy.path(), name: NODE, cache: NODE_CACHE, now: crate::clock::UnixTime(0) };
    let opened = node.open(&|_| super::recovery::Contents::Complete)?;
    let found = super::meta::schema_of(&opened.db)?;
    match found {
        Some(found) if found > SCHEMA => Err(StoreError::FromTheFuture { found, known: SCHEMA }),
        _ => Ok(Status { found, steps: schema::needed(found.unwrap_or(1)).map(|step| step.name).collect() }),
    }
}

/// Takes the steps on a copy below the system's temporary directory, replays it, and returns what it holds. The
/// directory stays byte for byte as it is.
///
/// # Errors
/// As [`status`].
pub fn dry_run(dir: &Path, settings: Settings, clock: Arc<dyn Clock>) -> Result<Migrated, StoreError> {
    let copy = data_dir::copy_for_reading(dir, None)?;
    take(copy.path(), settings, clock)
}

/// Takes the steps, as a start does: own CIDs are exported first.
///
/// # Errors
/// As [`status`].
pub fn take(dir: &Path, settings: Settings, clock: Arc<dyn Clock>) -> Result<Migrated, StoreError> {
    let lock = data_dir::Lock::acquire(dir)?;
    let store = Store::open(&lock, settings, clock)?;
    store.records.wait_replayed();
    let stat = store.stat();
    let mut notes = stat.notes;
    if stat.schema != SCHEMA {
        notes.push(format!("the schema is {}, and {SCHEMA} was expected", stat.schema));
    }
    store.close_blocking()?;
    Ok(Migrated { records: stat.records, own_cids: stat.provided, notes })
}
