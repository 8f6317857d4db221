//! How fast the store grows, and which limit it comes to when.
//!
//! A ring of samples, one a minute for a day. A rate is the slope of the line that fits the samples of a span best: what
//! comes in bursts (garbage collection, flushes, tables that double) counts for little. Times are monotonic and given
//! by the caller, so a step of the wall clock changes nothing; a restart begins anew.

use serde::{Deserialize, Serialize};
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Between two samples.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(60);
/// Samples that are kept: a day of them, 80 kB.
const SAMPLES_MAX: usize = 24 * 60 + 1;
/// Over less time nothing is told: one collection of garbage may remove all that came in it.
const SPAN_MIN: Duration = Duration::from_secs(5 * 60);
/// Spans over which growth is told.
const SPANS: [Duration; 3] = [Duration::from_secs(600), HOUR, Duration::from_secs(86_400)];
/// The span by which limits are foreseen: longer than the pauses between collections, short enough to see a change.
const HOUR: Duration = Duration::from_secs(3600);
/// What takes longer than this at the present rate is not foreseen: ten years.
const FORESEEN_S: f64 = 10.0 * 365.0 * 86_400.0;
/// A log that reaches back so much of the ttl has begun to expire: what grows on now, grows because more comes.
const EXPIRES_FROM: f64 = 0.95;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Provider records.
    pub records: u64,
    /// Bytes of disk that the data directory takes.
    pub disk_bytes: u64,
    /// Bytes free on its disk.
    pub disk_free_bytes: u64,
    /// Resident bytes of the process, where the system tells them.
    pub memory_bytes: Option<u64>,
    /// What it could take beyond that.
    pub memory_room_bytes: Option<u64>,
}

/// Growth over a span. Negative: it shrinks.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Growth {
    /// The span, in seconds.
    pub span_s: u64,
    /// Records a second.
    pub records_per_s: f64,
    /// Bytes a second on disk.
    pub disk_bytes_per_s: f64,
    /// Bytes a second that become free on the disk: others may use it as well.
    pub disk_free_bytes_per_s: f64,
    /// Bytes of memory a second.
    pub memory_bytes_per_s: Option<f64>,
}

/// The last day. See the module.
#[derive(Debug, Default)]
pub struct Samples(Mutex<VecDeque<(Duration, Figures)>>);

impl Samples {
    /// Whether the last sample is [`SAMPLE_EVERY`] old.
    pub fn is_due(&self, now: Duration) -> bool {
        self.lock().back().is_none_or(|(time, _)| now.saturating_sub(*time) >= SAMPLE_EVERY)
    }

    /// Takes a sample. The oldest goes.
    pub fn take(&self, now: Duration, figures: Figures) {
        let mut samples = self.lock();
        if samples.len() == SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back((now, figures));
    }

    /// Over ten minutes, an hour and a day, the last of them shorter where there are not so many samples; none before
    /// there are samples of five minutes.
    pub fn growth(&self) -> Vec<Growth> {
        let samples = self.lock();
        let mut all: Vec<Growth> = Vec::with_capacity(SPANS.len());
        for span in SPANS {
            if let Some(growth) = over(&samples, span)
                && all.last().is_none_or(|shorter| shorter.span_s < growth.span_s)
            {
                all.push(growth);
            }
        }
        all
    }

    /// What [`foresee`] goes by.
    pub fn of_the_hour(&self) -> Option<Growth> {
        over(&self.lock(), HOUR)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Duration, Figures)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn over(samples: &VecDeque<(Duration, Figures)>, span: Duration) -> Option<Growth> {
    let (last, _) = *samples.back()?;
    let from = samples.partition_point(|(time, _)| last.saturating_sub(*time) > span);
    let (first, _) = *samples.get(from)?;
    let span = last.saturating_sub(first);
    if span < SPAN_MIN {
        return None;
    }
    let slope = |figure: &dyn Fn(&Figures) -> f64| {
        let points = samples.range(from..).map(|(time, figures)| ((*time - first).as_secs_f64(), figure(figures)));
        slope(points)
    };
    let has_memory = samples.range(from..).all(|(_, figures)| figures.memory_bytes.is_some());
    Some(Growth {
        span_s: span.as_secs(),
        records_per_s: slope(&|figures| figures.records as f64),
        disk_bytes_per_s: slope(&|figures| figures.disk_bytes as f64),
        disk_free_bytes_per_s: slope(&|figures| figures.disk_free_bytes as f64),
        memory_bytes_per_s: has_memory.then(|| slope(&|figures| figures.memory_bytes.unwrap_or(0) as f64)),
    })
}

/// Of the line through these points (x, y) that fits best.
fn slope(points: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let n = points.clone().count() as f64;
    let (x, y) = points.clone().fold((0.0, 0.0), |(x, y), point| (x + point.0 / n, y + point.1 / n));
    let (up, along) = points.fold((0.0, 0.0), |(up, along), point| {
        let dx = point.0 - x;
        (up + dx * (point.1 - y), along + dx * dx)
    });
    if along > 0.0 { up / along } else { 0.0 }
}

/// What becomes of a limit at the present rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outlook {
    /// It is reached.
    Reached,
    /// It will be, in [`Limit::reached_in_s`].
    Ahead,
    /// Before that as much expires as comes: from [`Limit::levels_off_in_s`] on there is no more than
    /// [`Limit::levels_off_at`].
    LevelsOff,
    /// There is no growth, or it would take more than ten years.
    Steady,
    /// It becomes less.
    Shrinking,
    /// There are not enough samples yet.
    Unknown,
}

