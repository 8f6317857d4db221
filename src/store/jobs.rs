//! When each scheduled job last ran and what it did.

use super::StoreError;
use crate::clock::UnixTime;

/// One run of a job.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct JobRun {
    pub started: UnixTime,
    pub took_ms: u64,
    pub outcome: String,
    pub ok: bool,
}

/// The last run of each job. Cheap to clone.
#[derive(Clone, Debug)]
pub struct JobLog {}

#[expect(unused_variables, missing_docs)]
impl JobLog {
    /// Written at once, on disk with the next flush.
    pub fn record(&self, job: &str, run: &JobRun) -> Result<(), StoreError> {
        todo!()
    }
    pub fn last(&self, job: &str) -> Option<JobRun> {
        todo!()
    }
}
