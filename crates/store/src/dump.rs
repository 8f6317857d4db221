//! Reads everything out: from the running store, or from a copy of a stopped one.
//!
//! Both ways give the same output: the copy is opened like any store, and its log is replayed. Then it is dumped like a
//! running store.

mod filter;
mod header;
mod output;
mod provider_text;
mod providers;
mod row;
mod rows;
pub(super) mod text;

use super::{Purpose, Settings, Store, StoreError, data_dir, filesystem, is_data_dir};
use crate::clock::{ManualClock, UnixTime};
pub use filter::Filter;
use filter::Matcher;
pub use header::{End, Header, MAX_LINE, Mark, VERSION};
use output::Output;
pub use output::{Summary, TableSummary, Told, Want};
pub use row::{Row, Table, read_rows};
use std::{io::ErrorKind, path::Path};

/// Passes what the store holds to `each` until that returns false, then returns a summary. Blocking; takes constant
/// memory in addition to the index. Waits for the end of replay. A record that is announced while the dump runs may be
/// missing, or shown as it was before.
///
/// # Errors
/// [`StoreError::BadFilter`]; [`StoreError::Database`] when the log takes no more writes: its last entries cannot be
/// read then.
pub fn running(
    store: &Store,
    filter: &Filter,
    want: Want,
    each: &mut dyn FnMut(Told<'_>) -> bool,
) -> Result<Summary, StoreError> {
    dump(None, store, filter, want, each)
}

/// Dumps a store. `place` names a store that was opened for this dump: the damage found at its open is reported first,
/// under that name.
fn dump(
    place: Option<&str>,
    store: &Store,
    filter: &Filter,
    want: Want,
    each: &mut dyn FnMut(Told<'_>) -> bool,
) -> Result<Summary, StoreError> {
    let is_hash = want == Want::Hash;
    let filter = Filter { expired: filter.expired && !is_hash, ..filter.clone() };
    let matcher = Matcher::new(&filter)?;
    let mut more =
        each(Told::Begin { schema: store.opened.schema, time: UnixTime(store.records.state.time.now().log) });
    let mut output = Output::new(want, filter.limit, each);
    for note in store.opened.notes.iter().filter(|_| place.is_some()) {
        more = more && output.damaged(place.unwrap_or_default().to_owned(), note.clone());
    }
    for table in filter.tables().filter(|table| !(is_hash && *table == Table::Meta)) {
        if !more || !output.begin(table) {
            break;
        }
        more = match table {
            Table::Providers => providers::providers(store, &matcher, &mut output)?,
            Table::Values => rows::values(store, &matcher, &mut output),
            Table::Provided => rows::provided(store, &matcher, &mut output),
            Table::Peers => rows::peers(store, &matcher, &mut output),
            Table::Routing => rows::routing(store, &matcher, &mut output),
            Table::Meta => rows::meta(store, &matcher, &mut output),
        };
    }
    Ok(output.finish())
}

/// Dumps the directory of a stopped node, which stays byte for byte as it is: opens a copy below the system's temporary
/// directory and removes it afterwards. Of `settings`, the ttls matter. With `in_place` the database is opened, and
/// recovered, where it is.
///
/// # Errors
/// [`StoreError::NoDatabase`] (none is ever created); [`StoreError::Locked`] while a server has the directory;
/// [`StoreError::Io`] if it cannot be read or copied; [`StoreError::FromTheFuture`]; [`StoreError::BadFilter`].
pub fn stopped(
    from: Stopped<'_>,
    filter: &Filter,
    want: Want,
    each: &mut dyn FnMut(Told<'_>) -> bool,
) -> Result<Summary, StoreError> {
    Matcher::new(filter)?;
    let Stopped { dir, in_place, settings, now } = from;
    if let Err(e) = std::fs::read_dir(dir)
        && e.kind() != ErrorKind::NotFound
    {
        return Err(filesystem::io_error("read", dir, e));
    }
    if !is_data_dir(dir) {
        return Err(StoreError::NoDatabase(dir.to_owned()));
    }
    let clock = ManualClock::at(now);
    if in_place {
        let lock = data_dir::Lock::acquire(dir)?;
        let store = Store::open_for(Purpose::Read, lock.path(), settings, clock)?;
        return dump(Some("database"), &store, filter, want, each);
    }
    let copy = data_dir::copy_for_reading(dir, None)?;
    let store = Store::open_for(Purpose::Read, copy.path(), settings, clock)?;
    dump(Some("copy of the database"), &store, filter, want, each)
}

/// The directory of a stopped node.
#[derive(Debug)]
pub struct Stopped<'a> {
    /// The data directory.
    pub dir: &'a Path,
    /// Open the directory itself, not a copy.
    pub in_place: bool,
    /// The settings of the node.
    pub settings: Settings,
    /// The time at which a record must be live to be dumped.
    pub now: UnixTime,
}
