//! The points at which a process is killed, and the table of results.

use crate::layer::Plan;
use rand::{Rng, rngs::StdRng};
use std::{collections::BTreeMap, fmt, time::Duration};

/// A point in the life of a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Point {
    /// At any time, from outside.
    Random,
    /// At any call between the start and the first connection.
    Open,
    /// While the log is read into the index.
    Replay,
    /// At an fsync, or at the call that sled makes in its place.
    Flush,
    /// At a write of either database, or of the log.
    Write,
    /// At a call after garbage collection, which runs at full seconds.
    Gc,
    /// At a call on the journal of own CIDs.
    Journal,
    /// At a call on an export.
    Export,
    /// At a call after SIGTERM.
    Stop,
    /// At a call of a migration from an earlier schema.
    Migration,
}

impl Point {
    pub const ALL: [Point; 10] = [
        Point::Random,
        Point::Open,
        Point::Replay,
        Point::Flush,
        Point::Write,
        Point::Gc,
        Point::Journal,
        Point::Export,
        Point::Stop,
        Point::Migration,
    ];

    /// Returns the `n`-th point of a running process; the first follows the last. Directories begin at random ones.
    pub fn nth(n: usize) -> Self {
        Self::ALL[n % (Self::ALL.len() - 1)]
    }

    /// Returns whether calls count from the start of the process.
    pub fn counts_from_start(self) -> bool {
        matches!(self, Point::Open | Point::Replay | Point::Migration)
    }

    /// Draws the call at which to kill. `opening` is the number of calls of the last start.
    pub fn plan(self, random: &mut StdRng, opening: u64) -> Plan {
        let (on, path, thread, most) = match self {
            Point::Random => ("", "", "", 1),
            Point::Open | Point::Migration => ("", "", "", opening.max(10)),
            Point::Replay => ("thread", "replay-0", "", 1),
            Point::Flush => ("fsync,range", "records/db|node/db|log/", "", 12),
            Point::Write => ("write", "records/db|node/db|log/", "", 12),
            Point::Gc => ("write,fsync,range,unlink", "records/db|log/", "", 4),
            Point::Journal => ("", "own-", "", 8),
            Point::Export => ("", "exports/node", "", 6),
            Point::Stop => ("", "", "", 24),
        };
        let when = ["before", "after", "half"][random.random_range(0..3)];
        let (nth, power) = (random.random_range(1..=most), random.random());
        Plan { on, path, thread, nth, when, power, seed: random.random() }
    }

    /// Draws the time for which a process runs before the point is armed, or before the kill by the clock.
    pub fn patience(self, random: &mut StdRng) -> Duration {
        let most = match self {
            Point::Random | Point::Stop => 4_500,
            // Promises begin after 2 to 3 s.
            Point::Flush | Point::Write | Point::Gc => 3_500,
            Point::Journal => 2_000,
            Point::Open | Point::Replay | Point::Export | Point::Migration => 0,
        };
        Duration::from_millis(random.random_range(0..=most))
    }
}

/// Results at one kind of kill.
#[derive(Clone, Copy, Default)]
pub struct Found {
    pub kills: u64,
    /// Kills at the intended call; the others were kills by the clock.
    pub reached: u64,
    pub records: u64,
    pub own: u64,
    /// Notes of recovery; there must be none after a kill without power loss.
    pub notes: u64,
    /// Starts that found `records/` beyond repair and said so; there must be none after a kill without power loss.
    pub set_aside: u64,
    pub slowest: Duration,
}

/// Results by point, and by whether the power was cut.
#[derive(Default)]
pub struct Table(BTreeMap<(Point, bool), Found>);

impl Table {
    pub fn at(&mut self, point: Point, power: bool) -> &mut Found {
        self.0.entry((point, power)).or_default()
    }

    pub fn kills(&self) -> u64 {
        self.0.values().map(|found| found.kills).sum()
    }

    /// Returns the number of power cuts, and of those after which `records/` was set aside.
    pub fn set_aside(&self) -> (u64, u64) {
        let cuts = self.0.iter().filter(|((_, power), _)| *power);
        cuts.fold((0, 0), |(cuts, aside), (_, found)| (cuts + found.kills, aside + found.set_aside))
    }

    pub fn reached(&self, point: Point) -> u64 {
        self.0.iter().filter(|((at, _), _)| *at == point).map(|(_, found)| found.reached).sum()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, found: &Found| {
            let Found { kills, reached, records, own, notes, set_aside, slowest } = found;
            let slowest = slowest.as_secs_f64();
            writeln!(
                f,
                "{name:<22}{kills:>6} {reached:>8} {slowest:>10.2} s {records:>10} {own:>9} {notes:>6} {set_aside:>6}"
            )
        };
        let mut all = Found::default();
        for ((point, power), found) in &self.0 {
            line(&format!("{point:?}{}", if *power { ", power" } else { "" }), found)?;
            all.kills += found.kills;
            all.reached += found.reached;
            all.records += found.records;
            all.own += found.own;
            all.notes += found.notes;
            all.set_aside += found.set_aside;
            all.slowest = all.slowest.max(found.slowest);
        }
        line("all", &all)?;
        writeln!(
            f,
            "(point, kills, at the call, slowest start, records checked, own CIDs checked, notes, records/ set aside)"
        )
    }
}
