//! `dhtstore stat --plan RATE TTL`: estimates the machine that a node needs.
//!
//! The estimates are based on what `cargo bench --bench store` measured at 10 and 100 million records. Other machines
//! differ.

use crate::cli::{
    error::{CliError, Result},
    output::{human_bytes, human_duration},
};
use serde::Serialize;
use std::time::Duration;

/// Interval at which peers of the public DHT announce a record, whatever its ttl (go-libp2p-kad-dht, Kubo).
const ANNOUNCED_EVERY: Duration = Duration::from_secs(22 * 3600);
/// Memory of an empty node, in bytes.
const BASE_BYTES: f64 = 150e6;
/// Memory for each record, in bytes: 36 were measured, and a little more while tables grow.
const RECORD_BYTES: f64 = 40.0;
/// Bytes of the log for each entry: 38 were measured, and 49 if each of 200,000 providers is new.
const LOG_BYTES: f64 = 50.0;
/// CPU time to read an entry of the log at a start, in seconds, over all cores.
const REPLAY_CPU: f64 = 0.7e-6;
/// Largest rate that a plan accepts.
const MAX_RATE: f64 = 1e6;
/// Longest ttl that a plan accepts.
const MAX_TTL: Duration = Duration::from_secs(30 * 86_400);

/// The machine that a rate of announcements and a ttl need.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Plan {
    /// Announcements a second.
    pub rate: f64,
    /// `records.ttl`, in seconds.
    pub ttl_s: u64,
    /// Live records: each is announced every 22 h.
    pub records: u64,
    /// Announcements in the log. A record that is announced more than once per ttl has several.
    pub log_entries: u64,
    /// Smallest useful `records.max`: the records and an eighth more, because the farthest records are dropped before
    /// the limit is reached.
    pub records_max: u64,
    /// Memory, in bytes.
    pub ram_bytes: u64,
    /// Disk, in bytes: the log.
    pub disk_bytes: u64,
    /// CPU time to replay the log, in seconds. All cores share it, and the node serves during the replay.
    pub replay_cpu_s: f64,
}

impl Plan {
    /// Parses the arguments of the command line.
    ///
    /// # Errors
    /// An argument is not a rate or a ttl, or is out of range.
    pub fn parse(rate: &str, ttl: &str) -> Result<Self> {
        let wanted: f64 = rate
            .parse()
            .map_err(|_| CliError::usage(format!("cannot read the rate {rate}: not a number; 1500 is one")))?;
        if !(wanted > 0.0 && wanted <= MAX_RATE) {
            return Err(CliError::usage(format!(
                "cannot plan for the rate {rate}: it must be above 0 and at most {MAX_RATE} announcements a second"
            )));
        }
        let ttl = humantime::parse_duration(ttl)
            .map_err(|error| CliError::usage(format!("cannot read the ttl {ttl}: {error}; 48h is one")))?;
        if ttl < Duration::from_secs(1) || ttl > MAX_TTL {
            return Err(CliError::usage("cannot plan for the ttl: it must be between 1s and 30days"));
        }
        Ok(Self::new(wanted, ttl))
    }

    fn new(rate: f64, ttl: Duration) -> Self {
        let entries = rate * ttl.as_secs_f64();
        let records = rate * ttl.min(ANNOUNCED_EVERY).as_secs_f64();
        Self {
            rate,
            ttl_s: ttl.as_secs(),
            records: records as u64,
            log_entries: entries as u64,
            records_max: (records * 9.0 / 8.0) as u64,
            ram_bytes: (BASE_BYTES + records * RECORD_BYTES) as u64,
            disk_bytes: (entries * LOG_BYTES) as u64,
            replay_cpu_s: entries * REPLAY_CPU,
        }
    }

    /// Formats the plan for people.
    pub fn text(&self) -> String {
        let lines = [
            ("Announcements", format!("{} a second", self.rate)),
            ("records.ttl", human_duration(Duration::from_secs(self.ttl_s))),
            ("Records", format!("{}, if each is announced every 22 h", self.records)),
            ("records.max", format!("{} at least", self.records_max)),
            ("Log", format!("{} announcements", self.log_entries)),
            ("Memory", human_bytes(self.ram_bytes)),
            ("Disk", format!("{}: the log", human_bytes(self.disk_bytes))),
            (
                "Replay",
                format!(
                    "{} of CPU time at a start, shared by all cores; the node serves during it",
                    human_duration(Duration::from_secs_f64(self.replay_cpu_s.max(1.0)))
                ),
            ),
        ];
        lines.iter().map(|(name, value)| format!("{name:<14}{value}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_dht_at_1500_a_second() {
        let plan = Plan::parse("1500", "12h").unwrap();
        assert_eq!((plan.records, plan.log_entries), (64_800_000, 64_800_000));
        let plan = Plan::parse("1500", "48h").unwrap();
        assert_eq!((plan.records, plan.log_entries), (118_800_000, 259_200_000));
        assert!(plan.text().contains("118800000, if each"), "{}", plan.text());
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for (rate, ttl, word) in [
            ("many", "12h", "1500 is one"),
            ("-1", "12h", "above 0"),
            ("NaN", "12h", "above 0"),
            ("1e300", "12h", "at most"),
            ("1", "soon", "48h is one"),
            ("1", "0s", "between"),
            ("1", "1000years", "between"),
        ] {
            let error = Plan::parse(rate, ttl).unwrap_err().to_string();
            assert!(error.contains(word), "{rate} {ttl}: {error}");
        }
    }
}
