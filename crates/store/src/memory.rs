//! The memory that the process takes, and the memory that it could take, as Linux reports them below /proc and /sys.
//! Unknown on other systems.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Returns the resident bytes of this process.
pub fn resident() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Returns the bytes that this process could take in addition to `resident`: those that the machine has available, or
/// the rest of the limit of its control groups (`MemoryMax` or `MemoryHigh` of the unit, the limit of a container),
/// whichever is less.
pub fn room(resident: u64) -> Option<u64> {
    let machine = kibibytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?;
    Some(limit_of_group().map_or(machine, |limit| machine.min(limit.saturating_sub(resident))))
}

/// Returns the lowest limit of the control groups that this process is in.
fn limit_of_group() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    least_limit(&groups, Path::new("/sys/fs/cgroup"))
}

/// Returns the lowest limit of `groups` below `root`. `groups` has the form of `/proc/self/cgroup`, version 2
/// (`0::/path`) or version 1 (`9:memory:/path`); parent groups count as well. In a container only the root of the group
/// may be visible, whatever its path.
fn least_limit(groups: &str, root: &Path) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
        let (root, files): (_, &[&str]) = match controllers {
            "" => (root.to_owned(), &["memory.max", "memory.high"]),
            some if some.split(',').any(|name| name == "memory") => (root.join("memory"), &["memory.limit_in_bytes"]),
            _ => return None,
        };
        let read = |file: PathBuf| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
        let limit = |group: &Path| files.iter().filter_map(|file| read(group.join(file))).min();
        root.join(path).ancestors().take_while(|group| group.starts_with(&root)).filter_map(limit).min()
    });
    limits.min()
}

/// Returns the value behind `name` in bytes; the text gives it in kB.
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
    fn the_least_limit_of_all_groups_counts_in_both_versions() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("a/b/memory.max", "max\n");
        write("a/memory.max", "3000\n");
        assert_eq!(least_limit("0::/a/b\n", dir.path()), Some(3000));
        assert_eq!(least_limit("0::/a/b/not/seen/from/here\n", dir.path()), Some(3000));
        assert_eq!(least_limit("0::/\n", dir.path()), None);
        write("memory/x/memory.limit_in_bytes", "5000\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        let first = "12:cpu,cpuacct:/x\n9:memory:/x/y\n0::/\n";
        assert_eq!(least_limit(first, dir.path()), Some(5000));
        assert_eq!(least_limit("9:blkio,memory:/x\n0::/a\n", dir.path()), Some(3000));
        write("a/b/memory.high", "2000\n");
        assert_eq!(least_limit("0::/a/b\n", dir.path()), Some(2000));
        assert_eq!(least_limit("rubbish\n1\n", dir.path()), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_and_the_machine_has_more() {
        let resident = resident().unwrap();
        assert!(resident > 1 << 20, "{resident}");
        assert!(room(resident).is_some());
    }
}
