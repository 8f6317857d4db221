//! `dhtstore diagnose`
