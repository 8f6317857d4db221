//! `dhtstore output`
