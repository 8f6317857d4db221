//! What a record takes, how fast there are more, and when a limit is reached, as people read it.

use crate::{
    cli::output::{human_bytes, human_duration},
    store::{
        Stat,
        growth::{Growth, Limit, Outlook},
    },
};
use std::time::Duration;

/// Names and values. Nothing is said of what is not known, but for the limits.
pub fn lines(store: &Stat) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(age) = store.oldest_age_s {
        lines.push(("Oldest", format!("received {} ago", seconds(age))));
    }
    let takes = &store.per_record;
    let bytes = |bytes: Option<f64>, of: &str| bytes.map(|bytes| format!("{} {of}", human_bytes(bytes.round() as u64)));
    let parts = [
        bytes(takes.disk_bytes, "on disk"),
        bytes(takes.export_bytes, "in exports"),
        bytes(takes.index_bytes, "of index"),
        bytes(takes.memory_bytes, "of memory in all"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if !parts.is_empty() {
        lines.push(("Per record", parts.join(", ")));
    }
    if let (Some(entries), Some(copies)) = (store.log_entries, takes.log_copies) {
        let rate = store.log_entries_per_s.map(|rate| format!(", {rate:.1} a second")).unwrap_or_default();
        lines.push(("Log", format!("about {} announcements{rate}: {copies:.1} of each record", grouped(entries))));
    }
    lines.extend(store.growth.iter().map(|growth| ("Growth", of_growth(growth))));
    lines.extend(store.limits.iter().map(|limit| ("Limit", of_limit(limit))));
    lines
}

fn of_growth(growth: &Growth) -> String {
    let mut parts = vec![
        format!("{:+.1} records a second", growth.records_per_s),
        format!("{} a second on disk", signed_bytes(growth.disk_bytes_per_s)),
    ];
    if let Some(memory) = growth.memory_bytes_per_s {
        parts.push(format!("{} a second of memory", signed_bytes(memory)));
    }
    format!("{} in {}", parts.join(", "), seconds(growth.span_s))
}

fn of_limit(limit: &Limit) -> String {
    let amount = |n: u64| if limit.unit == "bytes" { human_bytes(n) } else { grouped(n) };
    let name = match limit.limit.as_str() {
        "memory" => format!("memory of the machine ({})", amount(limit.max)),
        "store.reserve" => format!("all of the disk but store.reserve ({})", amount(limit.max)),
        setting => format!("{setting} = {}", amount(limit.max)),
    };
    let now = format!("{} now", amount(limit.now));
    match (limit.outlook, limit.reached_in_s, limit.levels_off_in_s, limit.levels_off_at) {
        (Outlook::Ahead, Some(time), ..) => format!("at this rate {name} is reached in {}; {now}", seconds(time)),
        (Outlook::Reached, ..) => format!("{name} is reached"),
        (Outlook::LevelsOff, _, Some(time), Some(at)) => format!(
            "at this rate {name} is not reached: in {}, at {}, as much expires as comes; {now}",
            seconds(time),
            amount(at)
        ),
        (Outlook::Shrinking, ..) => format!("{name} is not reached, it becomes less; {now}"),
        (Outlook::Steady, ..) => format!("{name} is not reached, there is no growth; {now}"),
        _ => format!("{name}: {now}; when it will be reached is told once the node has run for five minutes"),
    }
}

fn seconds(seconds: u64) -> String {
    human_duration(Duration::from_secs(seconds))
}

fn signed_bytes(bytes: f64) -> String {
    let sign = if bytes < 0.0 { '-' } else { '+' };
    format!("{sign}{}", human_bytes(bytes.abs().round() as u64))
}

/// `20,000,000`
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        (0..digits.len().div_ceil(3)).rev().map(|group| &digits[group_of(digits.len(), group)]).collect();
    groups.join(",")
}

/// The `group`th group of three digits, counted from the end.
fn group_of(len: usize, group: usize) -> std::ops::Range<usize> {
    len.saturating_sub(group * 3 + 3)..len - group * 3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::growth::{Ages, Bounds, Figures, foresee};

    const FIGURES: Figures = Figures {
        records: 4_000_000,
        disk_bytes: 1 << 30,
        disk_free_bytes: 100 << 30,
        memory_bytes: Some(1 << 30),
        memory_room_bytes: Some(7 << 30),
    };
    const BOUNDS: Bounds = Bounds { records: 20_000_000, disk_bytes: 2 << 30, reserve_bytes: 1 << 30 };

    fn told(growth: Option<Growth>, oldest_s: u64) -> Vec<String> {
        let limits = foresee(&FIGURES, &BOUNDS, growth.as_ref(), Ages { ttl_s: 43_200, oldest_s });
        lines(&Stat { limits, growth: growth.into_iter().collect(), ..Stat::default() })
            .into_iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect()
    }

    fn growth(records_per_s: f64) -> Growth {
        Growth {
            span_s: 3600,
            records_per_s,
            disk_bytes_per_s: records_per_s * 60.0,
            disk_free_bytes_per_s: records_per_s * -60.0,
            memory_bytes_per_s: Some(records_per_s * 40.0),
        }
    }

    #[test]
    fn a_person_reads_what_is_reached_first_and_when() {
        let told = told(Some(growth(58.479_532)), 43_200);
        assert_eq!(
            told[0],
            "Growth: +58.5 records a second, +3.43 KiB a second on disk, +2.28 KiB a second of memory in 1h"
        );
        let disk =
            told.iter().position(|line| line.contains("store.max_disk = 2.00 GiB is reached in 3d 13h")).unwrap();
        let records =
            told.iter().position(|line| line.contains("records.max = 20,000,000 is reached in 3d 4h")).unwrap();
        assert_eq!((records, disk), (1, 2), "{told:#?}");
        assert!(told[3].contains("memory of the machine (8.00 GiB) is reached in 37d"), "{told:#?}");
        assert!(told[4].contains("all of the disk but store.reserve (100.00 GiB) is reached in"), "{told:#?}");
    }

    #[test]
    fn a_person_reads_why_a_limit_is_not_foreseen() {
        let line = |growth: Option<Growth>, oldest_s| {
            told(growth, oldest_s).into_iter().find(|l| l.contains("records.max")).unwrap()
        };
        assert!(line(None, 43_200).contains("has run for five minutes"));
        assert!(line(Some(growth(0.0)), 43_200).contains("there is no growth; 4,000,000 now"));
        assert!(line(Some(growth(-9.0)), 43_200).contains("it becomes less"));
        assert!(
            line(Some(growth(50.0)), 7200).contains("is not reached: in 10h, at 5,800,000, as much expires as comes")
        );
    }

    #[test]
    fn digits_stand_in_groups_of_three() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (20_000_000, "20,000,000"), (123_456, "123,456")] {
            assert_eq!(grouped(n), text);
        }
    }
}
