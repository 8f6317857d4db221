//! A look through the database when it is opened: how far each segment is indexed, and which rows have no chunk.

use super::{
    segments::{self, Location},
    tree,
};
use crate::{StoreError, codec, database::Database, engine::each_row};
use std::path::Path;

/// The state of the database when it is opened.
pub(super) struct Survey {
    /// How many rows point to each segment, and how far it is indexed.
    pub known: segments::SegmentRows,
    /// Number of rows of chunks.
    pub rows: u64,
    /// Keys of rows whose chunks never reached the disk.
    pub unwritten: Vec<u64>,
}

/// Reads the rows of segments and chunks. Checks each chunk that may never have reached the disk.
pub(super) fn survey(database: &Database<5>, dir: &Path) -> Result<Survey, StoreError> {
    let mut known = segments::SegmentRows::new();
    let (ends, rows) = [tree::SEGMENTS, tree::LOG].map(|tree| database.read(tree, |tree| Ok(tree.clone()))).into();
    let number = |key: &[u8]| Some(u32::from_be_bytes(key.try_into().ok()?));
    // Replay reports rows that cannot be read.
    let _ = each_row(&ends?, |key, row| {
        if let (Some(segment), Ok(end)) = (number(key), codec::decode::<u64>(row)) {
            known.insert(segment, (0, Some(end)));
        }
    });
    let (mut count, mut unwritten) = (0, Vec::new());
    let _ = each_row(&rows?, |key, row| {
        count += 1;
        let (Ok(Some(location)), Ok(key)) = (Location::of_row(row), key.try_into()) else { return };
        let (key, known) = (u64::from_be_bytes(key), known.entry(location.segment).or_default());
        known.0 += 1;
        if segments::may_be_unwritten(location, known.1) && segments::is_absent(&segments::read(dir, key, location)) {
            unwritten.push(key);
        }
    });
    Ok(Survey { known, rows: count, unwritten })
}
