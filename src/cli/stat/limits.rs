//! Size of a record and use of the limits, for people.

use crate::{
    cli::output::{human_bytes, human_duration},
    control::protocol::{Limit, StoreStat},
};
use std::time::Duration;

/// Returns names and values. Unknown figures are left out, except for the limits.
pub fn lines(store: &StoreStat) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(age) = store.oldest_age_s {
        lines.push(("Oldest", format!("received {} ago", seconds(age))));
    }
    let takes = &store.per_record;
    let bytes = |bytes: Option<f64>, of: &str| bytes.map(|bytes| format!("{} {of}", human_bytes(bytes.round() as u64)));
    let parts = [
        bytes(takes.disk_bytes, "on disk"),
        bytes(takes.index_bytes, "of index"),
        bytes(takes.memory_bytes, "of memory in total"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if !parts.is_empty() {
        lines.push(("Per record", parts.join(", ")));
    }
    if let (Some(entries), Some(copies)) = (store.log_entries, takes.log_copies) {
        let rate = store.log_entries_per_s.map(|rate| format!(", {rate:.1} a second")).unwrap_or_default();
        lines.push(("Log", format!("about {} announcements{rate}: {copies:.1} of each record", grouped(entries))));
    }
    lines.extend(store.limits.iter().map(|limit| ("Limit", of_limit(limit))));
    lines
}

fn of_limit(limit: &Limit) -> String {
    let amount = |n: u64| if limit.unit == "bytes" { human_bytes(n) } else { grouped(n) };
    let name = match limit.limit.as_str() {
        "memory" => format!("memory of the machine ({})", amount(limit.max)),
        "store.reserve" => format!("all of the disk but store.reserve ({})", amount(limit.max)),
        setting => format!("{setting} = {}", amount(limit.max)),
    };
    format!("{name}: {} now, {:.0} %", amount(limit.now), limit.taken() * 100.0)
}

fn seconds(seconds: u64) -> String {
    human_duration(Duration::from_secs(seconds))
}

/// Formats a number like `20,000,000`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        (0..digits.len().div_ceil(3)).rev().map(|group| &digits[group_of(digits.len(), group)]).collect();
    groups.join(",")
}

/// Returns the range of the `group`th group of three digits, counted from the end.
fn group_of(len: usize, group: usize) -> std::ops::Range<usize> {
    len.saturating_sub(group * 3 + 3)..len - group * 3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::limits::{Bounds, Figures, of};

    #[test]
    fn a_person_reads_how_far_each_limit_is_the_nearest_first() {
        let figures = Figures {
            records: 4_000_000,
            disk_bytes: 1 << 30,
            disk_free_bytes: 100 << 30,
            memory_bytes: Some(1 << 30),
            memory_room_bytes: Some(7 << 30),
        };
        let bounds = Bounds { records: 20_000_000, disk_bytes: 2 << 30, reserve_bytes: 1 << 30 };
        let shown = lines(&StoreStat {
            limits: of(&figures, &bounds).into_iter().map(Into::into).collect(),
            ..StoreStat::default()
        });
        let shown: Vec<String> = shown.into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!(
            shown,
            [
                "Limit: store.max_disk = 2.00 GiB: 1.00 GiB now, 50 %",
                "Limit: records.max = 20,000,000: 4,000,000 now, 20 %",
                "Limit: memory of the machine (8.00 GiB): 1.00 GiB now, 12 %",
                "Limit: all of the disk but store.reserve (100.00 GiB): 1.00 GiB now, 1 %",
            ]
        );
    }

    #[test]
    fn digits_stand_in_groups_of_three() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (20_000_000, "20,000,000"), (123_456, "123,456")] {
            assert_eq!(grouped(n), text);
        }
    }
}
