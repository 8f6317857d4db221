//! Commands that need no running node, each as a process: their output and exit codes.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod config;
mod home;
mod init;
