use super::*;
use crate::kad::values::Invalid;
use crate::{Store, clock::ManualClock, data_dir::Lock};
use std::path::Path;

const T0: u32 = 1_700_000_000;
const HOUR: u64 = 3600;

/// Values of the tests: a rank, the second at which they end, and any bytes. Signatures are tested in `kad::values`.
const RANKED: Judge = Judge {
    validate: |_, value, now| match ends_of(value) {
        Some(ends) if now.as_secs() < u64::from(ends) => Ok(()),
        _ => Err(Invalid::Expired),
    },
    compare: |_, a, b| a.first().cmp(&b.first()),
    ends: |_, value| ends_of(value).map(|s| Duration::from_secs(u64::from(s))),
};

fn ends_of(value: &[u8]) -> Option<u32> {
    value.get(1..5).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes)
}

fn value(rank: u8, ends: u32) -> Vec<u8> {
    [&[rank][..], &ends.to_be_bytes()].concat()
}

fn forever(rank: u8) -> Vec<u8> {
    value(rank, u32::MAX)
}

fn key(n: u32) -> Vec<u8> {
    [b"/ipns/", &n.to_be_bytes()[..]].concat()
}

struct Opened {
    store: Store,
    values: Values,
    clock: Arc<ManualClock>,
    _lock: Lock,
}

fn open_at(dir: &Path, settings: &Settings, clock: Arc<ManualClock>) -> Opened {
    let lock = Lock::acquire(dir).unwrap();
    let store = Store::open(&lock, settings.clone(), clock.clone()).unwrap();
    let values = Values::open_with(store.records.state.clone(), settings, RANKED).unwrap();
    Opened { store, values, clock, _lock: lock }
}

fn open(dir: &Path, settings: &Settings) -> Opened {
    open_at(dir, settings, ManualClock::at(UnixTime(T0)))
}

/// Returns the rows on disk.
fn rows(opened: &Opened) -> sled::Tree {
    opened.store.records.state.log.database.read(tree::VALUES, |tree| Ok(tree.clone())).unwrap()
}

impl Opened {
    fn put(&self, n: u32, value: &[u8]) -> Result<Put, Refused> {
        self.values.put_blocking(&key(n), value)
    }

    fn rank(&self, n: u32) -> Option<u8> {
        self.values.get(&key(n)).map(|held| held.value[0])
    }

    fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn collect(&self) -> GcReport {
        self.values.state.collect().unwrap()
    }

    fn counter(&self, name: &str) -> u64 {
        self.values.state.records.metrics.by_name()[name]
    }
}

#[test]
fn val_5_a_value_is_served_for_48_h_after_its_last_put_and_never_after_then_collected() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), &Settings::default());
    assert_eq!(opened.put(1, &forever(1)), Ok(Put::New));
    assert_eq!(opened.put(2, &forever(1)), Ok(Put::New));
    opened.advance(47 * HOUR);
    assert_eq!(opened.put(2, &forever(1)), Ok(Put::Renewed));
    opened.advance(HOUR - 1);
    assert_eq!(opened.rank(1), Some(1));
    opened.advance(1);
    assert_eq!((opened.rank(1), opened.rank(2)), (None, Some(1)), "not served, though not collected yet");
    assert_eq!(opened.values.size().0, 2);
    assert_eq!(opened.collect(), GcReport { expired: 1, paused: None });
    assert_eq!(opened.values.size(), (1, 10 + 5));
    opened.advance(47 * HOUR);
    assert_eq!(opened.rank(2), None);
    assert_eq!(opened.collect().expired, 1);
    assert!(rows(&opened).is_empty());
    assert_eq!(opened.put(1, &forever(0)), Ok(Put::New), "a value that has ended blocks no other");
}

#[test]
fn val_5_a_value_is_not_served_past_its_own_end_whatever_its_ttl() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), &Settings::default());
    assert_eq!(opened.put(1, &value(1, T0 + 60)), Ok(Put::New));
    assert_eq!(opened.put(2, &value(1, T0)), Err(Refused::Invalid(Invalid::Expired)));
    opened.advance(59);
    assert_eq!(opened.rank(1), Some(1));
    opened.advance(1);
    assert_eq!(opened.rank(1), None);
    assert_eq!(opened.put(1, &value(1, T0 + 60)), Err(Refused::Invalid(Invalid::Expired)));
    // The value that ended was the better one, but it no longer blocks others.
    assert_eq!(opened.put(1, &forever(0)), Ok(Put::New));
    assert_eq!(opened.counter("values_refused_invalid"), 2);
}

