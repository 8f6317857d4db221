//! `dhtstore stat --plan RATE TTL`: what machine to buy.
//!
//! Arithmetic on what `cargo bench --bench store` measured at 10 and 100 million records; where a machine differs, so do these.

use crate::cli::{
    error::{CliError, Result},
    output::{human_bytes, human_duration},
};
use serde::Serialize;
use std::time::Duration;

/// How often others announce a record on the public DHT, whatever its ttl (go-libp2p-kad-dht, Kubo).
const ANNOUNCED_EVERY: Duration = Duration::from_secs(22 * 3600);
/// A node with nothing in it.
const BASE_BYTES: f64 = 150e6;
/// Everything in memory, for each record: 36 were measured, and a little more while tables grow.
const RECORD_BYTES: f64 = 40.0;
/// The log, for each entry: 38, and 49 where each of 200,000 providers is new.
const LOG_BYTES: f64 = 50.0;
/// Reading the log at a start, for each entry: CPU time, of all cores together.
const REPLAY_CPU: f64 = 0.7e-6;
/// Largest rate and ttl that are planned for.
const MAX_RATE: f64 = 1e6;
const MAX_TTL: Duration = Duration::from_secs(30 * 86_400);

/// What a rate of announcements and a ttl ask for.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Plan {
    /// Announcements a second.
    pub rate: f64,
    /// `records.ttl`, in seconds.
    pub ttl_s: u64,
    /// Live records: each is announced every 22 h.
    pub records: u64,
    /// Announcements in the log: a record that is announced more often than its ttl has several.
    pub log_entries: u64,
    /// What `records.max` should be at least: records and an eighth, since it drops the farthest before.
    pub records_max: u64,
    /// Memory, in bytes.
    pub ram_bytes: u64,
    /// Disk, in bytes: the log.
    pub disk_bytes: u64,
    /// Seconds of CPU time until the log is replayed; shared by all cores, and the node serves meanwhile.
    pub replay_cpu_s: f64,
}

impl Plan {
    /// From the words of the command line.
    ///
    /// # Errors
    /// Words that are no rate or no ttl, or beyond what is planned for.
    pub fn parse(rate: &str, ttl: &str) -> Result<Self> {
        let wanted: f64 = rate.parse().map_err(|_| CliError::usage(format!("{rate} is no rate: 1500 is one")))?;
        if !(wanted > 0.0 && wanted <= MAX_RATE) {
            return Err(CliError::usage(format!("a rate is above 0 and at most {MAX_RATE} announcements a second")));
        }
        let ttl = humantime::parse_duration(ttl)
            .map_err(|error| CliError::usage(format!("{ttl} is no duration: {error}; 48h is one")))?;
        if ttl < Duration::from_secs(1) || ttl > MAX_TTL {
            return Err(CliError::usage("a ttl is between 1s and 30days"));
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

    /// As people read it.
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
                    "{} of CPU time at a start, on all cores; the node serves meanwhile",
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
