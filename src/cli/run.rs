//! `dhtstore run`
