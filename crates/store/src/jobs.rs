//! The last run of each scheduled job: tree `jobs` of the `node/` database.

use super::{
    StoreError, codec,
    engine::each_row,
    meta::{NodeDb, tree},
};
use crate::clock::UnixTime;
use bincode::{Decode, Encode};
use parking_lot::RwLock;
use std::{collections::HashMap, sync::Arc};

/// Maximum number of jobs that are remembered. There are six; the limit bounds memory if names come from elsewhere.
const MAX_JOBS: usize = 64;
/// Maximum length of an outcome, in bytes.
const MAX_OUTCOME: usize = 4096;

/// One run of a job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobRun {
    /// When it began.
    pub started: UnixTime,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What it did, or why it failed, in one line.
    pub outcome: String,
    /// Whether it succeeded.
    pub ok: bool,
}

/// The last run of each job. Cheap to clone.
#[derive(Clone, Debug)]
pub struct JobLog {
    state: Arc<JobLogState>,
}

#[derive(Debug)]
struct JobLogState {
    node: NodeDb,
    runs: RwLock<HashMap<String, JobRun>>,
}

#[derive(Encode, Decode)]
pub(super) struct JobRow {
    pub(super) started: u32,
    pub(super) took_ms: u64,
    pub(super) outcome: String,
    pub(super) ok: bool,
}

impl JobLog {
    pub(super) fn open(node: NodeDb) -> Result<Self, StoreError> {
        let mut runs = HashMap::new();
        let jobs = node.database.read(tree::JOBS, |tree| Ok(tree.clone()))?;
        // A job whose row is damaged counts as one that never ran.
        each_row(&jobs, |name, row| {
            if let (Ok(name), Ok(row)) = (std::str::from_utf8(name), codec::decode::<JobRow>(row))
                && runs.len() < MAX_JOBS
            {
                let JobRow { started, took_ms, outcome, ok } = row;
                runs.insert(name.to_owned(), JobRun { started: UnixTime(started), took_ms, outcome, ok });
            }
        });
        Ok(Self { state: Arc::new(JobLogState { node, runs: RwLock::new(runs) }) })
    }

    /// Records a run. It is written at once, and on disk with the next flush.
    ///
    /// # Errors
    /// [`StoreError::Full`] beyond 64 jobs; [`StoreError::Database`], after which the run is known only until the
    /// restart.
    pub fn record(&self, job: &str, run: &JobRun) -> Result<(), StoreError> {
        let mut run = run.clone();
        let cut = (0..=MAX_OUTCOME.min(run.outcome.len())).rev().find(|i| run.outcome.is_char_boundary(*i));
        run.outcome.truncate(cut.unwrap_or(0));
        {
            let mut runs = self.state.runs.write();
            if runs.len() >= MAX_JOBS && !runs.contains_key(job) {
                return Err(StoreError::Full { what: "jobs", limit: MAX_JOBS });
            }
            runs.insert(job.to_owned(), run.clone());
        }
        self.write(job, run)
    }

    /// Writes all runs to a reopened database.
    pub(super) fn write_anew(&self) -> Result<(), StoreError> {
        let runs = self.state.runs.read().clone();
        runs.into_iter().try_for_each(|(job, run)| self.write(&job, run))
    }

    fn write(&self, job: &str, run: JobRun) -> Result<(), StoreError> {
        let row = JobRow { started: run.started.0, took_ms: run.took_ms, outcome: run.outcome, ok: run.ok };
        let row = codec::encode(&row).map_err(|e| StoreError::Database(e.into()))?;
        self.state.node.database.write(tree::JOBS, |tree| tree.insert(job, row)).map(|_| ())
    }

    /// Returns the last run of a job; `None` if it never ran.
    pub fn last(&self, job: &str) -> Option<JobRun> {
        self.state.runs.read().get(job).cloned()
    }
}
