//! The command line: one file per command.

pub mod closest;
pub mod config;
pub mod connect;
pub mod diagnose;
pub mod dump;
pub mod error;
pub mod findpeer;
pub mod findprovs;
pub mod id;
pub mod init;
pub mod logging;
pub mod output;
pub mod peers;
pub mod provide;
pub mod provided;
pub mod reprovide;
pub mod run;
pub mod stat;
pub mod unprovide;
