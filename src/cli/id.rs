//! `dhtstore id`
