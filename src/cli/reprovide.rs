//! `dhtstore reprovide`
