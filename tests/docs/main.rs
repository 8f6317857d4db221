//! Compares the documents with the sources and with the program that they describe.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests fail by panics and wait by the clock")]

mod commands;
mod conformance;
mod examples;
mod forks;
mod pages;
mod sandbox;
mod text;
mod warnings;

use std::path::Path;

/// Returns the root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
