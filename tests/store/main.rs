//! The store by itself, on real files: its answers, what it keeps over restarts and kills, and how it handles clocks,
//! dumps, and directories that older versions have written.
#![allow(clippy::unwrap_used, reason = "tests fail by panics")]

mod clock;
mod dump;
mod exports;
mod load;
mod migration;
mod provided;
mod records;
mod recovery;
mod segments;
