//! `dhtstore error`
