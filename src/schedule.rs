//! Runs the scheduled jobs, with tokio-cron-scheduler. [`jobs`] lists them.
//!
//! cron cannot say "every 10 h": `*/10` fires at 0, 10, 20 and 0 o'clock. So the cron expression of a job, in UTC, says
//! how often to look whether the job is due. It is due when its interval has passed since its last run, which the store
//! keeps. A job that is overdue at start runs at once, and a restart neither repeats nor forgets a run.

pub mod jobs;

use crate::{
    clock::{Clock, UnixTime},
    store::jobs::{JobLog, JobRun},
    vital::Vital,
};
use futures::future::BoxFuture;
use std::{
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::Mutex;
use tokio_cron_scheduler::{Job as CronJob, JobScheduler, JobSchedulerError, job::JobId};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A job is due this long before its interval ends. Ticks are half a second coarse. Without this, a job that runs every
/// minute would run only every other minute if its last run began a little late.
const TOLERANCE: Duration = Duration::from_secs(1);
/// Time between two comparisons of the wall clock with the monotonic clock.
const CLOCK_CHECK: Duration = Duration::from_secs(30);
/// The scheduler is set up again if the wall clock was set back by more than this, since it holds its next ticks as
/// wall times.
const CLOCK_STEP: Duration = Duration::from_secs(5);
/// Time allowed for the scheduler to return its next tick.
const CRON_ANSWERS: Duration = Duration::from_secs(5);
/// Time allowed for running jobs at shutdown. Then they are dropped at their next await.
const DRAIN: Duration = Duration::from_secs(3);

/// What a job did, in one line, or why it failed. `None`: it could not do its work yet. That does not count as a run,
/// and the job is tried again at the next look.
pub type Outcome = Result<Option<String>, Box<dyn Error + Send + Sync>>;

/// A scheduled job.
pub struct Job {
    /// Its name in the configuration, the log and `stat`.
    pub name: &'static str,
    /// How often to look whether it is due: a cron expression of six fields, seconds first, in UTC.
    pub cron: String,
    /// Time after the start of its last run at which it is due. Zero: due at every look.
    pub interval: Duration,
    /// Does its work.
    pub run: Box<dyn Fn() -> BoxFuture<'static, Outcome> + Send + Sync>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("name", &self.name).field("cron", &self.cron).finish_non_exhaustive()
    }
}

/// Why jobs cannot be scheduled.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// A cron expression does not parse.
    #[error(
        "cannot schedule job {job}: {cron:?} is not a cron expression ({source}); write six fields, seconds \
        first, like \"0 */10 * * * *\""
    )]
    Cron {
        /// The job.
        job: &'static str,
        /// Its expression.
        cron: String,
        /// The error of the parser.
        source: JobSchedulerError,
    },
    /// The scheduler itself failed.
    #[error("cannot start the scheduler of jobs: {0}")]
    Scheduler(#[from] JobSchedulerError),
}

/// The state of a job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobStatus {
    /// Its name.
    pub job: &'static str,
    /// How often it looks whether it is due.
    pub cron: String,
    /// Time after its last run at which it is due.
    pub interval: Duration,
    /// Whether it runs now.
    pub running: bool,
    /// Its last run.
    pub last: Option<JobRun>,
    /// Time of its next run: the first look at which it is due.
    pub next: Option<UnixTime>,
}

/// The running schedule. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Schedule {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    slots: Vec<Arc<Slot>>,
    log: JobLog,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
    stop: CancellationToken,
    cron: Mutex<Option<Cron>>,
}

#[derive(Debug)]
struct Slot {
    job: Job,
    running: AtomicBool,
}

/// The scheduler, with its id for each slot, in order.
struct Cron {
    scheduler: JobScheduler,
    ids: Vec<JobId>,
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cron").field("ids", &self.ids).finish_non_exhaustive()
    }
}

