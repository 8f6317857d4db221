//! `dhtstore connect`
