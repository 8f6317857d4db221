//! How much memory the process has, and could have: what Linux says below /proc and /sys. Elsewhere nothing is known.

use std::{fs, path::Path};

/// Resident bytes of this process.
pub fn resident() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Bytes that this process could take beyond `resident`: those that the machine has to give, or what is left of the limit
/// of its control group (`MemoryMax` of the unit), whichever is less.
pub fn room(resident: u64) -> Option<u64> {
    let machine = kibibytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
    Some(limit_of_group().map_or(machine, |limit| machine.min(limit.saturating_sub(resident))))
}

/// Of control groups of version 2; the least of this group and those that it is in.
fn limit_of_group() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let limit = |group: &Path| fs::read_to_string(group.join("memory.max")).ok()?.trim().parse::<u64>().ok();
    root.join(group).ancestors().take_while(|group| group.starts_with(root)).filter_map(limit).min()
}

/// The number behind `name`, which counts kB.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_read_and_others_are_not() {
        let text = "Name:\tx\nVmRSS:\t   12345 kB\nVmRSSx: 1 kB\n";
        assert_eq!(kibibytes(text, "VmRSS:"), Some(12345 * 1024));
        assert_eq!(kibibytes(text, "VmHWM:"), None);
        assert_eq!(kibibytes("VmRSS: much kB", "VmRSS:"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_and_the_machine_has_more() {
        let resident = resident().unwrap();
        assert!(resident > 1 << 20, "{resident}");
        assert!(room(resident).is_some());
    }
}