/// A limit, and how far it is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Limit {
    /// A setting, or `memory` of the machine.
    pub limit: String,
    /// `records` or `bytes`.
    pub unit: String,
    /// Where it stands.
    pub max: u64,
    /// What counts towards it now.
    pub now: u64,
    /// What becomes of it.
    pub outlook: Outlook,
    /// Seconds until it is reached.
    pub reached_in_s: Option<u64>,
    /// Seconds until the first of what comes now expires.
    pub levels_off_in_s: Option<u64>,
    /// How much there is then.
    pub levels_off_at: Option<u64>,
}

/// What limits the store. 0: nothing does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bounds {
    /// `records.max`.
    pub records: u64,
    /// `store.max_disk`, in bytes.
    pub disk_bytes: u64,
    /// `store.reserve`, in bytes.
    pub reserve_bytes: u64,
}

/// How old records become, and how far the log reaches back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ages {
    /// `records.ttl`, in seconds.
    pub ttl_s: u64,
    /// Age of the oldest chunk of the log, in seconds.
    pub oldest_s: u64,
}

/// When the limits are reached, the nearest first.
pub fn foresee(now: &Figures, bounds: &Bounds, growth: Option<&Growth>, ages: Ages) -> Vec<Limit> {
    let levels_off_in_s = ages.ttl_s.saturating_sub(ages.oldest_s);
    let is_young = (ages.oldest_s as f64) < ages.ttl_s as f64 * EXPIRES_FROM;
    let levels_off_in_s = Some(levels_off_in_s).filter(|_| is_young);
    let limit = |name: &str, unit: &str, max: u64, now: u64, rate: Option<f64>| {
        let limit = Limit {
            limit: name.to_owned(),
            unit: unit.to_owned(),
            max,
            now,
            outlook: Outlook::Unknown,
            reached_in_s: None,
            levels_off_in_s: None,
            levels_off_at: None,
        };
        outlook(limit, rate, levels_off_in_s)
    };
    let mut limits = Vec::with_capacity(4);
    if bounds.records > 0 {
        let rate = growth.map(|growth| growth.records_per_s);
        limits.push(limit("records.max", "records", bounds.records, now.records, rate));
    }
    if bounds.disk_bytes > 0 {
        let rate = growth.map(|growth| growth.disk_bytes_per_s);
        limits.push(limit("store.max_disk", "bytes", bounds.disk_bytes, now.disk_bytes, rate));
    }
    // All of the disk that the directory can come to take, at the rate at which the disk fills, whoever fills it.
    let most = (now.disk_bytes + now.disk_free_bytes).saturating_sub(bounds.reserve_bytes);
    let rate = growth.map(|growth| -growth.disk_free_bytes_per_s);
    limits.push(limit("store.reserve", "bytes", most, now.disk_bytes, rate));
    if let (Some(memory), Some(room)) = (now.memory_bytes, now.memory_room_bytes) {
        let rate = growth.and_then(|growth| growth.memory_bytes_per_s);
        limits.push(limit("memory", "bytes", memory + room, memory, rate));
    }
    limits.sort_by_key(|limit| limit.reached_in_s.unwrap_or(u64::MAX));
    limits
}

fn outlook(mut limit: Limit, rate: Option<f64>, levels_off_in_s: Option<u64>) -> Limit {
    let left = limit.max.saturating_sub(limit.now);
    let Some(rate) = rate.filter(|_| left > 0) else {
        if left == 0 {
            (limit.outlook, limit.reached_in_s) = (Outlook::Reached, Some(0));
        }
        return limit;
    };
    let within_s = left as f64 / rate.abs().max(f64::MIN_POSITIVE);
    // Slower than what would change a tenth of the whole in ten years is noise.
    let is_slow = rate.abs() * FORESEEN_S < limit.max as f64 / 10.0;
    if is_slow || rate > 0.0 && within_s > FORESEEN_S {
        limit.outlook = Outlook::Steady;
    } else if rate < 0.0 {
        limit.outlook = Outlook::Shrinking;
    } else if let Some(levels_off_in_s) = levels_off_in_s.filter(|seconds| (*seconds as f64) < within_s) {
        limit.outlook = Outlook::LevelsOff;
        limit.levels_off_in_s = Some(levels_off_in_s);
        limit.levels_off_at = Some(limit.now + (rate * levels_off_in_s as f64) as u64);
    } else {
        (limit.outlook, limit.reached_in_s) = (Outlook::Ahead, Some(within_s as u64));
    }
    limit
}

#[cfg(test)]
mod tests;
