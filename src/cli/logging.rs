//! `dhtstore logging`
