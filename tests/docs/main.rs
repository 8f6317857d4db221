//! What the sources and the documents say of each other.
#![allow(clippy::unwrap_used, reason = "tests fail by panics")]

mod conformance;
