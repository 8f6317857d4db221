//! Whole processes: started, asked, killed and started again, over real connections and a real directory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "tests fail by panics and wait by the clock"
)]

mod backup;
mod check;
#[path = "../support/copy.rs"]
mod copy;
mod disk;
mod dump;
mod expiry;
mod harness;
#[path = "../support/kad_peer.rs"]
mod kad_peer;
mod load;
mod logging;
mod names;
mod network;
#[path = "../support/port.rs"]
mod port;
mod restart;
mod restore;
mod service;
mod sites;
#[path = "../support/small_disk.rs"]
mod small_disk;
mod starting;
mod stat;
mod values;
mod wrong_input;
