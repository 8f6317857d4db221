//! Steps from one schema version to the next, taken when a store is opened (migrations/).
//!
//! Before the first step everything that is ours is exported. A step may be cut off at any point and is taken again from
//! its beginning by the next open: it leaves what it has already done as it is. The schema version is raised, and
//! flushed, once the step has ended.

pub(crate) mod v2;
mod v3;

use super::{StoreError, records::log::Log};

/// One step.
#[derive(Clone, Copy, Debug)]
pub struct SchemaStep {
    /// The version that it leads to, from the one before.
    pub to: u32,
    /// Its file in migrations/, without the ending.
    pub name: &'static str,
    /// Takes it. Blocking; how many rows it wrote.
    run: fn(&Log) -> Result<u64, StoreError>,
}

/// All steps, in order; that to version 1 is the first open.
pub const STEPS: [SchemaStep; 2] = [
    SchemaStep { to: 2, name: "0002-compact-chunks", run: v2::run },
    SchemaStep { to: 3, name: "0003-segments", run: v3::run },
];

/// The steps that a database of version `from` needs.
pub fn needed(from: u32) -> impl Iterator<Item = &'static SchemaStep> {
    STEPS.iter().filter(move |step| step.to > from)
}

impl SchemaStep {
    /// Takes the step. Says what it did.
    ///
    /// # Errors
    /// [`StoreError::Database`]: the next open takes it again.
    pub fn take(&self, log: &Log) -> Result<String, StoreError> {
        let rows = (self.run)(log)?;
        log.flush()?;
        Ok(format!("the database is of schema {} now ({}): {rows} rows written anew", self.to, self.name))
    }
}