#[test]
fn val_4_the_better_value_stays_whichever_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), &Settings::default());
    assert_eq!(opened.put(1, &forever(5)), Ok(Put::New));
    assert_eq!(opened.put(1, &forever(4)), Err(Refused::Worse));
    // An equal value is accepted, as go does.
    assert_eq!(opened.put(1, &[&forever(5)[..], b"other"].concat()), Ok(Put::Better));
    assert_eq!(opened.put(1, &forever(6)), Ok(Put::Better));
    assert_eq!((opened.rank(1), opened.values.size().0), (Some(6), 1));
    assert_eq!((opened.counter("values_refused_worse"), opened.counter("values_better")), (1, 2));
}

#[test]
fn of_puts_at_the_same_time_the_best_stays_in_memory_and_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), &Settings::default());
    for round in 0..20 {
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let values = &opened.values;
                scope.spawn(move || {
                    for rank in 0..16_u8 {
                        // Each thread puts the values in another order.
                        let rank = (rank.wrapping_mul(5).wrapping_add(thread * 3)) % 16;
                        let _ = values.put_blocking(&key(round), &forever(rank * 4 + thread));
                    }
                });
            }
        });
        assert_eq!(opened.rank(round), Some(15 * 4 + 3));
        let row = rows(&opened).get(key(round)).unwrap().unwrap();
        assert_eq!(codec::read_frame::<ValueRow>(&mut &*row).unwrap().unwrap().value, forever(63));
    }
}

#[test]
fn at_the_bound_what_is_closest_to_the_node_is_kept_and_what_is_held_is_always_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let near = Key::for_value(b"this node");
    let position = *near.as_bytes();
    for settings in [
        Settings { max_values: 50, position, ..Settings::default() },
        Settings { max_values_bytes: 50 * (10 + 5), position, ..Settings::default() },
    ] {
        let opened = open(&dir.path().join(settings.max_values.to_string()), &settings);
        let (mut taken, mut refused) = (0, 0);
        for n in 0..400 {
            match opened.put(n, &forever(1)) {
                Ok(Put::New) => taken += 1,
                Err(Refused::Full) => refused += 1,
                other => panic!("{other:?}"),
            }
            assert!(opened.values.size().0 <= 50);
        }
        let mut all: Vec<u32> = (0..400).collect();
        all.sort_by_key(|n| Key::for_value(&key(*n)).distance(&near));
        let held: Vec<u32> = all.iter().copied().filter(|n| opened.rank(*n).is_some()).collect();
        assert_eq!(held, all[..50], "the 50 closest");
        assert_eq!((opened.counter("values_refused_full"), opened.counter("values_evicted")), (refused, taken - 50));
        assert_eq!(rows(&opened).len(), 50, "evicted from the disk as well");
        // The farthest value that is held grows: others are dropped only to free bytes.
        assert_eq!(opened.put(all[49], &forever(1)), Ok(Put::Renewed));
        let grown = [&forever(2)[..], &[0; 40]].concat();
        assert_eq!(opened.put(all[49], &grown), Ok(Put::Better));
        assert_eq!(opened.rank(all[49]), Some(2));
        assert!(opened.values.size().1 <= settings.max_values_bytes);
        assert_eq!(opened.put(all[399], &forever(9)), Err(Refused::Full));
    }
}

#[test]
fn values_survive_a_reopening_with_their_times_and_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { max_values: 4, ..Settings::default() };
    let opened = open(dir.path(), &settings);
    for n in 0..3 {
        opened.put(n, &forever(7)).unwrap();
        opened.advance(HOUR);
    }
    let Opened { store, values, clock, _lock } = opened;
    store.records.close().unwrap();
    drop((store, values, _lock));
    let opened = open_at(dir.path(), &settings, clock);
    assert_eq!((0..3).filter_map(|n| opened.rank(n)).count(), 3);
    assert_eq!(opened.put(1, &forever(6)), Err(Refused::Worse));
    assert_eq!(opened.values.get(&key(2)).unwrap().received, UnixTime(T0 + 7200));
    opened.advance(45 * HOUR);
    assert_eq!([0, 1, 2].map(|n| opened.rank(n)), [None, Some(7), Some(7)]);
}

