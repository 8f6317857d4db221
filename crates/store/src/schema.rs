//! Steps from one schema version to the next, taken when a store is opened (migrations/).
//!
//! Own CIDs and routing tables are exported before the first step. A step may be interrupted at any point. The next
//! open then takes the step again from its beginning, and the step skips what is already done. The schema version is
//! raised, and flushed, once the step has ended.

pub(crate) mod v2;
mod v3;

use super::{StoreError, records::log::Log};

/// A step.
#[derive(Clone, Copy, Debug)]
pub struct SchemaStep {
    /// The version to which it leads from the one before.
    pub to: u32,
    /// Name of its file in migrations/, without the ending.
    pub name: &'static str,
    /// Takes the step and returns the number of rows written. Blocking.
    run: fn(&Log) -> Result<u64, StoreError>,
}

/// All steps, in order. The first open creates version 1, so there is no step to it.
pub const STEPS: [SchemaStep; 2] = [
    SchemaStep { to: 2, name: "0002-compact-chunks", run: v2::run },
    SchemaStep { to: 3, name: "0003-segments", run: v3::run },
];

/// Returns the steps that a database of version `from` needs.
pub fn needed(from: u32) -> impl Iterator<Item = &'static SchemaStep> {
    STEPS.iter().filter(move |step| step.to > from)
}

impl SchemaStep {
    /// Takes the step. Returns a sentence that says what it did.
    ///
    /// # Errors
    /// [`StoreError::Database`]: the next open takes it again.
    pub fn take(&self, log: &Log) -> Result<String, StoreError> {
        let rows = (self.run)(log)?;
        log.flush()?;
        Ok(format!("the database now has schema {} ({}): {rows} rows rewritten", self.to, self.name))
    }
}
