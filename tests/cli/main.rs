//! Commands that need no running node, each as a process: what is printed where, and with which exit code.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod config;
mod home;
mod init;
