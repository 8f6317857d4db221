//! The routing tables of both DHTs, and the tasks that keep them filled.
//!
//! ```text
//! tables     the entries, and a snapshot of them that readers share
//! admission  decides by probes, checks and the outcome of requests which peers enter and leave
//! bootstrap  the peers that the operator names
//! upkeep     start, refresh, save
//! ```
//!
//! Candidates come from identify, from look-ups (an answer counts as a probe) and from the saved tables. A peer that
//! others have only named is not a candidate.

pub(crate) mod admission;
pub(crate) mod bootstrap;
pub(crate) mod tables;
pub(crate) mod upkeep;
