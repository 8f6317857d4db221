//! `dhtstore stat`
