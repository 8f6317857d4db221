//! The binary under test, as a process of its own.

use std::{ffi::OsStr, process::Command, process::Stdio};

/// Returns a command that runs `binary` with an empty configuration file and empty stdin. The environment variables
/// `DHTSTORE_…` and `RUST_LOG` of the user who runs the tests are removed.
pub fn command(binary: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DHTSTORE_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.env("DHTSTORE_CONFIG", "/dev/null").stdin(Stdio::null());
    command
}