#[test]
fn a_repeat_renews_the_time_at_once_and_the_row_every_five_minutes() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), &Settings::default());
    let on_disk = || {
        let row = rows(&opened).get(key(1)).unwrap().unwrap();
        codec::read_frame::<ValueRow>(&mut &*row).unwrap().unwrap().received
    };
    opened.put(1, &forever(1)).unwrap();
    opened.advance(299);
    opened.put(1, &forever(1)).unwrap();
    assert_eq!((opened.values.get(&key(1)).unwrap().received.0, on_disk()), (T0 + 299, T0));
    opened.advance(1);
    opened.put(1, &forever(1)).unwrap();
    assert_eq!(on_disk(), T0 + 300);
}

#[test]
fn damaged_rows_are_passed_over_and_counted_and_invalid_ones_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), &Settings::default());
    for n in 0..4 {
        opened.put(n, &forever(1)).unwrap();
    }
    let tree = &rows(&opened);
    let mut flipped = tree.get(key(0)).unwrap().unwrap().to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    tree.insert(key(0), flipped).unwrap();
    tree.insert(key(1), b"").unwrap();
    // The frame is intact, but the rules refuse the value, as if another version had written it.
    let row = codec::frame(&ValueRow { received: T0, value: vec![1] }).unwrap();
    tree.insert(key(2), row).unwrap();
    let again = Values::open_with(opened.store.records.state.clone(), &Settings::default(), RANKED).unwrap();
    assert_eq!(again.state.records.metrics.values_damaged.get(), 2);
    assert!(again.notes()[0].contains("2 rows of values are damaged"), "{:?}", again.notes());
    assert_eq!((0..4).filter(|n| again.get(&key(*n)).is_some()).collect::<Vec<_>>(), [3]);
    assert_eq!(again.state.collect().unwrap().expired, 1, "the invalid one goes");
    assert_eq!(again.put_blocking(&key(2), &forever(0)), Ok(Put::New));
}

#[test]
fn a_step_of_the_wall_clock_deletes_nothing_until_it_is_believed_and_then_dates_anew() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), &Settings::default());
    opened.put(1, &forever(1)).unwrap();
    opened.put(2, &value(1, T0 + 1000)).unwrap();
    opened.advance(10);
    // Ten days ahead.
    opened.clock.set_wall(UnixTime(T0 + 864_000));
    assert_eq!(opened.collect().expired, 0);
    assert_eq!((opened.rank(1), opened.rank(2)), (None, None), "not served while the step may be true");
    opened.put(3, &forever(1)).unwrap();
    assert_eq!(opened.rank(3), Some(1), "received since");
    // The step is undone: nothing was lost.
    opened.clock.set_wall(UnixTime(T0));
    assert_eq!((opened.rank(1), opened.rank(2)), (Some(1), Some(1)));
    // Ten days back, for good.
    opened.clock.set_wall(UnixTime(T0 - 864_000));
    opened.collect();
    opened.advance(601);
    opened.values.get(&key(1));
    opened.collect();
    let held = opened.values.get(&key(1)).unwrap();
    assert!(held.received.0.abs_diff(T0 - 864_000 + 601) <= 1, "{held:?}");
    opened.advance(48 * HOUR);
    assert_eq!(opened.rank(1), None);
    assert_eq!(opened.collect().expired, 3);
}

#[test]
fn nothing_is_taken_once_the_database_takes_no_writes() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), &Settings::default());
    opened.put(1, &forever(1)).unwrap();
    opened.store.records.state.health().close_for_writes();
    assert_eq!(opened.put(2, &forever(1)), Err(Refused::ReadOnly));
    assert_eq!(opened.rank(1), Some(1));
    assert_eq!(opened.counter("values_refused_read_only"), 1);
}
