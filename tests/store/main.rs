//! The store by itself, on real files: what it answers, what it keeps over restarts and kills, and what it makes of clocks,
//! dumps and directories that others have written.
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
