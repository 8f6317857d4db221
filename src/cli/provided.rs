//! `dhtstore provided`
