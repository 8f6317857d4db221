//! `dhtstore unprovide`
