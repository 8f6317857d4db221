use super::*;
use crate::{
    clock::ManualClock,
    store::{Settings, Store, data_dir},
};
use std::sync::atomic::AtomicUsize;

const START: u32 = 1_700_000_000;
/// Fires every second.
const OFTEN: &str = "* * * * * *";
const HOUR: Duration = Duration::from_secs(3600);

fn run(started: u32) -> JobRun {
    JobRun { started: UnixTime(started), took_ms: 1, outcome: String::new(), ok: true }
}

#[test]
fn a_job_that_never_ran_is_due() {
    assert!(is_due(None, HOUR, UnixTime(0)));
}

#[test]
fn a_job_is_due_when_its_interval_has_passed() {
    assert!(!is_due(Some(&run(1000)), HOUR, UnixTime(4000)));
    assert!(is_due(Some(&run(1000)), HOUR, UnixTime(4600)));
}

#[test]
fn a_run_that_began_a_second_late_does_not_skip_the_next_look() {
    assert!(is_due(Some(&run(61)), Duration::from_secs(60), UnixTime(120)));
}

#[test]
fn a_last_run_in_the_future_does_not_hold_a_job_back() {
    assert!(is_due(Some(&run(5000)), HOUR, UnixTime(1000)));
}

struct Scene {
    store: Store,
    clock: Arc<ManualClock>,
    _lock: data_dir::Lock,
    _dir: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lock = data_dir::Lock::acquire(&dir.path().join("data")).unwrap();
        let clock = ManualClock::at(UnixTime(START));
        let store = Store::open(&lock, Settings::default(), clock.clone()).unwrap();
        Self { store, clock, _lock: lock, _dir: dir }
    }

    async fn start(&self, jobs: Vec<Job>) -> Schedule {
        Schedule::start(jobs, self.store.jobs.clone(), self.clock.clone(), &Vital::default()).await.unwrap()
    }

    async fn last(&self, job: &'static str) -> JobRun {
        for _ in 0..200 {
            if let Some(run) = self.store.jobs.last(job) {
                return run;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{job} did not run");
    }
}

/// A job that counts its runs.
fn counting<R>(name: &'static str, interval: Duration, runs: &Arc<AtomicUsize>, then: fn() -> R) -> Job
where
    R: Future<Output = Outcome> + Send + 'static,
{
    let runs = Arc::clone(runs);
    let run = move || {
        runs.fetch_add(1, Ordering::Relaxed);
        Box::pin(then()) as BoxFuture<'static, Outcome>
    };
    Job { name, cron: OFTEN.into(), interval, run: Box::new(run) }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_overdue_runs_at_start_and_what_ran_lately_does_not() {
    let scene = Scene::new();
    scene.store.jobs.record("recent", &run(START - 60)).unwrap();
    scene.store.jobs.record("late", &run(START - 7200)).unwrap();
    let [recent, late] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let done = || async { Ok(Some("done".to_owned())) };
    let schedule =
        scene.start(vec![counting("recent", HOUR, &recent, done), counting("late", HOUR, &late, done)]).await;
    // Several looks go by.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!((recent.load(Ordering::Relaxed), late.load(Ordering::Relaxed)), (0, 1));
    assert_eq!(scene.last("late").await, JobRun { outcome: "done".into(), took_ms: 0, ..run(START) });
    let status = schedule.status().await;
    assert!(status[1].last.as_ref().is_some_and(|run| run.ok) && !status[1].running && status[1].next.is_some());
    // An hour passes: the next look runs it again.
    scene.clock.advance(HOUR);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!((recent.load(Ordering::Relaxed), late.load(Ordering::Relaxed)), (1, 2));
    schedule.shutdown().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    scene.clock.advance(HOUR);
    assert_eq!(late.load(Ordering::Relaxed), 2, "nothing runs after the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_job_overlaps_itself_and_the_end_does_not_wait_for_ever() {
    let scene = Scene::new();
    let runs = Arc::new(AtomicUsize::new(0));
    let schedule = scene.start(vec![counting("slow", Duration::ZERO, &runs, std::future::pending)]).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(runs.load(Ordering::Relaxed), 1);
    assert!(schedule.status().await[0].running);
    tokio::time::timeout(DRAIN * 2, schedule.shutdown()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_and_panics_are_noted_and_what_could_not_be_done_yet_is_not_a_run() {
    let scene = Scene::new();
    let runs = Arc::new(AtomicUsize::new(0));
    let jobs = vec![
        counting("fails", HOUR, &runs, || async { Err("disk full".into()) }),
        counting("panics", HOUR, &runs, || async { panic!("as it must") }),
        counting("waits", HOUR, &runs, || async { Ok(None) }),
    ];
    let schedule = scene.start(jobs).await;
    let fails = scene.last("fails").await;
    assert!(!fails.ok && fails.outcome == "disk full");
    let panics = scene.last("panics").await;
    assert!(!panics.ok && panics.outcome.contains("panic"), "{panics:?}");
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(scene.store.jobs.last("waits"), None);
    assert!(runs.load(Ordering::Relaxed) >= 4, "tried again at the next look");
    schedule.shutdown().await;
}

#[tokio::test]
async fn a_wrong_cron_expression_is_told_with_its_job() {
    let scene = Scene::new();
    let runs = Arc::new(AtomicUsize::new(0));
    let job = Job { cron: "*/10 *".into(), ..counting("gc", HOUR, &runs, || async { Ok(None) }) };
    let error =
        Schedule::start(vec![job], scene.store.jobs.clone(), scene.clock.clone(), &Vital::default()).await.unwrap_err();
    assert!(error.to_string().contains("job gc:") && error.to_string().contains("six fields"), "{error}");
}
