//! A small file system for one test. The test program runs itself again in a mount namespace of its own, with a tmpfs.
//!
//! That needs root or user namespaces. Without either, the test prints `NOT TESTED` to stderr and passes without a
//! check. With `DISK_TESTS=require`, which CI sets, it fails instead.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

const INSIDE: &str = "DISK_TEST_DIR";

/// When called inside the namespace, returns the empty file system. When called outside, runs `test` (its full name)
/// inside a new namespace, and returns `None` once the test has passed.
pub fn small_disk(test: &str, mebibytes: u32) -> Option<PathBuf> {
    small_disk_with(test, &format!("size={mebibytes}m"))
}

/// Does the same as [`small_disk`], with any mount options of tmpfs.
pub fn small_disk_with(test: &str, options: &str) -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os(INSIDE) {
        return Some(dir.into());
    }
    let dir = tempfile::tempdir().unwrap();
    let unshare = |args: &[&str]| {
        let user: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
        let mount = format!("mount -t tmpfs -o {options} none \"$0\" && exec \"$@\"");
        let mut command = Command::new("unshare");
        command.args(user).args(["--mount", "--", "sh", "-c", &mount]).arg(dir.path()).args(args);
        command
    };
    if !unshare(&["true"]).status().is_ok_and(|status| status.success()) {
        cannot(test, "no mount namespace: run it as root");
        return None;
    }
    run_inside(unshare(&[std::env::current_exe().unwrap().to_str().unwrap()]), test, dir.path());
    None
}

/// Runs `test` with `command`, which starts this program, and passes it `dir`. Panics if the test fails.
pub fn run_inside(mut command: Command, test: &str, dir: &Path) {
    command.args([test, "--exact", "--nocapture"]).env(INSIDE, dir).env("TMPDIR", dir);
    let output = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{test} failed inside:\n{text}");
}

/// Reports that a test cannot run here. Panics if `DISK_TESTS` is set.
pub fn cannot(test: &str, why: &str) {
    assert!(std::env::var_os("DISK_TESTS").is_none(), "{test} cannot be run: {why}");
    #[expect(clippy::explicit_write, reason = "the test runner captures eprintln!, but not this")]
    writeln!(std::io::stderr(), "\nNOT TESTED: {test}: {why}").unwrap();
}

/// Returns the directory that [`run_inside`] passed, if this process runs inside.
pub fn inside() -> Option<PathBuf> {
    std::env::var_os(INSIDE).map(PathBuf::from)
}

/// Fills a file system until `left` bytes are free.
pub fn fill(dir: &Path, left: u64) {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(dir.join("ballast-of-others")).unwrap();
    loop {
        let found = rustix::fs::statvfs(dir).unwrap();
        let free = (found.f_bavail * found.f_frsize).saturating_sub(left);
        let piece = vec![1; usize::try_from(free.min(1 << 20)).unwrap()];
        if piece.is_empty() || file.write(&piece).is_err() {
            return;
        }
    }
}

/// Frees the space that [`fill`] used.
pub fn free(dir: &Path) {
    fs::remove_file(dir.join("ballast-of-others")).unwrap();
}
