//! The time by which records are dated and outlived.
//!
//! Log time is the wall clock at open plus the monotonic clock. A step of the wall clock is followed only once it has
//! lasted for a grace period: until then nothing is deleted. `max(last, now)` instead would make one jump forward
//! permanent.
//!
//! At an open nobody knows whether the machine was off or its clock is wrong. Until the grace period has passed, what
//! earlier runs received is aged by the newest stamp that they left plus the monotonic clock ([`Earlier`]), and what
//! this run receives by log time. A wall clock that is set back meanwhile, but not before that stamp, was ahead at the
//! boot: log time follows it at once.

use crate::clock::{Clock, UnixTime};
use parking_lot::{Mutex, MutexGuard};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

/// The wall clock has stepped when it is further than this from log time, in seconds: more than NTP slews away or a
/// leap second makes, less than any ttl one would configure.
pub const STEP_S: i64 = 60;
/// Moves of the base that wait for their records to be dated anew. Each takes a grace period to come about; only a
/// store on which nobody collects garbage ever holds more than one or two.
const MAX_MOVES: usize = 16;

/// The arithmetic, without clocks.
#[derive(Debug)]
pub struct LogTime {
    /// Log time less monotonic time, in milliseconds.
    offset_ms: i64,
    grace: Duration,
    step: Option<ClockStep>,
    /// Since when the time between two runs, which nobody measured, waits to be believed.
    gap: Option<(Duration, i64)>,
    /// How what earlier runs received is aged until that is clear.
    earlier: Option<Earlier>,
}

/// The age of what earlier runs received, while the clock of this run is in doubt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Earlier {
    /// Dates before this one are of earlier runs: log time when the store was opened, Unix seconds.
    before: u32,
    /// Monotonic time when the store was opened.
    opened: Duration,
    /// The newest credible stamp of earlier runs, Unix seconds: their time stood there when this run began.
    stamp: u32,
}

impl Earlier {
    /// The time by which they are aged, Unix seconds.
    fn at(&self, mono: Duration) -> u32 {
        clamp(i64::from(self.stamp) + millis(mono.saturating_sub(self.opened)) / 1000)
    }
}

/// A step of the wall clock that is not believed yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockStep {
    /// Wall clock less log time, in seconds.
    pub by: i64,
    since: Duration,
    /// Log time when the wall clock was last trusted.
    pub from: u32,
}

/// The base has moved: records dated `from..=to` were received about now, and are to be dated anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Move {
    /// Seconds by which log time changed.
    pub by: i64,
    /// First date concerned, Unix seconds.
    pub from: u32,
    /// Last date concerned, Unix seconds.
    pub to: u32,
}

impl LogTime {
    /// Log time begins with the wall clock, unless that lies before `last_seen`, the newest time known from earlier
    /// runs: then it goes on from there, and the wall clock counts as stepped back. If the log also has `stamps` that
    /// are not ahead of the wall clock, the latest of them is believed for reading: a run with its clock ahead may have
    /// left `last_seen`.
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
            // Dates ahead of the wall clock are judged by log time: they are not what it would outlive.
            time.earlier = credible.filter(|stamp| *stamp <= wall).map(|_| earlier(wall_s, wall_s + 1));
        } else if wall_s > last + STEP_S {
            time.gap = Some((mono, wall_s - last));
            time.earlier = Some(earlier(last, wall_s));
        }
        time
    }

    /// Log time, Unix seconds.
    pub fn at(&self, mono: Duration) -> u32 {
        clamp((self.offset_ms + millis(mono)).div_euclid(1000))
    }

    /// Takes note of what the clocks say. Returns a move once a step has lasted for the grace period.
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
            // Stepped, or stepped once more: the grace period begins anew, what came meanwhile is still to be dated.
            earlier => {
                let from = earlier.map_or(now, |s| s.from);
                self.step = Some(ClockStep { by, since: mono, from });
                None
            }
        }
    }

    /// The clock with which this run began was ahead: nothing has believed it yet, and what it says now lies behind the
    /// newest stamp of earlier runs. What this run has dated goes with it.
    fn correct(&mut self, wall: UnixTime, mono: Duration, by: i64) -> Option<Move> {
        let (_, ahead) = self.gap?;
        let (wall_s, stamp) = (i64::from(wall.0), self.earlier?.at(mono));
        let began = i64::from(self.earlier?.before);
        // Back by no more than the gap, that is.
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

    /// How what earlier runs received is aged at present, if not by log time: dates before the first, at the second.
    fn earlier(&self, mono: Duration) -> Option<(u32, u32)> {
        self.earlier.map(|earlier| (earlier.before, earlier.at(mono)))
    }

    /// The step that waits to be believed.
    pub fn step(&self) -> Option<ClockStep> {
        self.step
    }

    /// Whether a step or the time between two runs waits to be believed.
    fn in_doubt(&self) -> bool {
        self.step.is_some() || self.gap.is_some() || self.earlier.is_some()
    }

    /// Why nothing may be deleted, if so.
    pub fn unconfirmed(&self) -> Option<String> {
        let grace = humantime::format_duration(self.grace);
        if let Some(step) = self.step {
            return Some(format!("the wall clock stepped by {:+} s; believed once it has lasted {grace}", step.by));
        }
        let (_, by) = self.gap?;
        Some(format!("the wall clock is {by:+} s past the last run; believed once it has lasted {grace}"))
    }
}

