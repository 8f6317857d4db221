//! `dhtstore closest`
