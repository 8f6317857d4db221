//! Log time: the time by which records are dated and expire.
//!
//! Log time is the wall clock at the open of the store, plus the monotonic clock since. It follows a step of the wall
//! clock only once the step has lasted for a grace period. Until then nothing is deleted. With `max(last, now)`
//! instead, one jump forward would be permanent.
//!
//! If the wall clock at the open is far from the end of the last run, the machine was off or its clock is wrong. Until
//! the grace period has passed, records of earlier runs age by the newest stamp that those runs left, plus the
//! monotonic clock ([`Earlier`]). Records of this run age by log time. If the wall clock is set back in that period,
//! but to a time no earlier than the stamp, it was ahead at the boot. Log time then follows it at once.

use crate::clock::{Clock, UnixTime};
use parking_lot::{Mutex, MutexGuard};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

/// Distance of the wall clock from log time that counts as a step, in seconds. It is more than NTP slews or a leap
/// second causes, and less than any sensible ttl.
pub const STEP_S: i64 = 60;
/// Limit of the moves whose records are not re-dated yet. A move comes at most once in a grace period, so there are
/// more than two only if garbage collection does not run.
const MAX_MOVES: usize = 16;

/// The arithmetic of log time, without clocks.
#[derive(Debug)]
pub struct LogTime {
    /// Log time minus monotonic time, in milliseconds.
    offset_ms: i64,
    grace: Duration,
    step: Option<ClockStep>,
    /// The gap between the last run and this one, while it is not believed: the monotonic time at which its grace
    /// period began, and the length of the gap in seconds.
    gap: Option<(Duration, i64)>,
    /// How records of earlier runs age until the clock of this run is believed.
    earlier: Option<Earlier>,
}

/// How records of earlier runs age while the clock of this run is in doubt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Earlier {
    /// Log time when the store was opened, Unix seconds. Records dated before it are from earlier runs.
    before: u32,
    /// Monotonic time when the store was opened.
    opened: Duration,
    /// The newest credible stamp of earlier runs, Unix seconds. The time of earlier runs continues from it at the open.
    stamp: u32,
}

impl Earlier {
    /// Returns the time by which these records age, Unix seconds.
    fn at(&self, mono: Duration) -> u32 {
        clamp(i64::from(self.stamp) + millis(mono.saturating_sub(self.opened)) / 1000)
    }
}

/// A step of the wall clock that is not believed yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockStep {
    /// Wall clock minus log time, in seconds.
    pub by: i64,
    since: Duration,
    /// Log time when the wall clock was last trusted.
    pub from: u32,
}

/// A move of the base of log time. Records dated `from..=to` were received about now, and must be re-dated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Move {
    /// Seconds by which log time changed.
    pub by: i64,
    /// First date to change, Unix seconds.
    pub from: u32,
    /// Last date to change, Unix seconds.
    pub to: u32,
}

impl LogTime {
    /// Begins with the wall clock, unless that is before `last_seen`, the newest time known from earlier runs. In that
    /// case log time goes on from `last_seen`, and the wall clock counts as stepped back.
    ///
    /// `credible` is the newest date in the log that is not ahead of the wall clock. If there is one, a run whose clock
    /// was ahead may have left `last_seen`. Records dated up to the wall clock then age by the wall clock.
    pub fn open(
        wall: UnixTime,
        mono: Duration,
        last_seen: Option<UnixTime>,
        credible: Option<UnixTime>,
        grace: Duration,
    ) -> Self {
        let wall_s = i64::from(wall.0);
        let last = last_seen.map_or(wall_s, |t| i64::from(t.0));
        let base = wall_s.max(last);
        let mut time = Self { offset_ms: base * 1000 - millis(mono), grace, step: None, gap: None, earlier: None };
        let earlier = |stamp: i64, before: i64| Earlier { before: clamp(before), opened: mono, stamp: clamp(stamp) };
        if wall_s < last - STEP_S {
            time.step = Some(ClockStep { by: wall_s - last, since: mono, from: clamp(last) });
            // Only dates up to the wall clock age by it. Those ahead of it age by log time.
            time.earlier = credible.filter(|stamp| *stamp <= wall).map(|_| earlier(wall_s, wall_s + 1));
        } else if wall_s > last + STEP_S {
            time.gap = Some((mono, wall_s - last));
            time.earlier = Some(earlier(last, wall_s));
        }
        time
    }

    /// Returns log time, Unix seconds.
    pub fn at(&self, mono: Duration) -> u32 {
        clamp((self.offset_ms + millis(mono)).div_euclid(1000))
    }

