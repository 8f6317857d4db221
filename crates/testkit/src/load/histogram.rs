//! A histogram of latencies, exact to within 0.4 %.

use std::time::Duration;

/// log2 of the parts of an octave. With 2^7 parts, the middle of a part differs from any value in it by 0.4 % at most.
const PARTS_BITS: u32 = 7;
const PARTS: usize = 1 << PARTS_BITS;

/// Octaves above the values that are their own index. They reach 2^40 ns, 18 minutes.
const OCTAVES: usize = 40 - PARTS_BITS as usize;

/// Counts of durations.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; (OCTAVES + 1) * PARTS], total: 0 }
    }
}

impl Histogram {
    /// Counts a duration.
    pub fn add(&mut self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        // Values below 2^7 are their own index. Larger ones are indexed by the octave and the seven bits after the
        // leading one.
        let octave = (64 - nanos.leading_zeros()).saturating_sub(PARTS_BITS + 1);
        let index = octave as usize * PARTS + (nanos >> octave) as usize;
        let last = self.counts.len() - 1;
        self.counts[index.min(last)] += 1;
        self.total += 1;
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    /// Returns a quantile in microseconds, for instance the median for `part` 0.5. NaN if nothing was counted.
    pub fn at(&self, part: f64) -> f64 {
        if self.total == 0 {
            return f64::NAN;
        }
        let wanted = ((self.total as f64 * part).ceil() as u64).clamp(1, self.total);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                // Indices below twice PARTS are their own value.
                let octave = (index / PARTS).saturating_sub(1);
                let value = (index - octave * PARTS) as f64 + 0.5;
                return value * (1u64 << octave) as f64 / 1e3;
            }
        }
        f64::NAN
    }
}
