//! Rewrites the databases of a stopped node: sled frees the space of removed rows only slowly.
//!
//! The new database is written next to the old one, under the name that recovery gives its copies. It is verified,
//! flushed, and swapped in by two renames. A kill before the first rename leaves a copy that the next open removes; a
//! kill between the renames leaves one that the next open puts in place (`recovery.rs`).

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

/// The result for one database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compacted {
    /// `records` or `node`.
    pub name: &'static str,
    /// Rows of all trees.
    pub rows: u64,
    /// Size on disk before, in bytes.
    pub bytes_before: u64,
    /// Size on disk after, in bytes.
    pub bytes_after: u64,
}

/// Opens the store once, as a start does (recovery, migration, one garbage collection), closes it, then rewrites both
/// databases. Needs as much free space as the larger of them holds.
///
/// # Errors
/// [`StoreError::Locked`] while a server has the directory; [`StoreError::Io`] and [`StoreError::Database`], after
/// which the old database is still in place.
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
            let what = format!("the new {name}/ does not hold every row; the old one is unchanged");
            return Err(StoreError::Database(what.into()));
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

/// Passes every row to `each`. Returns the number of rows, and a hash that does not depend on their order.
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