    /// Takes a reading of both clocks. Returns a move once a step has lasted for the grace period.
    pub fn observe(&mut self, wall: UnixTime, mono: Duration) -> Option<Move> {
        let now = self.at(mono);
        let by = i64::from(wall.0) - i64::from(now);
        if self.gap.is_some_and(|(since, _)| self.step.is_none() && mono.saturating_sub(since) >= self.grace) {
            self.gap = None;
        }
        if self.earlier.is_some_and(|earlier| mono.saturating_sub(earlier.opened) >= self.grace) {
            self.earlier = None;
        }
        if by.abs() <= STEP_S {
            self.step = None;
            return None;
        }
        if let Some(moved) = self.correct(wall, mono, by) {
            return Some(moved);
        }
        match self.step {
            Some(step) if (step.by - by).abs() <= STEP_S => {
                if mono.saturating_sub(step.since) < self.grace {
                    return None;
                }
                self.step = None;
                self.gap = None;
                self.offset_ms = i64::from(wall.0) * 1000 - millis(mono);
                Some(match by > 0 {
                    true => Move { by, from: step.from, to: now },
                    false => Move { by, from: wall.0.saturating_add(1), to: u32::MAX },
                })
            }
            // A first step, or a different one: the grace period begins again. Records received since the first step
            // must still be re-dated.
            earlier => {
                let from = earlier.map_or(now, |s| s.from);
                self.step = Some(ClockStep { by, since: mono, from });
                None
            }
        }
    }

    /// Corrects log time if the clock was ahead when this run began. Applies while that clock is not believed yet, if
    /// the wall clock is now set back to a time after the newest stamp of earlier runs. The records of this run are
    /// then re-dated.
    fn correct(&mut self, wall: UnixTime, mono: Duration, by: i64) -> Option<Move> {
        let (_, ahead) = self.gap?;
        let (wall_s, stamp) = (i64::from(wall.0), self.earlier?.at(mono));
        let began = i64::from(self.earlier?.before);
        // The wall clock may go back by no more than the gap.
        if by >= 0 || wall_s < began - ahead - STEP_S {
            return None;
        }
        self.offset_ms = wall_s * 1000 - millis(mono);
        self.step = None;
        let left = wall_s - i64::from(stamp);
        self.gap = (left > STEP_S).then_some((mono, left));
        if let Some(earlier) = &mut self.earlier {
            earlier.before = earlier.before.min(wall.0.saturating_add(1));
        }
        Some(Move { by, from: wall.0.saturating_add(1), to: u32::MAX })
    }

    /// Returns how records of earlier runs age now: dates before the first value age by the second. Returns `None` if
    /// they age by log time.
    fn earlier(&self, mono: Duration) -> Option<(u32, u32)> {
        self.earlier.map(|earlier| (earlier.before, earlier.at(mono)))
    }

    /// Returns the step that is not believed yet.
    pub fn step(&self) -> Option<ClockStep> {
        self.step
    }

    /// Returns true if a step, or the time since the last run, is not believed yet.
    fn in_doubt(&self) -> bool {
        self.step.is_some() || self.gap.is_some() || self.earlier.is_some()
    }

    /// Returns the reason why nothing may be deleted, if there is one.
    pub fn unconfirmed(&self) -> Option<String> {
        let grace = humantime::format_duration(self.grace);
        if let Some(step) = self.step {
            return Some(format!(
                "the wall clock stepped by {:+} s; the step is believed once it has lasted {grace}",
                step.by
            ));
        }
        let (_, by) = self.gap?;
        Some(format!("the wall clock is {by:+} s after the last run; it is believed after {grace}"))
    }
}

fn millis(mono: Duration) -> i64 {
    i64::try_from(mono.as_millis()).unwrap_or(i64::MAX / 4)
}

fn clamp(seconds: i64) -> u32 {
    u32::try_from(seconds.max(0)).unwrap_or(u32::MAX)
}

/// A moment, and the rules for what is live at it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Log time, Unix seconds.
    pub log: u32,
    /// Monotonic time.
    pub mono: Duration,
    /// A step forward that is not believed yet. Dates before the first value must be live by the second, too. So no
    /// expired record is served if the step turns out to be true (PRV-5).
    forward: Option<(u32, u32)>,
    /// While the clock of this run is in doubt: dates before the first value age by the second instead of log time.
    earlier: Option<(u32, u32)>,
    /// The wall clock, while it is in doubt.
    doubted: Option<u32>,
}

impl Now {
    /// Returns true if a record dated `time` is younger than `ttl_s` seconds.
    pub fn is_live(&self, time: u32, ttl_s: u32) -> bool {
        if let Some((before, at)) = self.earlier
            && time < before
        {
            return at.saturating_sub(time) < ttl_s;
        }
        if self.log.saturating_sub(time) >= ttl_s {
            return false;
        }
        match self.forward {
            Some((from, wall)) if time < from => wall.saturating_sub(time) < ttl_s,
            _ => true,
        }
    }

    /// Returns log time, or the wall clock if it has stepped forward and is not believed yet. A value that has
    /// ended by either of the two is not served.
    pub fn latest(&self) -> u32 {
        self.forward.map_or(self.log, |(_, wall)| wall.max(self.log))
    }

    /// Returns the time that decides whether a value has passed the end that the value itself names. While the clock of
    /// this run is in doubt, this is the time of earlier runs.
    pub fn for_ends(&self) -> u32 {
        self.earlier.map_or(self.latest(), |(_, at)| at.min(self.latest()))
    }

