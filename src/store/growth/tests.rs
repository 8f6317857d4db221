use super::*;
use crate::clock::{Clock, ManualClock, UnixTime};

const MIB: u64 = 1 << 20;

/// A store by the clock that is given: `figures` at each minute.
fn grown(clock: &ManualClock, samples: &Samples, minutes: u64, figures: impl Fn(u64) -> Figures) {
    for minute in 0..minutes {
        assert!(samples.is_due(clock.monotonic()));
        samples.take(clock.monotonic(), figures(minute));
        assert!(!samples.is_due(clock.monotonic()));
        clock.advance(SAMPLE_EVERY);
    }
}

fn clock() -> std::sync::Arc<ManualClock> {
    ManualClock::at(UnixTime(1_700_000_000))
}

fn figures(records: u64) -> Figures {
    Figures {
        records,
        disk_bytes: records * 100,
        disk_free_bytes: 1_000_000 * MIB - records * 100,
        memory_bytes: Some(50 * MIB + records * 40),
        memory_room_bytes: Some(8192 * MIB - records * 40),
    }
}

const OLD: Ages = Ages { ttl_s: 43_200, oldest_s: 43_199 };
const BOUNDS: Bounds = Bounds { records: 20_000_000, disk_bytes: 0, reserve_bytes: 64 * MIB };

fn of<'l>(limits: &'l [Limit], name: &str) -> &'l Limit {
    limits.iter().find(|limit| limit.limit == name).unwrap()
}

#[test]
fn steady_growth_is_told_to_the_second() {
    let (clock, samples) = (clock(), Samples::default());
    // 100 records a second.
    grown(&clock, &samples, 181, |minute| figures(2_000_000 + minute * 6000));
    let growth = samples.growth();
    assert_eq!(growth.iter().map(|growth| growth.span_s).collect::<Vec<_>>(), [600, 3600, 10_800]);
    for growth in &growth {
        assert!((growth.records_per_s - 100.0).abs() < 1e-6, "{growth:?}");
        assert!((growth.disk_bytes_per_s - 10_000.0).abs() < 1e-3, "{growth:?}");
        assert!((growth.memory_bytes_per_s.unwrap() - 4000.0).abs() < 1e-3, "{growth:?}");
    }
    let now = figures(2_000_000 + 180 * 6000);
    let limits = foresee(&now, &BOUNDS, samples.of_the_hour().as_ref(), OLD);
    // (20,000,000 - 3,080,000) / 100, rounded
    assert_eq!(of(&limits, "records.max").reached_in_s.unwrap().abs_diff(169_200) / 2, 0);
    assert_eq!(limits[0].limit, "records.max", "the nearest comes first: {limits:?}");
    // 8 GiB at 4000 bytes a second: 24 days.
    assert!(of(&limits, "memory").reached_in_s.unwrap().abs_diff(8_072 * MIB / 4000) < 30_000, "{limits:?}");
}

#[test]
fn bursts_hardly_count() {
    let (clock, samples) = (clock(), Samples::default());
    // Ten minutes' worth of records goes at once every ten minutes, half of what came.
    grown(&clock, &samples, 61, |minute| figures(5_000_000 + minute * 6000 - minute / 10 * 30_000));
    let growth = samples.of_the_hour().unwrap();
    assert!((growth.records_per_s - 50.0).abs() < 5.0, "{growth:?}");
}

#[test]
fn without_growth_no_limit_is_foreseen() {
    let (clock, samples) = (clock(), Samples::default());
    grown(&clock, &samples, 61, |_| figures(1_000_000));
    for limit in foresee(&figures(1_000_000), &BOUNDS, samples.of_the_hour().as_ref(), OLD) {
        assert_eq!((limit.outlook, limit.reached_in_s), (Outlook::Steady, None), "{limit:?}");
    }
    // One record a day.
    let slow = Growth { records_per_s: 1.0 / 86_400.0, ..Growth::default() };
    let limits = foresee(&figures(1_000_000), &BOUNDS, Some(&slow), OLD);
    assert_eq!(of(&limits, "records.max").outlook, Outlook::Steady);
}

#[test]
fn what_shrinks_comes_to_no_limit() {
    let (clock, samples) = (clock(), Samples::default());
    grown(&clock, &samples, 61, |minute| figures(5_000_000 - minute * 600));
    let growth = samples.of_the_hour().unwrap();
    assert!((growth.records_per_s + 10.0).abs() < 1e-6, "{growth:?}");
    let limits = foresee(&figures(4_964_000), &BOUNDS, Some(&growth), OLD);
    assert_eq!((limits[0].outlook, limits[0].reached_in_s), (Outlook::Shrinking, None));
}

#[test]
fn after_a_restart_nothing_is_told_before_there_are_samples_of_five_minutes() {
    let (clock, samples) = (clock(), Samples::default());
    assert!(samples.growth().is_empty());
    let limits = foresee(&figures(1_000_000), &BOUNDS, samples.of_the_hour().as_ref(), OLD);
    assert_eq!((limits[0].outlook, limits[0].reached_in_s), (Outlook::Unknown, None));
    grown(&clock, &samples, 5, |minute| figures(1_000_000 + minute * 60));
    assert!(samples.growth().is_empty(), "four minutes");
    grown(&clock, &samples, 1, |_| figures(1_000_300));
    let growth = samples.growth();
    assert_eq!(growth.len(), 1, "the same span is told once: {growth:?}");
    assert_eq!((growth[0].span_s, growth[0].records_per_s.round()), (300, 1.0));
}

#[test]
fn a_step_of_the_wall_clock_changes_nothing() {
    let (clock, samples) = (clock(), Samples::default());
    grown(&clock, &samples, 30, |minute| figures(minute * 60));
    clock.set_wall(UnixTime(1));
    grown(&clock, &samples, 31, |minute| figures((30 + minute) * 60));
    assert!((samples.of_the_hour().unwrap().records_per_s - 1.0).abs() < 1e-6);
}

#[test]
fn a_young_store_levels_off_where_its_first_records_expire() {
    let growth = Growth { records_per_s: 100.0, ..Growth::default() };
    let young = Ages { ttl_s: 43_200, oldest_s: 3_200 };
    let limits = foresee(&figures(1_000_000), &BOUNDS, Some(&growth), young);
    let limit = of(&limits, "records.max");
    assert_eq!((limit.outlook, limit.reached_in_s), (Outlook::LevelsOff, None));
    assert_eq!((limit.levels_off_in_s, limit.levels_off_at), (Some(40_000), Some(5_000_000)));
    // What is reached before is.
    let near = Bounds { records: 1_100_000, ..BOUNDS };
    let limits = foresee(&figures(1_000_000), &near, Some(&growth), young);
    assert_eq!(of(&limits, "records.max").reached_in_s, Some(1000));
}

#[test]
fn a_limit_that_is_reached_is_told_whatever_grows() {
    let bounds = Bounds { records: 10, disk_bytes: 1000, reserve_bytes: u64::MAX };
    let limits = foresee(&figures(10), &bounds, None, OLD);
    for name in ["records.max", "store.max_disk", "store.reserve"] {
        assert_eq!((of(&limits, name).outlook, of(&limits, name).reached_in_s), (Outlook::Reached, Some(0)), "{name}");
    }
}

#[test]
fn a_day_is_kept_and_no_more() {
    let (clock, samples) = (clock(), Samples::default());
    grown(&clock, &samples, 3 * 1440, |minute| figures(minute * 60));
    assert_eq!(samples.lock().len(), SAMPLES_MAX);
    assert_eq!(samples.growth().last().unwrap().span_s, 86_400);
}
