//! The sweep, pure: what is due ([`cycle`]), which servers are where ([`explore`]), who gets what
//! ([`allocate`]). No IO, no clock, no randomness.
//!
//! Work goes by region of the keyspace and not by CID: a few look-ups find all servers of a region, and
//! each of its CIDs is then allocated to its k closest without another look-up.

pub mod allocate;
pub mod cycle;
pub mod explore;