    /// Returns the oldest date that may still be live, by log time or by the time of earlier runs, Unix seconds.
    pub fn oldest_live(&self, ttl_s: u32) -> u32 {
        let at = self.earlier.map_or(self.log, |(_, at)| at.min(self.log));
        at.saturating_sub(ttl_s.saturating_sub(1))
    }

    /// Returns true if a record dated `time` may turn out to be live once the clock is no longer in doubt.
    pub fn may_be_live(&self, time: u32, ttl_s: u32) -> bool {
        let Some(wall) = self.doubted else { return false };
        let at = self.earlier.map_or(self.log, |(_, at)| at).min(self.log).min(wall);
        at.saturating_sub(time) < ttl_s
    }
}

/// A part of the store that re-dates what it holds when the base of log time has moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ledger {
    /// The log of provider records.
    Records,
    /// Values.
    Values,
}

/// [`LogTime`] on a clock, for many threads.
#[derive(Debug)]
pub struct Timekeeper {
    clock: Arc<dyn Clock>,
    state: Mutex<LogTime>,
    /// Copy of `LogTime::offset_ms` that can be read without the lock.
    offset_ms: AtomicI64,
    /// True while the clock is in doubt: then `state` must be locked and read.
    uneasy: AtomicBool,
    /// Moves that each [`Ledger`] has not handled yet.
    moves: [Mutex<Vec<Move>>; 2],
}

impl Timekeeper {
    /// Opens log time on `clock`. See [`LogTime::open`].
    pub fn open(
        clock: Arc<dyn Clock>,
        last_seen: Option<UnixTime>,
        credible: Option<UnixTime>,
        grace: Duration,
    ) -> Self {
        let state = LogTime::open(clock.wall(), clock.monotonic(), last_seen, credible, grace);
        Self {
            offset_ms: AtomicI64::new(state.offset_ms),
            uneasy: AtomicBool::new(state.in_doubt()),
            state: Mutex::new(state),
            moves: Default::default(),
            clock,
        }
    }

    /// Makes records of earlier runs age by log time, too. For stores that are read-only.
    pub fn without_doubt(self) -> Self {
        self.state.lock().earlier = None;
        self
    }

    /// Returns the current moment. It reads both clocks, and takes a lock only while the wall clock is in doubt.
    pub fn now(&self) -> Now {
        let mono = self.clock.monotonic();
        let wall = self.clock.wall();
        if !self.uneasy.load(Ordering::Relaxed) {
            let log = clamp((self.offset_ms.load(Ordering::Relaxed) + millis(mono)).div_euclid(1000));
            if (i64::from(wall.0) - i64::from(log)).abs() <= STEP_S {
                return Now { log, mono, forward: None, earlier: None, doubted: None };
            }
        }
        self.look(wall, mono)
    }

    #[cold]
    fn look(&self, wall: UnixTime, mono: Duration) -> Now {
        let mut state = self.state.lock();
        let was_stepped = state.step().is_some();
        if let Some(moved) = state.observe(wall, mono) {
            tracing::warn!(seconds = moved.by, "the wall clock was set; the dates of records follow it now");
            for moves in &self.moves {
                let mut moves = moves.lock();
                if moves.len() == MAX_MOVES {
                    moves.remove(0);
                }
                moves.push(moved);
            }
        } else if let (false, Some(step)) = (was_stepped, state.step()) {
            tracing::warn!(
                seconds = step.by,
                "the wall clock stepped; nothing is deleted until the step has lasted for the grace period"
            );
        }
        self.offset_ms.store(state.offset_ms, Ordering::Relaxed);
        self.uneasy.store(state.in_doubt(), Ordering::Relaxed);
        let forward = state.step().filter(|s| s.by > 0).map(|s| (s.from, wall.0));
        let doubted = state.in_doubt().then_some(wall.0);
        Now { log: state.at(mono), mono, forward, earlier: state.earlier(mono), doubted }
    }

    /// Returns the reason why nothing may be deleted now, if there is one.
    pub fn unconfirmed(&self) -> Option<String> {
        self.now();
        match self.uneasy.load(Ordering::Relaxed) {
            true => self.state.lock().unconfirmed(),
            false => None,
        }
    }

    /// Returns the oldest move that `ledger` has not handled. [`Timekeeper::done`] removes it.
    pub fn next_move(&self, ledger: Ledger) -> Option<Move> {
        self.moves_of(ledger).first().copied()
    }

    /// Notes that `ledger` has changed its dates by this move.
    pub fn done(&self, ledger: Ledger, done: Move) {
        self.moves_of(ledger).retain(|m| *m != done);
    }

    fn moves_of(&self, ledger: Ledger) -> MutexGuard<'_, Vec<Move>> {
        let [records, values] = &self.moves;
        let moves = match ledger {
            Ledger::Records => records,
            Ledger::Values => values,
        };
        moves.lock()
    }
}

#[cfg(test)]
mod tests;
