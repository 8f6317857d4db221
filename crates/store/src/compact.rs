//! Writing the databases of a stopped node anew: sled gives the space of what was removed back only slowly.
//!
//! The new database is written beside the old one under the name that recovery gives its copies, verified, flushed, and
//! swapped by two renames: a kill before the first leaves a copy that the next open removes, a kill between them one that
//! it puts in place (`store/recovery.rs`).

use super::{
    Settings, Store, StoreError,
    blocking::blocking,
    data_dir::Lock,
    databases::{NODE_CACHE, RECORDS_CACHE},
    dump::text::Sum,
    engine::guard,
    filesystem::{bytes_below, io_error, sync_dir},
    sled_files::SledFiles,
};
use crate::clock::Clock;
use std::{fs, io, path::Path, sync::Arc};

/// What became of one database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compacted {
    /// `records` or `node`.
    pub name: &'static str,
    /// Rows of all trees.
    pub rows: u64,
    /// On disk, before.
    pub bytes_before: u64,
    /// On disk, after.
    pub bytes_after: u64,
}

/// Opens the store once, as a start does (recovery, migration, one garbage collection), closes it, then writes both
/// databases anew. Needs as much free space as the larger of them holds.
///
/// # Errors
/// [`StoreError::Locked`] while a server has the directory; [`StoreError::Io`] and [`StoreError::Database`]: then the old
/// database is still in place.
pub async fn compact(dir: &Path, settings: Settings, clock: Arc<dyn Clock>) -> Result<Vec<Compacted>, StoreError> {
    let lock = Lock::acquire(dir)?;
    {
        let opening = lock.path().to_owned();
        let store = blocking(move || Store::open_for(super::Purpose::Serve, &opening, settings, clock)).await?;
        store.records.collect_garbage().await?;
        store.close().await?;
    }
    blocking(move || {
        let one = |name, cache| database(lock.path(), name, cache);
        Ok(vec![one("records", RECORDS_CACHE)?, one("node", NODE_CACHE)?])
    })
    .await
}

fn database(dir: &Path, name: &'static str, cache: u64) -> Result<Compacted, StoreError> {
    let (old, new, aside) =
        (dir.join(name), dir.join(format!("{name}.recovering")), dir.join(format!("{name}.compacted")));
    for left_over in [&new, &aside] {
        remove(left_over)?;
    }
    let bytes_before = bytes_below(&old);
    let open = |path: &Path| guard(|| sled::Config::new().path(path).cache_capacity(cache).open());
    let rows = {
        let (from, to) = (open(&old)?, open(&new)?);
        let written = trees(&from, |tree, key, value| {
            let tree = guard(|| to.open_tree(tree))?;
            guard(|| tree.insert(key, value)).map(drop)
        })?;
        guard(|| to.flush())?;
        SledFiles::open(&new)?.sync()?;
        let read = trees(&to, |_, _, _| Ok(()))?;
        if read != written {
            return Err(StoreError::Database(format!(
                "{name}/ written anew does not hold what it should; it was left as it is"
            )));
        }
        written.0
    };
    let rename = |from: &Path, to: &Path| fs::rename(from, to).map_err(|e| io_error("rename", from, e));
    rename(&old, &aside)?;
    rename(&new, &old)?;
    sync_dir(dir)?;
    remove(&aside)?;
    Ok(Compacted { name, rows, bytes_before, bytes_after: bytes_below(&old) })
}

/// Hands on every row. How many there are, and their sum.
fn trees(
    db: &sled::Db,
    mut each: impl FnMut(&[u8], &[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(u64, Sum), StoreError> {
    let (mut rows, mut sum) = (0, Sum::default());
    for name in db.tree_names() {
        let tree = guard(|| db.open_tree(&name))?;
        let mut all = tree.iter();
        while let Some((key, value)) = guard(|| all.next().transpose())? {
            each(&name, &key, &value)?;
            rows += 1;
            let lengths = [name.len(), key.len()].map(|len| (len as u64).to_le_bytes()).concat();
            sum.add_row(&[&lengths, &name[..], &key, &value].concat());
        }
    }
    Ok((rows, sum))
}

fn remove(dir: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", dir, e)),
        _ => Ok(()),
    }
}
