//! What the fuzz targets of `fuzz/` run: one function for each decoder of bytes that others write. Compiled by cargo-fuzz
//! (`cfg(fuzzing)`) and for the tests, which run every committed seed and every input that once failed.
//!
//! A function returns for every input, or panics at a finding.

mod input;
mod wire;

use std::io::Write;

/// A name in `fuzz/`, and what is run.
pub type Target = (&'static str, fn(&[u8]));

/// Every target; `fuzz/fuzz_targets/NAME.rs` calls the one of its name.
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

/// Runs the target `name`.
///
/// # Panics
/// At a finding, and where there is no such target.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let Some((_, target)) = target else { panic!("no fuzz target {name}") };
    target(data);
}

/// A file with these bytes, gone when dropped.
fn file(data: &[u8]) -> tempfile::NamedTempFile {
    let written = tempfile::NamedTempFile::new().and_then(|mut file| file.write_all(data).map(|()| file));
    written.unwrap_or_else(|error| panic!("no temporary file, set TMPDIR: {error}"))
}

#[cfg(test)]
mod tests;
