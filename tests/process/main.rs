//! Tests of whole processes: they are started, queried, killed and restarted, with real connections and directories.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "tests fail by panics and wait by the clock"
)]

mod backup;
mod check;
mod disk;
mod dump;
mod expiry;
mod harness;
mod load;
mod logging;
mod names;
mod network;
mod restart;
mod restore;
mod service;
mod sites;
mod starting;
mod stat;
mod values;
mod wrong_input;