fn millis(mono: Duration) -> i64 {
    i64::try_from(mono.as_millis()).unwrap_or(i64::MAX / 4)
}

fn clamp(seconds: i64) -> u32 {
    u32::try_from(seconds.max(0)).unwrap_or(u32::MAX)
}

/// A moment, and what is still alive then.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Log time, Unix seconds.
    pub log: u32,
    /// Monotonic time.
    pub mono: Duration,
    /// A step forward that is not believed yet: what is dated before the first is judged by the second as well, so
    /// that nothing outlived is served should the step prove true (PRV-5).
    forward: Option<(u32, u32)>,
    /// The clock of this run is in doubt: what is dated before the first is judged by the second instead.
    earlier: Option<(u32, u32)>,
    /// The wall clock, where it is in doubt.
    doubted: Option<u32>,
}

impl Now {
    /// Whether what is dated `time` is not older than `ttl_s` seconds.
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

    /// Log time, or the wall clock where it has stepped forward and is not believed yet: what has ended by either is
    /// not served.
    pub fn latest(&self) -> u32 {
        self.forward.map_or(self.log, |(_, wall)| wall.max(self.log))
    }

    /// The time by which the end that a value names itself has passed: that of earlier runs while the clock of this
    /// run is in doubt.
    pub fn for_ends(&self) -> u32 {
        self.earlier.map_or(self.latest(), |(_, at)| at.min(self.latest()))
    }

    /// The oldest date that may still be live, Unix seconds: by log time, or by that of earlier runs.
    pub fn oldest_live(&self, ttl_s: u32) -> u32 {
        let at = self.earlier.map_or(self.log, |(_, at)| at.min(self.log));
        at.saturating_sub(ttl_s.saturating_sub(1))
    }

    /// Whether something dated `time` may prove to be live once the clock is no longer in doubt.
    pub fn may_be_live(&self, time: u32, ttl_s: u32) -> bool {
        let Some(wall) = self.doubted else { return false };
        let at = self.earlier.map_or(self.log, |(_, at)| at).min(self.log).min(wall);
        at.saturating_sub(time) < ttl_s
    }
}

/// Who dates what it holds anew when the base has moved.
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
    /// `LogTime::offset_ms`, readable without the lock.
    offset_ms: AtomicI64,
    /// A step or gap is pending, or moves are: ask the state.
    uneasy: AtomicBool,
    /// For each [`Ledger`].
    moves: [Mutex<Vec<Move>>; 2],
}

impl Timekeeper {
    /// See [`LogTime::open`].
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

    /// For a directory that is only read: nothing of earlier runs is aged but by log time.
    pub fn without_doubt(self) -> Self {
        self.state.lock().earlier = None;
        self
    }

    /// Now. Two readings of the clock, and a lock only while the wall clock is in doubt.
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
            tracing::warn!(seconds = moved.by, "the wall clock was set: dates follow it");
            for moves in &self.moves {
                let mut moves = moves.lock();
                if moves.len() == MAX_MOVES {
                    moves.remove(0);
                }
                moves.push(moved);
            }
        } else if let (false, Some(step)) = (was_stepped, state.step()) {
            tracing::warn!(seconds = step.by, "the wall clock has stepped: nothing is deleted until that has lasted");
        }
        self.offset_ms.store(state.offset_ms, Ordering::Relaxed);
        self.uneasy.store(state.in_doubt(), Ordering::Relaxed);
        let forward = state.step().filter(|s| s.by > 0).map(|s| (s.from, wall.0));
        let doubted = state.in_doubt().then_some(wall.0);
        Now { log: state.at(mono), mono, forward, earlier: state.earlier(mono), doubted }
    }

    /// Why nothing may be deleted at present, if so.
    pub fn unconfirmed(&self) -> Option<String> {
        self.now();
        match self.uneasy.load(Ordering::Relaxed) {
            true => self.state.lock().unconfirmed(),
            false => None,
        }
    }

    /// The oldest move whose dates in `ledger` are still to be changed; [`Timekeeper::done`] takes it off.
    pub fn next_move(&self, ledger: Ledger) -> Option<Move> {
        self.moves_of(ledger).first().copied()
    }

    /// `ledger` has its dates changed by this move.
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
