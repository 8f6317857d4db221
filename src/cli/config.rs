//! `dhtstore config`
