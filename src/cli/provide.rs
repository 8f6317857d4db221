//! `dhtstore provide`
