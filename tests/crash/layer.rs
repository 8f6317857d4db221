//! Builds `disk/lib.rs`, a shared library, and loads it into a process.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Compiles the library with the compiler that built this test.
pub fn build() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/disk/lib.rs");
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("libdisk-{}.so", std::process::id()));
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args([
            "--edition",
            "2024",
            "--crate-name",
            "disk",
            "--crate-type",
            "cdylib",
            "-O",
            "-C",
            "panic=abort",
            "-D",
            "warnings",
            "-o",
        ])
        .args([&library, &source])
        .output()
        .expect("cannot run rustc");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

/// The instructions to the library; see `disk/lib.rs`.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub on: &'static str,
    pub path: &'static str,
    pub thread: &'static str,
    pub nth: u64,
    pub when: &'static str,
    pub power: bool,
    pub seed: u64,
}

impl Plan {
    /// Loads the library into `command`, for files below `dir/data`. Calls count from the start, or once `dir/armed`
    /// exists.
    pub fn apply(&self, command: &mut Command, library: &Path, dir: &Path, from_start: bool) {
        let Plan { on, path, thread, nth, when, power, seed } = self;
        let act = if *power { "power" } else { "kill" };
        std::fs::create_dir_all(dir.join("shadow")).unwrap();
        command
            .env("LD_PRELOAD", library)
            .env("DISK_DIR", dir.join("data"))
            .env("DISK_SHADOW", dir.join("shadow"))
            .env("DISK_COUNT", dir.join("count"))
            .env("DISK_SEED", seed.to_string())
            .env("DISK_PLAN", format!("on={on};path={path};thread={thread};nth={nth};when={when};do={act}"));
        if !from_start {
            command.env("DISK_ARMED", dir.join("armed"));
        }
    }
}
