//! Whole processes: started, asked, killed and started again, over real connections and a real directory.

mod dump;
mod expiry;
mod harness;
#[path = "../support/kad_peer.rs"]
mod kad_peer;
mod network;
mod restart;
mod starting;
mod wrong_input;
