//! Reading chunks: a row of sled, then the body in a segment.

use super::{
    Log,
    segments::{self, Location},
};
use crate::{StoreError, engine::Rows};

/// How often a chunk that cannot be read is looked up: GC may have removed it after its row was read.
const READ_TRIES: u32 = 3;

/// The chunks of a log, for walks.
#[derive(Debug)]
pub struct Chunks<'a>(pub(super) &'a Log);

impl Chunks<'_> {
    /// Reads the body of the chunk that `row` finds.
    fn with_body(
        &self,
        row: impl Fn() -> Result<Option<(u64, sled::IVec)>, StoreError>,
    ) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        let mut tries = 1;
        loop {
            let Some((key, found)) = row()? else { return Ok(None) };
            let Some(location) = Location::of_row(&found)? else { return Ok(Some((key, found.to_vec()))) };
            match segments::read(&self.0.dir, key, location) {
                Ok(chunk) => return Ok(Some((key, chunk))),
                // If the row has changed since, its chunk is read instead.
                Err(error) if tries >= READ_TRIES || row()?.is_some_and(|again| again == (key, found)) => {
                    return Err(error);
                }
                Err(_) => tries += 1,
            }
        }
    }
}

impl Rows for Chunks<'_> {
    type Value = Vec<u8>;

    fn first(&self, from: u64, to: u64) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        self.with_body(|| self.0.keys().first(from, to))
    }

    fn last(&self, from: u64, to: u64) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        self.with_body(|| self.0.keys().last(from, to))
    }
}
