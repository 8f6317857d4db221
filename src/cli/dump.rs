//! `dhtstore dump`
