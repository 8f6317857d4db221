//! `dhtstore peers`
