//! `dhtstore init`
