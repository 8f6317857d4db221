use super::*;
use crate::clock::ManualClock;

const GRACE: Duration = Duration::from_secs(600);
const TTL: u32 = 12 * 3600;
const T0: u32 = 1_700_000_000;

fn keeper(last_seen: Option<u32>) -> (Arc<ManualClock>, Timekeeper) {
    let clock = ManualClock::at(UnixTime(T0));
    let keeper = Timekeeper::open(clock.clone(), last_seen.map(UnixTime), None, GRACE);
    (clock, keeper)
}

fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

#[test]
fn log_time_follows_the_monotonic_clock() {
    let (clock, keeper) = keeper(Some(T0 - 5));
    assert_eq!(keeper.now().log, T0);
    clock.advance(secs(1000));
    assert_eq!(keeper.now().log, T0 + 1000);
    assert_eq!(keeper.unconfirmed(), None);
}

#[test]
fn a_small_correction_is_no_step() {
    let (clock, keeper) = keeper(None);
    clock.set_wall(UnixTime(T0 + 50));
    assert_eq!(keeper.now().log, T0);
    assert_eq!(keeper.unconfirmed(), None);
}

#[test]
fn a_step_forward_is_followed_after_the_grace_and_not_before() {
    let (clock, keeper) = keeper(None);
    clock.advance(secs(10));
    clock.set_wall(UnixTime(T0 + 10 + 86_400));
    assert_eq!(keeper.now().log, T0 + 10);
    assert!(keeper.unconfirmed().unwrap().contains("+86400 s"));
    clock.advance(secs(599));
    assert_eq!(keeper.now().log, T0 + 609);
    clock.advance(secs(1));
    assert_eq!(keeper.now().log, T0 + 610 + 86_400);
    assert_eq!(keeper.unconfirmed(), None);
    let moved = Move { by: 86_400, from: T0 + 10, to: T0 + 610 };
    assert_eq!(keeper.next_move(Ledger::Records), Some(moved));
    keeper.done(Ledger::Records, moved);
    assert_eq!(keeper.next_move(Ledger::Records), None);
}

#[test]
fn prv_5_during_a_step_forward_what_may_be_outlived_is_not_served() {
    let (clock, keeper) = keeper(None);
    clock.advance(secs(10));
    clock.set_wall(UnixTime(T0 + 10 + 86_400));
    let now = keeper.now();
    assert!(!now.is_live(T0, TTL), "it is a day old if the step is true");
    clock.advance(secs(5));
    let now = keeper.now();
    assert!(now.is_live(now.log, TTL), "it was received after the step, so both clocks give it the same age");
}

#[test]
fn a_glitch_shorter_than_the_grace_leaves_no_trace() {
    let (clock, keeper) = keeper(None);
    clock.set_wall(UnixTime(T0 + 86_400));
    keeper.now();
    clock.advance(secs(300));
    clock.set_wall(UnixTime(T0 + 300));
    assert_eq!(keeper.now().log, T0 + 300);
    assert!(keeper.now().is_live(T0, TTL));
    assert_eq!((keeper.unconfirmed(), keeper.next_move(Ledger::Records)), (None, None));
}

#[test]
fn a_step_back_is_followed_after_the_grace_and_dates_the_future_anew() {
    let (clock, keeper) = keeper(None);
    clock.set_wall(UnixTime(T0 - 7200));
    assert_eq!(keeper.now().log, T0);
    clock.advance(GRACE);
    assert_eq!(keeper.now().log, T0 - 7200 + 600);
    assert_eq!(keeper.next_move(Ledger::Records), Some(Move { by: -7200, from: T0 - 7200 + 601, to: u32::MAX }));
}

#[test]
fn a_second_step_begins_the_grace_anew() {
    let (clock, keeper) = keeper(None);
    clock.set_wall(UnixTime(T0 + 86_400));
    keeper.now();
    clock.advance(secs(500));
    clock.set_wall(UnixTime(T0 + 500 + 3600));
    keeper.now();
    clock.advance(secs(500));
    assert_eq!(keeper.now().log, T0 + 1000);
    clock.advance(secs(100));
    assert_eq!(keeper.now().log, T0 + 1100 + 3600);
    assert_eq!(keeper.next_move(Ledger::Records).unwrap().from, T0, "records since the first step must be re-dated");
}

#[test]
fn a_clock_behind_the_last_run_goes_on_from_there_until_believed() {
    let (clock, keeper) = keeper(Some(T0 + 5000));
    assert_eq!(keeper.now().log, T0 + 5000);
    assert!(keeper.unconfirmed().is_some());
    clock.advance(GRACE);
    assert_eq!(keeper.now().log, T0 + 600);
    assert_eq!(keeper.next_move(Ledger::Records).unwrap().to, u32::MAX);
}

#[test]
fn a_clock_that_starts_in_1970_and_is_then_set_loses_nothing() {
    let clock = ManualClock::at(UnixTime(30));
    let keeper = Timekeeper::open(clock.clone(), Some(UnixTime(T0)), None, GRACE);
    clock.advance(secs(20));
    assert_eq!(keeper.now().log, T0 + 20);
    clock.set_wall(UnixTime(T0 + 3600));
    assert_eq!(keeper.now().log, T0 + 20);
    clock.advance(GRACE);
    assert_eq!(keeper.now().log, T0 + 4200);
    assert_eq!(keeper.next_move(Ledger::Records), Some(Move { by: 3580, from: T0, to: T0 + 620 }));
}

#[test]
fn a_long_time_between_runs_is_believed_for_reading_but_deletes_nothing_before_the_grace() {
    let (clock, keeper) = keeper(Some(T0 - 86_400));
    assert_eq!(keeper.now().log, T0);
    assert!(keeper.unconfirmed().unwrap().contains("+86400 s"));
    clock.advance(GRACE);
    assert_eq!(keeper.unconfirmed(), None);
    assert_eq!(keeper.next_move(Ledger::Records), None);
}

proptest::proptest! {
    #[test]
    fn without_a_believed_step_log_time_never_goes_back(
        steps in proptest::collection::vec((-100_000i64..100_000, 0u64..599), 1..40),
    ) {
        let mut time = LogTime::open(UnixTime(T0), Duration::ZERO, Some(UnixTime(T0)), None, GRACE);
        let (mut mono, mut last) = (Duration::ZERO, T0);
        for (by, wait) in steps {
            mono += secs(wait);
            let wall = UnixTime(clamp(i64::from(T0) + mono.as_secs() as i64 + by));
            let moved = time.observe(wall, mono);
            let now = time.at(mono);
            if moved.is_none() {
                proptest::prop_assert!(now >= last);
            } else {
                proptest::prop_assert!((i64::from(now) - i64::from(wall.0)).abs() <= 1);
            }
            last = now;
        }
    }
}
