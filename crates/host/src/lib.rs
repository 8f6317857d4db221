//! What the process asks of the machine beneath it, one module each: the [`clock`]s, the small [`files`] that an operator
//! names, [`mod@metrics`], and the tasks without which there is no node ([`vital`]).
//!
//! Nothing else reads a clock: code that needs the time takes a [`clock::Clock`], and tests give it a
//! [`clock::ManualClock`].

pub mod clock;
pub mod files;
pub mod metrics;
pub mod vital;