impl Schedule {
    /// Starts the schedule. Jobs that are overdue run at once.
    ///
    /// # Errors
    /// [`ScheduleError`].
    pub async fn start(
        jobs: Vec<Job>,
        log: JobLog,
        clock: Arc<dyn Clock>,
        vital: &Vital,
    ) -> Result<Self, ScheduleError> {
        let slots = jobs.into_iter().map(|job| Arc::new(Slot { job, running: AtomicBool::new(false) })).collect();
        let inner = Arc::new(Inner {
            slots,
            log,
            clock,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            cron: Mutex::default(),
        });
        *inner.cron.lock().await = Some(inner.set_up().await?);
        for slot in &inner.slots {
            inner.look(slot);
        }
        tokio::spawn(vital.watch("schedule", Arc::clone(&inner).watch_clock()));
        Ok(Self { inner })
    }

    /// Returns the states of all jobs, in order.
    pub async fn status(&self) -> Vec<JobStatus> {
        let mut all = Vec::with_capacity(self.inner.slots.len());
        for (index, slot) in self.inner.slots.iter().enumerate() {
            let last = self.inner.last(slot.job.name).await;
            let tick = self.inner.next_tick(index).await;
            let due = last.as_ref().map(|run| run.started.0.saturating_add(seconds(slot.job.interval)));
            let next = tick.map(|tick| UnixTime(tick.max(due.unwrap_or(0))));
            all.push(JobStatus {
                job: slot.job.name,
                cron: slot.job.cron.clone(),
                interval: slot.job.interval,
                running: slot.running.load(Ordering::Relaxed),
                last,
                next,
            });
        }
        all
    }

    /// Stops starting jobs. Waits a few seconds for running jobs, then drops them.
    pub async fn shutdown(&self) {
        if let Some(mut cron) = self.inner.cron.lock().await.take() {
            // An error means that it has stopped already.
            let _ = cron.scheduler.shutdown().await;
        }
        self.inner.tasks.close();
        if tokio::time::timeout(DRAIN, self.inner.tasks.wait()).await.is_err() {
            self.inner.stop.cancel();
            self.inner.tasks.wait().await;
        }
        self.inner.stop.cancel();
    }
}

impl Inner {
    async fn set_up(self: &Arc<Self>) -> Result<Cron, ScheduleError> {
        let scheduler = JobScheduler::new().await?;
        let mut ids = Vec::with_capacity(self.slots.len());
        for (index, slot) in self.slots.iter().enumerate() {
            // Weak: a scheduler that was shut down may keep its jobs, which must not keep the store open.
            let inner = Arc::downgrade(self);
            let job = CronJob::new_async(slot.job.cron.as_str(), move |_, _| {
                if let Some(inner) = inner.upgrade()
                    && let Some(slot) = inner.slots.get(index)
                {
                    inner.look(slot);
                }
                Box::pin(std::future::ready(()))
            });
            let job =
                job.map_err(|source| ScheduleError::Cron { job: slot.job.name, cron: slot.job.cron.clone(), source })?;
            ids.push(scheduler.add(job).await?);
        }
        scheduler.start().await?;
        Ok(Cron { scheduler, ids })
    }

    /// Runs the job if it is due and is not running.
    fn look(self: &Arc<Self>, slot: &Arc<Slot>) {
        if self.tasks.is_closed() || slot.running.swap(true, Ordering::AcqRel) {
            return;
        }
        let (inner, slot) = (Arc::clone(self), Arc::clone(slot));
        self.tasks.spawn(async move {
            let _running = Running(&slot.running);
            let last = inner.last(slot.job.name).await;
            if is_due(last.as_ref(), slot.job.interval, inner.clock.wall()) {
                tokio::select! {
                    () = inner.stop.cancelled() => {}
                    () = inner.run(&slot.job) => {}
                }
            }
        });
    }

