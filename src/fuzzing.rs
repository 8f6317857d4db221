//! The functions behind the fuzz targets of `fuzz/`, one for each decoder of bytes that other programs write. They are
//! compiled for cargo-fuzz (`cfg(fuzzing)`) and for tests, which run every committed seed and every input that once
//! failed.
//!
//! Each function returns normally, or panics if it has found a bug.

mod input;
mod wire;

use std::io::Write;

/// The name of a fuzz target, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every fuzz target. `fuzz/fuzz_targets/NAME.rs` runs the target `NAME`.
pub const TARGETS: [Target; 14] = [
    ("message", wire::message),
    ("frame", crate::node::fuzzing::frame),
    ("request", wire::request),
    ("lookup", wire::lookup),
    ("values", wire::values),
    ("rows", crate::store::fuzzing::rows),
    ("exports", crate::store::fuzzing::exports),
    ("cids", input::cids),
    ("addresses", input::addresses),
    ("keys", input::keys),
    ("config", input::config),
    ("kubo", input::kubo),
    ("control", input::control),
    ("backup", crate::backup::fuzzing::backup),
];

/// Runs the fuzz target `name`.
///
/// # Panics
/// If it finds a bug, or if there is no such target.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let Some((_, target)) = target else { panic!("no fuzz target {name}") };
    target(data);
}

/// Writes these bytes to a temporary file, which is removed when the returned value is dropped.
fn file(data: &[u8]) -> tempfile::NamedTempFile {
    let written = tempfile::NamedTempFile::new().and_then(|mut file| file.write_all(data).map(|()| file));
    written.unwrap_or_else(|error| panic!("no temporary file, set TMPDIR: {error}"))
}

#[cfg(test)]
mod tests;
