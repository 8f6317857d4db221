//! The routing tables of both DHTs, and what keeps them.
//!
//! ```text
//! tables     who is in, and a picture of it that readers share
//! admission  who is let in and who leaves: probes, checks, what requests say of a peer
//! bootstrap  the list of peers that the operator names
//! upkeep     start, refresh, save
//! ```
//!
//! Candidates come from identify, from look-ups (whoever answered one has been probed by it) and from the saved
//! snapshot. Hearsay is never a candidate.

pub(crate) mod admission;
pub(crate) mod bootstrap;
pub(crate) mod tables;
pub(crate) mod upkeep;