    async fn run(&self, job: &Job) {
        let (started, begun) = (self.clock.wall(), self.clock.monotonic());
        // A task of its own, so that a panic becomes an error. It is dropped with this future.
        let mut task = tokio::task::JoinSet::new();
        task.spawn((job.run)());
        let outcome = match task.join_next().await {
            Some(Ok(outcome)) => outcome,
            Some(Err(error)) => Err(error.into()),
            None => Err("did not run".into()),
        };
        let took = self.clock.monotonic().saturating_sub(begun);
        let ok = outcome.is_ok();
        let Some(outcome) = outcome.unwrap_or_else(|error| Some(error.to_string())) else { return };
        if ok {
            tracing::debug!(job = job.name, ?took, outcome, "job done");
        } else {
            tracing::warn!(job = job.name, ?took, error = outcome, "job failed; it is tried again when it is due");
        }
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let run = JobRun { started, took_ms, outcome, ok };
        let (log, name) = (self.log.clone(), job.name);
        let recorded = tokio::task::spawn_blocking(move || log.record(name, &run)).await;
        if let Ok(Err(error)) = recorded {
            tracing::warn!(job = name, %error, "cannot store that the job ran; it runs again at the next look");
        }
    }

    async fn last(&self, name: &'static str) -> Option<JobRun> {
        let log = self.log.clone();
        tokio::task::spawn_blocking(move || log.last(name)).await.ok().flatten()
    }

    async fn next_tick(&self, index: usize) -> Option<u32> {
        let mut cron = self.cron.lock().await;
        let cron = cron.as_mut()?;
        let id = *cron.ids.get(index)?;
        let tick = cron.scheduler.next_tick_for_job(id).await.ok()??;
        u32::try_from(tick.timestamp()).ok()
    }

    /// Returns whether the scheduler missed a look: its own tasks have ended, or the clock has just jumped ahead.
    async fn stands_still(&self, now: UnixTime) -> bool {
        for index in 0..self.slots.len() {
            match tokio::time::timeout(CRON_ANSWERS, self.next_tick(index)).await {
                Ok(tick) if tick.is_none_or(|tick| tick.saturating_add(seconds(CLOCK_CHECK)) >= now.0) => {}
                _ => return true,
            }
        }
        false
    }

    /// Sets the scheduler up again when it has stopped. If the wall clock is set back by some time, it stops for that
    /// time; if its own tasks end, it stops for good.
    async fn watch_clock(self: Arc<Self>) {
        let mut before = (self.clock.wall(), self.clock.monotonic());
        // True while it cannot be set up. Then it is tried again at each turn.
        let mut lacks_cron = false;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(CLOCK_CHECK) => {}
            }
            let now = (self.clock.wall(), self.clock.monotonic());
            let expected = u64::from(before.0.0) + now.1.saturating_sub(before.1).as_secs();
            before = now;
            if !lacks_cron {
                if u64::from(now.0.0) + CLOCK_STEP.as_secs() < expected {
                    tracing::warn!("the clock was set back; the schedule of jobs is set up again and goes on");
                } else if self.stands_still(now.0).await {
                    tracing::warn!("the schedule of jobs has stopped; it is set up again and goes on");
                } else {
                    continue;
                }
            }
            let mut cron = self.cron.lock().await;
            if let Some(mut old) = cron.take() {
                let _ = old.scheduler.shutdown().await;
            } else if !lacks_cron {
                // The schedule is being shut down.
                return;
            }
            let outcome = self.set_up().await;
            lacks_cron = outcome.is_err();
            match outcome {
                Ok(new) => *cron = Some(new),
                Err(error) => {
                    tracing::error!(%error, "cannot set up the schedule of jobs; no job runs; tried again every 30 s")
                }
            }
        }
    }
}

/// Clears the flag when the job ends, also if it is dropped.
struct Running<'s>(&'s AtomicBool);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Returns whether a job is due. A last run in the future (the clock was set back) does not count.
fn is_due(last: Option<&JobRun>, interval: Duration, now: UnixTime) -> bool {
    last.is_none_or(|run| run.started > now || now.since(run.started) + TOLERANCE >= interval)
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "schedule/tests.rs"]
mod tests;
